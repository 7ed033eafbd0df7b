"""The threads that render for the pages: Nerfstudio's, with the pictures of a function of ours."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.utils.writer import EventName, TimeWriter
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.utils import CameraState, get_camera
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera

ORIGIN = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
STATIC_SECONDS = 0.2
"""without an action, after which the camera is taken to stand still"""
LARGEST_LOSS = 3
"""how many times fewer pixels, in each direction, a moving picture may be asked for"""
MOVING_DEPTH_SIDE = 128
"""about, px, of depth while a camera moves: to encode all of it takes longer than to render"""

NOT_SHOWN = frozenset({"gl_z_buf_depth", "semantics"})
"""outputs that are for programs: depth for what hides what, and class ids, which have no colours of their own"""

Poll = Callable[[], None]
"""Raises if the picture that is being made is not wanted any more."""


class Pictures(Protocol):
    """Makes pictures. Called with the train lock held and the model in evaluation."""

    def outputs(self, camera: Cameras, poll: Poll, seconds: float) -> MutableMapping[str, Tensor]:
        """Outputs [H, W, channels] of a camera of shape [1], as sharp as can be in some seconds."""

    def budgets(self, camera: Cameras) -> Sequence[float]:
        """Seconds for pictures of a camera that get sharper and sharper; the last is infinite."""

    @property
    def first(self) -> float:
        """Seconds for a picture while the camera moves."""


Cover = Callable[[], UInt8[np.ndarray, "H W 3"] | None]
"""What lies behind the scene where pages draw it themselves; None where they do not. Called without the train lock."""


class GaveWay(IOChangeException):
    """A picture was interrupted because somebody waits for the model, and is to be made afterwards."""


class LiveMachine(RenderStateMachine):
    """Renders for one page, can be interrupted where the function asks for it only, and loses no action.

    Nerfstudio's own thread interrupts a render by an exception at whatever Python line it is at, which leaves locks
    locked (the line that ends a `with` is one too) and half-made things behind. And it forgets an action that comes
    while it takes another one: the page would keep a picture without the last stroke.

    Args:
        machine: Nerfstudio's for that page, which it stands for.
        pictures: makes the pictures.
    """

    def __init__(self, machine: RenderStateMachine, pictures: Pictures) -> None:
        super().__init__(machine.viewer, machine.viser_scale_ratio, machine.client)
        self._pictures = pictures
        self._taking = threading.Lock()

    @property
    def _machines(self) -> "Machines":
        return self.viewer.render_statemachines  # type: ignore[return-value]

    def action(self, action: RenderAction) -> None:
        """Says what has happened."""
        with self._taking:
            super().action(action)

    def run(self) -> None:
        """Renders one action after the other."""
        while self.running:
            if not self.viewer.ready:
                time.sleep(0.1)
                continue
            if not self.render_trigger.wait(STATIC_SECONDS):
                self.action(RenderAction("static", self.viewer.get_camera_state(self.client)))
            with self._taking:
                self.render_trigger.clear()
                action, self.next_action = self.next_action, None
            if action is None or (self.state == "high" and action.action == "static"):
                continue
            self.state = self.transitions[self.state][action.action]
            while self.running:
                try:
                    self._show(action)
                except GaveWay:
                    self._machines.wait_for_others()
                    if self.next_action is None:
                        continue
                except IOChangeException:
                    pass
                except Exception:
                    # Whatever it is: without this thread, the page would never get a picture again.
                    if self.running:
                        CONSOLE.print_exception()
                break

    def _show(self, action: RenderAction) -> None:
        """One picture for each action; where the camera stands still, several that get sharper and sharper."""
        budgets: Sequence[float] = [self._pictures.first]
        if self.viewer.include_time and not self.viewer.render_tab_state.preview_render:
            action.camera_state.time = self.viewer.control_panel.time
        if self.state == "high":
            height, width = self._calculate_image_res(action.camera_state.aspect)
            budgets = self._pictures.budgets(get_camera(action.camera_state, height, width))
        for seconds in budgets:
            # It may have been raised by the very action that this picture is for.
            self.interrupt_render_flag = False
            still = action.action in ("static", "step")
            self._send_output_to_viewer(self._render_img(action.camera_state, seconds), still)
            self._machines.sent(self.client, action.camera_state.time)

    def poll(self) -> None:
        """Raises an exception of Nerfstudio's if the render is to be interrupted."""
        if self.interrupt_render_flag:
            self.interrupt_render_flag = False
            raise IOChangeException
        if self._machines.others_wait:
            raise GaveWay

    def _render_img(self, camera_state: CameraState, seconds: float = math.inf) -> Any:
        """The outputs for a page's camera, and "gl_z_buf_depth" [H, W, 1] if the scene's depth is to hide things.

        Where pages draw the scene themselves: the picture behind it.
        """
        behind = self._machines.cover()
        if behind is not None:
            return behind
        viewer, model = self.viewer, self.viewer.get_model()
        height, width = self._calculate_image_res(camera_state.aspect)
        camera = get_camera(camera_state, height, width).to(model.device)
        with TimeWriter(None, None, write=False) as taken:
            with viewer.train_lock or nullcontext():
                training, step = model.training, viewer.step
                model.eval()
                try:
                    outputs = self._pictures.outputs(camera, self.poll, seconds)
                finally:
                    model.train(training)
            if viewer.control_panel.layer_depth:
                every = 1 if self.state == "high" else -(-round((height * width) ** 0.5) // MOVING_DEPTH_SIDE)
                outputs["gl_z_buf_depth"] = hiding_depth(outputs, camera)[::every, ::every].contiguous()
        if writer.is_initialized() and taken.duration:
            writer.put_time(EventName.VIS_RAYS_PER_SEC, height * width / taken.duration, step, avg_over_steps=True)
        return outputs

    def _calculate_image_res(self, aspect_ratio: float) -> tuple[int, int]:
        """Height and width of a picture, px. How many of them can be afforded is for `Pictures` to know.

        Nerfstudio goes by pixels a second, of which small pictures have few: on a busy machine each would be smaller
        than the one before.
        """
        height, width = super()._calculate_image_res(aspect_ratio)
        enlarged = self.viewer.control_panel.max_res / LARGEST_LOSS / max(height, width)
        return (height, width) if enlarged <= 1 else (round(height * enlarged), round(width * enlarged))

    def _send_output_to_viewer(self, outputs: Any, static_render: bool = True) -> None:
        if isinstance(outputs, np.ndarray):
            self.client.scene.set_background_image(outputs, format="png")
        else:
            super()._send_output_to_viewer(Offered(outputs), static_render)
            self._machines.offered(list(self.viewer.control_panel._output_render.options))


class Offered(dict[str, Tensor]):
    """Outputs to choose from: those that are for people have names, the others are there."""

    def __init__(self, outputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._outputs = outputs

    def keys(self) -> Any:
        """Names, in their order."""
        return dict.fromkeys(name for name in self._outputs if name not in NOT_SHOWN).keys()

    def __getitem__(self, name: str) -> Tensor:
        return self._outputs[name]

    def __contains__(self, name: object) -> bool:
        return name in self._outputs


class Machines(dict[int, Any]):
    """The threads that render, one for each page.

    Nerfstudio looks up those of pages that were closed a moment ago, in the thread that trains as well: it would end.
    """

    _pictures: Pictures | None = None
    cover: Cover = staticmethod(lambda: None)
    """asked before each picture, by those whose pictures are somebody else's (`render_with`)"""
    offered: Callable[[list[str]], None] = staticmethod(lambda _: None)
    """told which outputs there are, after each picture"""
    sent: Callable[[Any, float | None], None] = staticmethod(lambda client, time: None)
    """called after each picture with the page, and the moment that the picture is of"""

    def __init__(self, machines: Mapping[int, Any]) -> None:
        super().__init__(machines)
        self._waiting, self._changed = 0, threading.Condition()

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for the model."""
        return self._waiting > 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, pictures that are being made give way."""
        with self._changed:
            self._waiting += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

    def wait_for_others(self) -> None:
        """Until nobody waits any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=STATIC_SECONDS)

    def __missing__(self, number: int) -> Any:
        return SimpleNamespace(action=lambda _: None, running=False)

    def __setitem__(self, number: int, machine: RenderStateMachine) -> None:
        # Nerfstudio starts what it finds in here right after it has put its own in.
        if self._pictures is not None and not isinstance(machine, LiveMachine):
            machine = LiveMachine(machine, self._pictures)
        super().__setitem__(number, machine)

    def render_with(self, pictures: Pictures) -> None:
        """Pages get somebody else's pictures from now on, also those that are open already."""
        self._pictures = pictures
        for number, machine in list(self.items()):
            self[number] = machine
            if machine.is_alive():  # otherwise Nerfstudio is about to start what is in here
                machine.running = False
                self[number].start()


def hiding_depth(outputs: Mapping[str, Tensor], camera: Cameras) -> Float[Tensor, "H W 1"]:
    """Depth along the optical axis behind which cameras and strokes are hidden; infinite where a picture is empty."""
    depth = outputs["depth"] * axial_shares(camera).to(outputs["depth"])
    if "accumulation" not in outputs:
        return depth
    return torch.where(outputs["accumulation"] > 0.5, depth, torch.inf)


def axial_shares(camera: Cameras) -> Float[Tensor, "H W 1"]:
    """Depth along the optical axis as a share of that along the ray, of each pixel of a camera of shape [1]."""
    try:
        # They are the same wherever the camera is, and it moves.
        return _axial_shares(replace(ViewCamera.of(camera), camera_to_world=ORIGIN, time=None))
    except SemfieldError:  # panoramas and fish eyes
        return _shares(camera)


@lru_cache(maxsize=4)
def _axial_shares(camera: ViewCamera) -> Tensor:
    return _shares(camera.cameras())


def _shares(camera: Cameras) -> Tensor:
    directions = camera.generate_rays(camera_indices=0).directions
    return -(directions @ camera.camera_to_worlds[0, :3, 2:3])
