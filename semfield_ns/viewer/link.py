"""The viewer and its pages, for tools. With `machine`, the one place that knows what is private in Nerfstudio's viewer.

A `ViewerLink` knows the running viewer. Until there is one (in ns-render, in tests) it says so and does nothing.
"""

import ipaddress
import math
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.render_state_machine import RenderAction
from nerfstudio.viewer.viewer_elements import ViewerControl

from semfield_ns.compat.viser import repair_viser
from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.viewer.elements import Client
from semfield_ns.viewer.machine import Cover, Machines, Pictures

Pointer = Literal["click", "rect-select"]
ScreenPoint = tuple[float, float]
"""x right and y down, as shares of the picture's sides"""
SKETCH_DISTANCE = 0.5
"""in viser units: where marks are that have no place in the scene yet"""


EXPOSED = (
    "This viewer listens on {host}: anyone who reaches this machine can open it, draw, and write results into the run. "
    "For this machine alone: --viewer.websocket-host 127.0.0.1"
)
NOTICE_MILLISECONDS = 8000
"""for which a notification stays"""


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ViewerLink(ViewerControl):
    """The running viewer, for tools. Nerfstudio finds it among the attributes of a pipeline, and calls `_setup`."""

    viewer: Any = None

    def __init__(self) -> None:
        repair_viser()
        self.on_ready: list[Callable[[], None]] = []
        """called once there is a viewer"""
        self.on_left: list[Callable[[int], None]] = []
        """called with the number of a browser that is closed"""
        self.on_output: list[Callable[[str], None]] = []
        """called with the name of an output that the program has chosen"""
        self.on_time: list[Callable[[], None]] = []
        """called when the time has changed"""
        self.pictured = threading.Event()
        """set when all pages have a picture of the time that the program has set last"""

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        viewer.render_statemachines = Machines(viewer.render_statemachines)
        viewer.render_statemachines.sent = lambda client, time: self.pictured.set()
        if not is_loopback(viewer.config.websocket_host):
            CONSOLE.log(f"[yellow]{EXPOSED.format(host=viewer.config.websocket_host)}")
        self.viser_server.on_client_disconnect(lambda client: self._client_left(client.client_id))
        for ready in self.on_ready:
            ready()

    def _client_left(self, number: int) -> None:
        for left in self.on_left:
            left(number)

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held by whoever uses the model: training, renders, exports."""
        lock = None if self.viewer is None else self.viewer.train_lock
        return nullcontext() if lock is None else lock

    @contextmanager
    def hold(self) -> Iterator[None]:
        """The model alone, as soon as possible: a picture that is being made gives way, and goes on afterwards."""
        if self.viewer is None:
            yield
            return
        with self.viewer.render_statemachines.waiting():
            self.lock.__enter__()
        try:
            yield
        finally:
            self.lock.__exit__(None, None, None)

    def notify(self, client: Client | None, title: str, sentence: str, good: bool = False) -> None:
        """Shows a notification in a browser; in all of them if it is None."""
        if self.viewer is None:
            return
        clients = [client] if client is not None else list(self.viser_server.get_clients().values())
        for one in clients:
            one.add_notification(title, sentence, auto_close=NOTICE_MILLISECONDS, color="green" if good else "yellow")

    @property
    def training(self) -> bool:
        """Whether the weights are changing."""
        trainer = None if self.viewer is None else self.viewer.trainer
        return trainer is not None and trainer.training_state == "training"

    @property
    def run_folder(self) -> Path:
        """The folder of the run, or the current one where there is no viewer."""
        return Path() if self.viewer is None else Path(self.viewer.log_filename).parent

    def told(self, path: Path) -> str:
        """A path as pages are told it.

        All of it, if they are of this machine alone; otherwise from the folder of the run on, as not everybody needs to
        know where that is.
        """
        if self.viewer is not None and is_loopback(self.viewer.config.websocket_host):
            return str(path.resolve())
        try:
            return path.relative_to(self.run_folder.resolve()).as_posix()
        except ValueError:
            return path.name

    # ------------------------------------------------------------------------------------------------ pictures

    def camera(self, client: Client) -> ViewCamera:
        """What a browser looks through, at the resolution that it gets when it stands still."""
        from nerfstudio.viewer.utils import get_camera

        state = self.viewer.get_camera_state(client)
        if self.viewer.include_time and not self.viewer.render_tab_state.preview_render:
            state.time = self.viewer.control_panel.time
        # As in Nerfstudio's RenderStateMachine: strokes are then drawn in the very view that is rendered.
        height = self.viewer.control_panel.max_res
        width = int(height * state.aspect)
        if width > height:
            width = height
            height = int(width / state.aspect)
        return ViewCamera.of(get_camera(state, height, width))

    def cameras(self) -> list[ViewCamera]:
        """What all browsers look through; those that show no perspective view are left out."""
        found = []
        for client in list(self.viser_server.get_clients().values()):
            if has_camera(client):
                with suppress(SemfieldError):
                    found.append(self.camera(client))
        return found

    def render(self, prepared: bool) -> None:
        """Renders again for every browser.

        Args:
            prepared: the full picture takes no time: no coarse one is needed before it.
        """
        if self.viewer is None or not self.viewer.ready:
            return
        machines = dict(self.viewer.render_statemachines)
        for number, client in self.viser_server.get_clients().items():
            if number in machines and has_camera(client):
                state = self.viewer.get_camera_state(client)
                machines[number].action(RenderAction("step" if prepared else "move", state))

    def render_with(self, pictures: Pictures) -> None:
        """From now on the pictures of all browsers are made by somebody else."""
        self.viewer.render_statemachines.render_with(pictures)

    def cover_with(self, cover: Cover) -> None:
        """From now on a function says, before each picture, whether pages draw the scene themselves."""
        self.viewer.render_statemachines.cover = cover

    def show_output(self, name: str, unless: Collection[str] = ()) -> None:
        """Chooses an output type, unless it is one of some."""
        chosen = self.viewer.control_panel._output_render
        if chosen.value != name and chosen.value not in unless and name in chosen.options:
            chosen.value = name
            for told in self.on_output:
                told(name)

    @property
    def shown(self) -> tuple[str, ...]:
        """The outputs that are chosen in the viewer."""
        if self.viewer is None:
            return ()
        panel = self.viewer.control_panel
        return (panel.output_render, panel.split_output_render) if panel.split else (panel.output_render,)

    @property
    def time(self) -> float:
        """Where the time slider stands, 0 to 1."""
        return 0.0 if self.viewer is None else float(self.viewer.control_panel.time)

    def show_time(self, time: float) -> None:
        """Moves the time slider, 0 to 1; every browser is rendered again."""
        if self.viewer is not None:
            self.pictured.clear()
            self.viewer.control_panel.time = time
            for told in self.on_time:
                told()

    # ------------------------------------------------------------------------------------------------- pointer

    def take_pointer(self, client: Client, kind: Pointer, called: Callable[[tuple[ScreenPoint, ...]], None]) -> None:
        """Clicks (or rectangles) of one browser go to a tool; its camera does not move meanwhile."""

        # By viser itself: Nerfstudio's `register_pointer_cb` takes the pointers of all browsers, and hides whose it is.
        def received(event: Any) -> None:
            # What was done before the page heard of the tool is for another one.
            if event.event_type == kind:
                called(tuple((x, y) for x, y in event.screen_pos))

        with suppress(KeyError):
            client.scene.on_pointer_event(kind)(received)

    def give_pointer_back(self, client: Client) -> None:
        """The browser's camera can be moved again."""
        # A page that was closed meanwhile is not known any more.
        with suppress(KeyError):
            if client.scene._scene_pointer_cb is not None:
                client.scene.remove_pointer_callback()

    # --------------------------------------------------------------------------------------------------- marks

    def draw(
        self,
        name: str,
        points: Float[np.ndarray, "N 3"],
        color: tuple[int, int, int],
        size: float,
        joined: bool = True,
    ) -> list[Any]:
        """A line through points of the model's world, for all browsers; one point is a dot.

        Args:
            name: unique name.
            points: at least one.
            color: sRGB, 0 to 255.
            size: diameter of a dot, in the model's units.
            joined: by a line; otherwise each is a dot.

        Returns:
            What has to be removed for the line to go.
        """
        points, size = points * viser_units(), size * viser_units()
        return _draw(self.viser_server.scene, name, points, color, size, line=joined, dots=not joined)

    def sketch(self, client: Client, name: str, points: list[ScreenPoint], color: tuple[int, int, int]) -> list[Any]:
        """A line right before the eyes of one browser, for strokes that are not done yet."""
        half = math.tan(client.camera.fov / 2)
        shares = np.array(points)
        local = np.stack(
            [
                (2 * shares[:, 0] - 1) * half * client.camera.aspect,
                (2 * shares[:, 1] - 1) * half,
                np.ones(len(points)),
            ],
            axis=1,
        )
        import viser.transforms as vtf

        rotation = vtf.SO3(client.camera.wxyz).as_matrix()
        world = client.camera.position + SKETCH_DISTANCE * local @ rotation.T
        return _draw(client.scene, name, world, color, 0.02 * half * SKETCH_DISTANCE, dots=True)


def _draw(
    scene: Any,
    name: str,
    points: Float[np.ndarray, "N 3"],
    color: tuple[int, int, int],
    size: float,
    line: bool = True,
    dots: bool = False,
) -> list[Any]:
    drawn = []
    if line and len(points) > 1:
        drawn.append(scene.add_spline_catmull_rom(f"{name}/line", points, color=color, line_width=4.0, tension=0.0))
    if dots or len(points) == 1:
        shape: Any = "circle"
        places = points.astype(np.float32)
        drawn.append(scene.add_point_cloud(f"{name}/dots", places, colors=color, point_size=size, point_shape=shape))
    return drawn


def viser_units() -> float:
    """Of viser in one unit of the model."""
    from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

    return VISER_NERFSTUDIO_SCALE_RATIO


def has_camera(client: Client) -> bool:
    """Whether a browser has told where it looks from; a page that is just opened has not."""
    return client.camera._state.update_timestamp != 0.0
