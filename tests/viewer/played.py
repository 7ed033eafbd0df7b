"""Nerfstudio's real viewer with browsers that are played: websockets that speak as viser's page does."""

import contextlib
import re
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
import viser.transforms as vtf
from nerfstudio.viewer.viewer import Viewer
from torch import Tensor, nn
from websockets.sync.client import connect

from semfield_ns.editing.editor import SceneEditor
from semfield_ns.errors import SemfieldError
from semfield_ns.method_configs.viewer import local_viewer
from semfield_ns.scene_model import MovingSceneModel, Parts, SceneModel, finished
from semfield_ns.scenes.labels import LabelMap, SemanticClass
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.page import Page
from semfield_ns.viewer.segment_panel import SegmentPanel
from tests.runs import free_port
from tests.segmentation.scene import SPEED, BallScene
from tests.segmentation.scene import camera as scene_camera

PAINTED = re.compile(rb'painted\("([^"]+)", "(\d+ \d+)"\)')
"""a page is asked to say that it has painted what it was sent"""
LOOK_BACK = vtf.SO3.from_x_radians(np.pi)


class BallModel(SceneModel):
    """The ball scene as a model, with a weight that changes what is seen a little."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.device_indicator_param = nn.Parameter(torch.empty(0), requires_grad=False)
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.scene, self.renders = BallScene(), 0

    def raw_outputs_for_camera(self, camera: Any) -> dict[str, Tensor]:
        return finished(self.raw_outputs_in_parts(camera))

    def raw_outputs_in_parts(self, camera: Any) -> Parts:
        """The upper half of a picture, then the lower one."""
        halves = []
        for rows in (slice(None, int(camera.height) // 2), slice(int(camera.height) // 2, None)):
            self.renders += 1
            view = self.scene.render_view(ViewCamera.of(camera))
            bundle = camera.generate_rays(camera_indices=0, keep_shape=True)
            depth = (view.points - bundle.origins).norm(dim=-1, keepdim=True)
            raw = {"rgb": (view.rgb + 0.01 * self.weight).clamp(0, 1), "features": view.features, "depth": depth}
            halves.append({name: value[rows] for name, value in raw.items()})
            yield
        return {name: torch.cat([half[name] for half in halves]) for name in halves[0]}

    def present(self, raw: dict[str, Tensor], camera: Any = None) -> dict[str, Tensor]:
        return {"rgb": raw["rgb"], "depth": raw["depth"], "accumulation": torch.ones_like(raw["depth"])}


class MovingBallModel(BallModel, MovingSceneModel):
    """The same with a ball that rises, and classes that are known without learning."""

    STEPS = 4

    def __init__(self) -> None:
        super().__init__()
        self.scene = BallScene(moves=True)
        ball, colors = SemanticClass("ball", (200, 50, 50), dynamic=True), [(80, 100, 120), (50, 50, 200)]
        self.label_map = LabelMap((SemanticClass("wall", colors[0]), ball, SemanticClass("twin", colors[1])))
        self.editor = NoEdits(self, None, np.eye(4)[:3])

    def raw_outputs_in_parts(self, camera: Any) -> Parts:
        raw = yield from super().raw_outputs_in_parts(camera)
        label, surface = self.scene.labels(ViewCamera.of(camera))
        logits, moving = 10.0 * F.one_hot(label, 3), (label == 1)[..., None].float()
        flow = moving * SPEED / (self.STEPS - 1)
        flows = {"scene_flow_forward": flow, "scene_flow_backward": -flow}
        return raw | {"logits": logits, "dynamic_weight": moving, "surface": surface} | flows

    def unedited_outputs(self, camera: Any) -> dict[str, Tensor]:
        return self.raw_outputs_for_camera(camera)

    def time_cameras(self, scale: float = 1.0) -> list[Any]:
        times = np.linspace(0, 1, self.STEPS).tolist()
        return [scene_camera(time=time).scaled(scale).cameras() for time in times]

    def time_frames(self) -> list[int]:
        return list(range(self.STEPS))

    def step_of(self, time: float) -> float:
        return time * (self.STEPS - 1)


class NoEdits(SceneEditor):
    """Knows the objects of a scene alone."""

    def build(self, edits: Any) -> Any:
        raise SemfieldError("There are no edits in here.")

    def find_object(self, scene: Any, camera: Any, row: float, column: float) -> int:
        return -1


def write_session(session: Session, folder: Path, what: str, which: str, page: Page) -> str:
    with page.lock:
        folder.mkdir(parents=True, exist_ok=True)
        session.save(folder / "session.json")
    return f"Wrote {what} of {which}"


def ball_pipeline(model: Any, includes_time: bool = True) -> Any:
    """As much of a pipeline as the viewer asks for."""
    pipeline: Any = nn.Module()
    pipeline.model = model
    page = pipeline.page = Page()
    pipeline.segmentation = SegmentPanel(page, model, Session(), write_session)
    page.add(pipeline.segmentation, "Segment")
    pipeline.datamanager = SimpleNamespace(includes_time=includes_time)
    return pipeline


class Served:
    """A viewer that shows a pipeline."""

    def __init__(self, folder: Path, pipeline: Any, training: bool = False, max_res: int = 64) -> None:
        self.pipeline = pipeline
        self.model, self.panel, self.lock = pipeline.model, pipeline.segmentation, threading.Lock()
        self.page, self.session = pipeline.page, self.panel.session
        self.port, self.pages = free_port(), 0
        config = local_viewer(4096)
        config.websocket_port = self.port
        trainer: Any = SimpleNamespace(training_state="training") if training else None
        with contextlib.ExitStack() as stack:
            # Reading each icon takes half a second, and viser looks at all processes of the machine, which may end.
            for module in ("_gui_api", "_gui_handles"):
                stack.enter_context(mock.patch(f"viser.{module}.svg_from_icon", lambda icon: "<svg/>"))
            stack.enter_context(mock.patch("viser._client_autobuild.ensure_client_is_built"))
            self.viewer = Viewer(config, folder / "viewer.log", folder, pipeline, trainer=trainer, train_lock=self.lock)
        self.viewer.train_util, self.viewer.camera_handles = 0.9, {}  # as `init_scene` does
        self.viewer.control_panel._max_res.value = max_res
        self._under_way = 0
        self._count_messages()

    def _count_messages(self) -> None:
        """Counts what viser's pool of threads has been given and has not done yet."""
        executor, lock = self.viewer.viser_server._websock_server._thread_executor, threading.Lock()
        submit = executor.submit

        def done(_: Any) -> None:
            with lock:
                self._under_way -= 1

        def counted(*args: Any, **kwargs: Any) -> Any:
            with lock:
                self._under_way += 1
            future = submit(*args, **kwargs)
            future.add_done_callback(done)
            return future

        executor.submit = counted

    def settle(self) -> None:
        """Waits until all that pages have sent is done: on a busy machine that takes its time."""
        quiet = 0
        end = time.monotonic() + 120
        while quiet < 4:
            assert time.monotonic() < end, f"{self._under_way} messages are still under way"
            time.sleep(0.05)
            quiet = quiet + 1 if self._under_way == 0 else 0

    def press(self, element: Any, browser: "Browser", value: Any = True) -> None:
        """Presses after all that came before is done: viser has a thread for each message, and a late one would still
        say what it did."""
        self.settle()
        self.press_at_once(element, browser, value)

    def press_at_once(self, element: Any, browser: "Browser", value: Any = True) -> None:
        """Presses like somebody who does not wait."""
        browser.send("GuiUpdateMessage", id=element.handle._impl.id, updates={"value": value})

    def stop(self) -> None:
        """Ends the server, and the threads that render, which Nerfstudio leaves behind."""
        machines = list(self.viewer.render_statemachines.values())
        for machine in machines:
            machine.running = False
        # In a thread of its own: where a lock is stuck, a test is to fail rather than to wait.
        threads = [*machines, threading.Thread(target=self.viewer.viser_server.stop, daemon=True)]
        threads[-1].start()
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive(), f"{thread.name} does not end"

    @property
    def tools(self) -> Any:
        return self.panel.tools

    def said(self) -> str:
        return self.page.said


