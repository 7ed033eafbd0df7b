"""Segmentation for people who wait: coarse first, kept, resumed where it was interrupted.

Nerfstudio asks for a picture of a view again and again: small while the camera moves, large when it stands still, and
once more after every stroke. `LiveViews` renders in parts of a fraction of a second; whoever interrupts it loses none
that is done. `LiveSegmentation` decides which picture can be made in time, and draws the session's objects over it.
"""

import math
import time
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from cachetools import LRUCache
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.editing.edits import Edit
from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.lazy import LazyOutputs
from semfield_ns.scene_model import MovingSceneModel, Parts, SceneModel
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Box, Stroke, TextQuery
from semfield_ns.segmentation.views import FeatureView
from semfield_ns.sessions.actions import SessionState
from semfield_ns.sessions.segmenter import Segmentation, Segmenter, knows_features
from semfield_ns.sessions.session import Session
from semfield_ns.sessions.views import ModelViews, Render, Renders
from semfield_ns.viewer.link import ViewerLink
from semfield_ns.viewer.machine import Poll
from semfield_ns.viewer.pace import Pace
from semfield_ns.viewer.tools import in_camera, lift, resized, same_view

COARSE_SECONDS = 0.35
"""for a first picture of a new view"""
SHARPER = 4
"""how much longer each further picture of a view that stands still may take"""
COARSE_SIDE = 48
"""pixels of the longer side of the views that people drew in, for first pictures and while weights change"""
SMALLEST = 24 * 32
KEPT_BYTES = 1 << 30
"""of renders and prepared views"""
BEGUN = 4
"""renders that were interrupted and may go on"""
RESTING = "Strokes on what was edited rest until the edit is undone."
ROUGH = ("semantics", "segmentation")
"""outputs whose values have no meaning in between"""


class LiveViews(ModelViews):
    """Renders of a model, kept until weights or edits change.

    Whoever calls it holds the train lock.

    Args:
        model: that renders.
        renders: where they are kept.
    """

    def __init__(self, model: SceneModel, renders: Renders | None = None) -> None:
        super().__init__(model)
        self.pace = Pace()
        self._renders = renders or Renders(KEPT_BYTES)
        # What was interrupted, and the seconds that were spent on it.
        self._begun: LRUCache[tuple[ViewCamera, Hashable], tuple[Parts, float]] = LRUCache(BEGUN)

    def raw(self, camera: ViewCamera, poll: Poll = lambda: None) -> Mapping[str, Tensor]:
        """The model's raw outputs for a camera; what was done before is not done again.

        Args:
            camera: any perspective camera.
            poll: called every now and then; when it raises, what is done is kept.
        """
        version = self.version()
        kept = self._renders.find(camera, version)
        if kept.raw:
            return kept.raw
        # Renders of other weights are of no use any more.
        for other in [key for key in self._begun if key[1] != version]:
            del self._begun[other]
        key = camera, version
        parts, seconds = self._begun.pop(key, (self.model.raw_outputs_in_parts(camera.cameras()), 0.0))
        training = self.model.training
        self.model.eval()
        try:
            while True:
                try:
                    poll()
                except BaseException:
                    self._begun[key] = parts, seconds
                    raise
                start = time.perf_counter()
                try:
                    with torch.no_grad():
                        next(parts)
                except StopIteration as end:
                    raw: Mapping[str, Tensor] = end.value
                    break
                finally:
                    seconds += time.perf_counter() - start
        finally:
            self.model.train(training)
        self.pace.learn(camera.height * camera.width, seconds)
        self._renders.keep(camera, version, Render(raw))
        return raw

    def best(self, camera: ViewCamera) -> ViewCamera | None:
        """The largest finished render of the same view, if there is one."""
        done = [other for other in self._renders.cameras(self.version()) if same_view(other, camera)]
        return max(done, key=lambda other: other.height, default=None)

    def has(self, camera: ViewCamera) -> bool:
        """Whether the picture of a camera is there."""
        return bool(self._renders.find(camera, self.version()).raw)

    def seconds(self, camera: ViewCamera) -> float:
        """About how long it takes to render a view."""
        return 0.0 if self.has(camera) else self.pace.seconds(camera.width * camera.height)

    def affordable(self, camera: ViewCamera, seconds: float = COARSE_SECONDS) -> ViewCamera:
        """The same view, as large as can be rendered in some seconds."""
        pixels = max(SMALLEST, self.pace.pixels(seconds))
        return camera.scaled(min(1.0, (pixels / (camera.width * camera.height)) ** 0.5))

    def render_view(self, camera: ViewCamera) -> FeatureView:
        """What a camera sees, of a render that may be there."""
        return self.view_of(self.raw(camera), camera.cameras())


