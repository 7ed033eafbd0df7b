"""The threads that render for the pages: Nerfstudio's, with the pictures of a function of ours."""

import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

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
MOVING_DEPTH_SIDE = 128
"""about, px, of depth while a camera moves: to encode all of it takes longer than to render"""

Poll = Callable[[], None]
"""Raises if the picture that is being made is not wanted any more."""
Outputs = Callable[[Cameras, Poll, bool], MutableMapping[str, Tensor]]
"""Outputs [H, W, channels] of a camera of shape [1]. The last argument says that a coarse picture will do: a better one
will be asked for by itself. Called with the train lock held and the model in evaluation."""
Cover = Callable[[], UInt8[np.ndarray, "H W 3"] | None]
"""What lies behind the scene where pages draw it themselves; None where they do not. Called without the train lock."""


class LiveMachine(RenderStateMachine):
    """Renders for one page, can be interrupted where the function asks for it only, and loses no action.

    Nerfstudio's own thread interrupts a render by an exception at whatever Python line it is at, which leaves locks
    locked (the line that ends a `with` is one too) and half-made things behind. And it forgets an action that comes
    while it takes another one: the page would keep a picture without the last stroke.

    Args:
        machine: Nerfstudio's for that page, which it stands for.
        outputs: makes the pictures.
    """

    def __init__(self, machine: RenderStateMachine, outputs: Outputs) -> None:
        super().__init__(machine.viewer, machine.viser_scale_ratio, machine.client)
        self._outputs = outputs
        self._taking = threading.Lock()

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
            with suppress(IOChangeException):
                self._send_output_to_viewer(self._render_img(action.camera_state), action.action in ("static", "step"))

    def poll(self) -> None:
        """Raises Nerfstudio's exception if the render is to be interrupted."""
        if self.interrupt_render_flag:
            self.interrupt_render_flag = False
            raise IOChangeException

    def _render_img(self, camera_state: CameraState) -> Any:
        try:
            return self._rendered(camera_state)
        except IOChangeException:
            raise
        except Exception:
            # Whatever it is: without this thread, the page would never get a picture again.
            CONSOLE.print_exception()
            raise IOChangeException from None

    def _rendered(self, camera_state: CameraState) -> Any:
        """The outputs for a page's camera, and "gl_z_buf_depth" [H, W, 1] if the scene's depth is to hide things.

        Where pages draw the scene themselves: the picture behind it.
        """
        # It may have been raised by the very action that this picture is for.
        self.interrupt_render_flag = False
        machines: Any = self.viewer.render_statemachines
        behind = machines.cover()
        if behind is not None:
            return behind
        viewer, model = self.viewer, self.viewer.get_model()
        height, width = self._calculate_image_res(camera_state.aspect)
        if viewer.include_time and not viewer.render_tab_state.preview_render:
            camera_state.time = viewer.control_panel.time
        camera = get_camera(camera_state, height, width).to(model.device)
        with TimeWriter(None, None, write=False) as taken:
            with viewer.train_lock or nullcontext():
                training, step = model.training, viewer.step
                model.eval()
                try:
                    outputs = self._outputs(camera, self.poll, self.state != "high")
                finally:
                    model.train(training)
            if viewer.control_panel.layer_depth:
                every = 1 if self.state == "high" else -(-round((height * width) ** 0.5) // MOVING_DEPTH_SIDE)
                outputs["gl_z_buf_depth"] = hiding_depth(outputs, camera)[::every, ::every].contiguous()
        if writer.is_initialized() and taken.duration:
            writer.put_time(EventName.VIS_RAYS_PER_SEC, height * width / taken.duration, step, avg_over_steps=True)
        return outputs

    def _send_output_to_viewer(self, outputs: Any, static_render: bool = True) -> None:
        if isinstance(outputs, np.ndarray):
            self.client.scene.set_background_image(outputs, format="png")
        else:
            super()._send_output_to_viewer(outputs, static_render)


class Machines(dict[int, Any]):
    """The threads that render, one for each page.

    Nerfstudio looks up those of pages that were closed a moment ago, in the thread that trains as well: it would end.
    """

    _outputs: Outputs | None = None
    cover: Cover = staticmethod(lambda: None)
    """asked by those that have got a function for their pictures (`render_with`), before each picture"""

    def __missing__(self, number: int) -> Any:
        return SimpleNamespace(action=lambda _: None, running=False)

    def __setitem__(self, number: int, machine: RenderStateMachine) -> None:
        # Nerfstudio starts what it finds in here right after it has put its own in.
        if self._outputs is not None and not isinstance(machine, LiveMachine):
            machine = LiveMachine(machine, self._outputs)
        super().__setitem__(number, machine)

    def render_with(self, outputs: Outputs) -> None:
        """Pages get the pictures of a function from now on, also those that are open already."""
        self._outputs = outputs
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