class Browser:
    """One page: sends what viser's page sends, and keeps what it got last.

    Args:
        served: the viewer.
        x: where it looks from.
        reads: at once; otherwise when it is told to.
    """

    def __init__(self, served: Served, x: float = 0.0, reads: bool = True) -> None:
        self.socket = connect(f"ws://127.0.0.1:{served.port}", max_size=None, compression=None)
        self.number, served.pages = served.pages, served.pages + 1  # viser counts connections too
        self.messages: deque[Any] = deque(maxlen=100)
        if reads:
            self.read()
        self.look(x)

    def read(self) -> None:
        """From now on, all that comes."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(Exception):
            for message in self.socket:
                self.messages.append(message)
                for element, text in PAINTED.findall(message):
                    update = {"id": element.decode(), "updates": {"value": text.decode()}}
                    self.send("GuiUpdateMessage", **update)

    def got(self, text: str) -> bool:
        """Whether a message with this text has come lately."""
        return any(text.encode() in message for message in list(self.messages))

    def send(self, kind: str, **values: Any) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **values}))

    def look(self, x: float, turn: float = 0.0) -> None:
        """From (x, 0, 0) along -z, turned to the left."""
        pose = np.zeros((3, 4))
        pose[:, :3], pose[0, 3] = vtf.SO3.from_y_radians(turn).as_matrix(), x
        self.look_from(pose)

    def look_from(self, pose: np.ndarray) -> None:
        """Through a camera [3, 4] of the model's world, OpenGL."""
        rotation = vtf.SO3.from_matrix(pose[:, :3].astype(np.float64)) @ LOOK_BACK
        position = 10.0 * pose[:, 3].astype(np.float64)
        self.send(
            "ViewerCameraMessage",
            wxyz=rotation.wxyz.tolist(),
            position=position.tolist(),
            fov=0.9,
            aspect=4 / 3,
            look_at=(position + rotation.as_matrix()[:, 2]).tolist(),
            up_direction=pose[:, 1].astype(float).tolist(),
        )

    def click(self, x: float, y: float) -> None:
        self.send(
            "ScenePointerMessage",
            event_type="click",
            ray_origin=[0.0, 0.0, 0.0],
            ray_direction=[0.0, 0.0, -1.0],
            screen_pos=[[x, y]],
        )

    def select(self, *corners: tuple[float, float]) -> None:
        self.send(
            "ScenePointerMessage",
            event_type="rect-select",
            ray_origin=None,
            ray_direction=None,
            screen_pos=[list(corner) for corner in corners],
        )


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)