class GuardedViews(ModelViews):
    """Views of a model that others use too: every render holds the train lock, and nothing is held in between.

    All of them show the edits that there were at first.
    """

    def __init__(self, model: SceneModel, link: ViewerLink) -> None:
        super().__init__(model)
        self.link = link
        self._edits = _edits(model)

    def render_view(self, camera: ViewCamera) -> FeatureView:
        """What a camera sees, rendered with the lock held.

        Raises:
            SemfieldError: the scene was edited meanwhile.
        """
        with self.link.lock:
            if _edits(self.model) != self._edits:
                raise SemfieldError("The scene was edited meanwhile, so nothing was written. Export it again.")
            return super().render_view(camera)


def _edits(model: SceneModel) -> tuple[Edit, ...]:
    return model.editor.edits if isinstance(model, MovingSceneModel) else ()


class LiveSegmentation:
    """The outputs of a model with the objects of a session, as the viewer shows them.

    Args:
        model: of this package.
        session: whose objects are shown.
        link: to the viewer.
        chosen: the number of the object that "similarity" and "segmentation" are of, or None.
        tell: called with a sentence where there is something to say, or "".
        shown: called after each picture, in the thread that made it, with the train lock held.
    """

    def __init__(
        self,
        model: SceneModel,
        session: Session,
        link: ViewerLink,
        chosen: Callable[[], int | None],
        tell: Callable[[str], None],
        shown: Callable[[], None],
    ) -> None:
        self.model, self.session, self.link = model, session, link
        renders = Renders(KEPT_BYTES)
        self.views = LiveViews(model, renders)
        self.segmenter = Segmenter(session, self.views, renders=renders)
        self._chosen, self._tell, self._shown = chosen, tell, shown
        self._states: list[tuple[SessionState, dict[ViewCamera, ViewCamera], SessionState]] = []
        self._found: list[tuple[SessionState, ViewCamera, Hashable, Segmentation]] = []
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._awakened: tuple[SessionState, frozenset[int], SessionState] | None = None
        self.resting: frozenset[int] = frozenset()
        """numbers of the prompts that lie on what was moved or removed: their objects have no masks meanwhile"""

    first = COARSE_SECONDS

    def budgets(self, camera: Cameras) -> list[float]:
        """Seconds for pictures of a camera that get sharper and sharper; the last is infinite."""
        try:
            left = self.views.seconds(ViewCamera.of(camera))
        except SemfieldError:
            return [math.inf]
        budgets, seconds = [], SHARPER * COARSE_SECONDS
        while seconds < left / 2:
            budgets.append(seconds)
            seconds *= SHARPER
        return [*budgets, math.inf]

    @torch.no_grad()
    def outputs(self, camera: Cameras, poll: Poll, seconds: float = math.inf) -> MutableMapping[str, Tensor]:
        """What the viewer shows of a camera: the model's outputs, "similarity" and "segmentation" [H, W, 1] of the
        chosen object, and "segmentation_overlay" [H, W, 3] of all objects. Those that the viewer shows now are made,
        the others when they are asked for.

        Args:
            camera: the viewer's, of shape [1].
            poll: raises if the picture is not wanted any more.
            seconds: that it may take, about; the picture is as sharp as they allow.
        """
        try:
            asked = ViewCamera.of(camera)
        except SemfieldError:
            # Panoramas and fish eyes of the viewer's render tab: no strokes there.
            raw = self.model.raw_outputs_for_camera(camera)
            return LazyOutputs(self._presented(raw, camera) | object_pictures(raw, None, None))
        impatient = seconds < math.inf
        view = self._affordable_view(asked, seconds) if impatient else asked
        coarse = view.height < asked.height
        if coarse:
            self._tell(f"Sharpening: {view.width} x {view.height} of {asked.width} x {asked.height}")
        raw = self.views.raw(view, poll)
        found = None
        try:
            found = self._segmentation(view, raw, poll, impatient)
            if not coarse:
                self._tell(RESTING if self.resting else "")
        except SemfieldError as error:
            self._tell(str(error))
        self._shown()
        makers = self._presented(raw, view.cameras().to(self.model.device)) | object_pictures(
            raw, found, self._chosen()
        )
        pictures = LazyOutputs({name: partial(_sized, name, make, asked) for name, make in makers.items()})
        # Here rather than later: the caller holds the train lock.
        for name in {"depth", "accumulation", *self.link.shown} & pictures.keys():
            _ = pictures[name]
        return pictures

    def _presented(self, raw: Mapping[str, Tensor], cameras: Cameras) -> dict[str, Callable[[], Tensor]]:
        """The model's own outputs, which it makes all at once, but for those that need no making."""

        @cache
        def present() -> Mapping[str, Tensor]:
            return self.model.present(raw, cameras)

        of_raw = tuple(raw)
        if of_raw not in self._names:
            self._names[of_raw] = tuple(present())
        makers: dict[str, Callable[[], Tensor]] = {
            name: partial(lambda name: present()[name], name) for name in self._names[of_raw]
        }

        def depth() -> Tensor:
            return raw["depth"].float()

        # A model that says nothing of accumulation fills its pictures.
        return makers | {
            "rgb": lambda: _colors(raw),
            "depth": depth,
            "accumulation": lambda: (
                raw["accumulation"] if "accumulation" in raw else torch.ones_like(depth())
            ).float(),
        }

    def _affordable_view(self, asked: ViewCamera, seconds: float) -> ViewCamera:
        if self.views.has(asked):
            return asked
        affordable, best = self.views.affordable(asked, seconds), self.views.best(asked)
        return best if best is not None and best.height >= affordable.height else affordable

    def _segmentation(
        self, view: ViewCamera, raw: Mapping[str, Tensor], poll: Poll, impatient: bool
    ) -> Segmentation | None:
        state = self._awake(self.session.state)
        if not state.objects or not knows_features(raw):
            return None
        drawn_in = list(dict.fromkeys(p.camera for _, _, p in state.prompts if not isinstance(p, TextQuery)))
        targets = {camera: self._evidence_view(camera, view, impatient) for camera in drawn_in}
        state = self._in_views(state, targets)
        if not self.link.training:
            # In training, strokes are rendered by the segmenter, from time to time.
            for camera in targets.values():
                self.views.raw(camera, poll)
        version = self.views.version()
        for known, of_view, of_version, segmentation in self._found:
            if known is state and of_view == view and of_version == version:
                return segmentation
        segmentation = self.segmenter.segment_view(self.segmenter.view(view), state)
        self._found = [*self._found[-3:], (state, view, version, segmentation)]
        return segmentation

    def _evidence_view(self, camera: ViewCamera, view: ViewCamera, impatient: bool) -> ViewCamera:
        """In which render a stroke is looked at: that of the view shown if it is the same view, otherwise its own."""
        if same_view(camera, view):
            return view
        if self.views.has(camera):
            return camera
        if self.link.training or impatient:
            best = None if self.link.training else self.views.best(camera)
            return best or camera.scaled(min(1.0, COARSE_SIDE / max(camera.width, camera.height)))
        return camera

    def _awake(self, state: SessionState) -> SessionState:
        """The state without the prompts of what has been edited. The same object for the same arguments."""
        resting = self.resting
        if not resting:
            return state
        if self._awakened is None or self._awakened[0] is not state or self._awakened[1] != resting:
            objects = tuple(
                replace(entry, prompts=() if resting & {n for n, _ in entry.prompts} else entry.prompts)
                for entry in state.objects
            )
            self._awakened = state, resting, SessionState(objects)
        return self._awakened[2]

    def _in_views(self, state: SessionState, targets: dict[ViewCamera, ViewCamera]) -> SessionState:
        """The state with its strokes in other resolutions of their views. The same object for the same arguments: the
        segmenter knows by that whether something has changed.
        """
        if all(camera == target for camera, target in targets.items()):
            return state
        for known, of_targets, result in self._states:
            if known is state and of_targets == targets:
                return result
        objects = []
        for entry in state.objects:
            prompts = [
                (number, p if isinstance(p, TextQuery) else in_camera(p, targets[p.camera]))
                for number, p in entry.prompts
            ]
            objects.append(replace(entry, prompts=tuple(prompts)))
        result = SessionState(tuple(objects))
        self._states = [*self._states[-3:], (state, targets, result)]
        return result

    def lifted(self, prompt: Stroke | Box) -> Float[np.ndarray, "N 3"] | None:
        """A prompt as a line in the world, by the best render of its view that is there; None without one.

        Called with the train lock held.
        """
        best = self.views.best(prompt.camera)
        return None if best is None else lift(in_camera(prompt, best), self.views.raw(best))

    def near(self, camera: ViewCamera) -> Mapping[str, Tensor]:
        """What a camera sees, of the best render that is there, or of a coarse one. Called with the train lock held."""
        return self.views.raw(self.views.best(camera) or self.views.affordable(camera))

    def depth(self, camera: ViewCamera) -> float:
        """How far away the middle of a view is, about. Called with the train lock held."""
        return float(self.near(camera)["depth"].float().median())

    def is_now(self, camera: ViewCamera) -> bool:
        """Whether a camera is of the moment that pages show, or of none."""
        if camera.time is None or not isinstance(self.model, MovingSceneModel):
            return True
        return round(self.model.step_of(camera.time)) == round(self.model.step_of(self.link.time))

    def prepared(self, cameras: Sequence[ViewCamera]) -> bool:
        """Whether all of these views are rendered."""
        return all(self.views.has(camera) for camera in cameras)


def object_pictures(
    raw: Mapping[str, Tensor], found: Segmentation | None, chosen: int | None
) -> dict[str, Callable[[], Tensor]]:
    """Makers of the outputs of a segmentation: always the same names, as the viewer's menu needs it."""
    index = None
    if found is not None:
        index = next((i for i, entry in enumerate(found.objects) if entry.id == chosen), None)
    if found is None or index is None:
        nothing = partial(torch.zeros_like, raw["rgb"][..., :1], dtype=torch.float32)
        of_chosen: dict[str, Callable[[], Tensor]] = {"similarity": nothing, "segmentation": nothing}
    else:
        score, mask = found.scores[index], found.masks[index]
        of_chosen = {"similarity": lambda: score[..., None], "segmentation": lambda: mask.float()[..., None]}
    overlay = partial(_colors, raw) if found is None else lambda: found.overlay
    return of_chosen | {"segmentation_overlay": overlay}


def _colors(raw: Mapping[str, Tensor]) -> Tensor:
    return raw["rgb"].float().clamp(0, 1)


def _sized(name: str, make: Callable[[], Tensor], camera: ViewCamera) -> Tensor:
    return resized(make(), camera.height, camera.width, smooth=name not in ROUGH)
