"""A session and a model -> masks of any view. The viewer, `ns-render` and `semfield segment` all come through here.

    segmenter = Segmenter(session, ModelViews(model))
    found = segmenter.segment(camera)     # renders the view unless it is kept
    found.ids, found.overlay

A view is rendered once and kept until its camera, its time or the weights change, so a further stroke costs only
matching. Results depend on the log, the weights and the camera alone: every stroke's own view is rendered from the
camera in the log, at the resolution in which it was drawn.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import RLock
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.scene_model import SceneModel
from semfield_ns.segmentation.appearance import Appearance, appearances
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.clouds import Cloud, Opinion, Selection, marked, opinion, select
from semfield_ns.segmentation.clustering import kmeans
from semfield_ns.segmentation.components import supported_parts, without_holes
from semfield_ns.segmentation.matching import samples
from semfield_ns.segmentation.parts import part_ids, part_prototypes
from semfield_ns.segmentation.prompts import Box, TextQuery
from semfield_ns.segmentation.segment import Evidence, Seeds, choose, segment
from semfield_ns.segmentation.silhouettes import Silhouettes, silhouettes
from semfield_ns.segmentation.views import FeatureView, Pictures, ViewProvider
from semfield_ns.sessions.actions import ObjectState, SessionState
from semfield_ns.sessions.session import Session, read_session
from semfield_ns.sessions.views import ModelViews, Render, Renders

BUDGET = 512 << 20
COARSE_SIDE = 64
"""pixels of the longer side of a first, coarse mask"""
MIN_PART_SHARE = 0.0005
"""of a picture: smaller parts of masks are noise"""
MAX_HOLE_SHARE = 0.002
"""of a picture: smaller holes in masks are closed"""
OVERLAY_ALPHA = 0.55
PART_SHADE, PART_SHADES = 0.22, 4
"""how much darker each further part is, and how many shades there are"""
LEAST_DOUBT = 0.01
"""of a surface, for strokes on the photos that Gaussians are of"""
PART_SAMPLES = 4096
"""features of selected Gaussians that parts are found in"""
REFRESH_SECONDS = 30.0
"""how old the strokes' features may be while weights change under them, in training"""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The objects of a session in one view."""

    camera: ViewCamera
    rgb: Float[Tensor, "H W 3"]
    objects: tuple[ObjectState, ...]
    scores: Float[Tensor, "O H W"]
    """in [0, 1]"""
    masks: Bool[Tensor, "O H W"]
    """of the objects in their order; no pixel is in two"""
    parts: Int[Tensor, "H W"]
    """of the object that a pixel is of, from 1, where it is divided; else 0. The same number in every view"""

    def enlarged(self, size: tuple[int, int]) -> "Segmentation":
        """The same in more pixels (height, width): outlines run smoothly between those that there were."""

        def larger(images: Float[Tensor, "C h w"]) -> Float[Tensor, "C H W"]:
            return F.interpolate(images[None], size=size, mode="bilinear", align_corners=False)[0]

        shares = larger(self.masks.to(self.rgb)) if len(self.masks) else self.rgb.new_zeros(0, *size)
        masks = shares > 0.5  # of two objects that share a pixel, one has more than half of it, or none
        parts = F.interpolate(self.parts[None, None].to(self.rgb), size=size, mode="nearest")[0, 0]
        return Segmentation(
            self.camera.at_size(*size),
            larger(self.rgb.permute(2, 0, 1)).permute(1, 2, 0),
            self.objects,
            larger(self.scores) if len(self.scores) else shares,
            masks,
            torch.where(masks.any(dim=0), parts.to(self.parts.dtype), 0),
        )

    @cached_property
    def ids(self) -> Int[Tensor, "H W"]:
        """0 for no object, n for the n-th of `objects`."""
        numbers = torch.arange(1, len(self.masks) + 1, device=self.masks.device)
        return (self.masks * numbers[:, None, None]).sum(dim=0)

    @cached_property
    def overlay(self) -> Float[Tensor, "H W 3"]:
        """The picture with the objects in their colours, and bright outlines."""
        table = torch.tensor([(0, 0, 0), *(entry.color for entry in self.objects)]).to(self.rgb) / 255
        inside = self.ids > 0
        # Parts are shades of their object's colour; the first, and an object without parts, has the colour itself.
        shade = 1 - PART_SHADE * (self.parts[inside] - 1).clamp(min=0).remainder(PART_SHADES)
        color = table[self.ids[inside]] * shade[:, None]
        mixed = self.rgb[inside] * (1 - OVERLAY_ALPHA) + color * OVERLAY_ALPHA
        overlay = self.rgb.clone()
        overlay[inside] = torch.where(outline(self.ids)[inside][:, None], 0.25 + 0.75 * color, mixed)
        return overlay


class Segmenter:
    """Masks of a session, by a model. Threads may share it; renders are the caller's to guard against training.

    Args:
        session: what is drawn into it counts from then on.
        provider: renders views.
        budget: bytes of rendered views that are kept, the last ones used. One of 504 by 378 pixels with 64 features
            takes 54 MB.
        renders: where they are kept, if the provider keeps its own there too.
    """

    def __init__(
        self, session: Session, provider: ViewProvider, budget: int = BUDGET, renders: Renders | None = None
    ) -> None:
        self.session, self.provider = session, provider
        self._renders = renders or Renders(budget)
        self._lock = RLock()
        self._photos: WeakKeyDictionary[FeatureView, FeatureView] = WeakKeyDictionary()
        self._outlines: WeakKeyDictionary[FeatureView, Silhouettes] = WeakKeyDictionary()
        self._compiled: tuple[SessionState, Hashable, Compiled, float] | None = None

    # ------------------------------------------------------------------------------------------------- views

    def view(self, camera: ViewCamera) -> FeatureView:
        """What a camera sees, with superpixels; rendered unless it is kept."""
        version = self.provider.version()
        kept = self._renders.find(camera, version)
        if kept.view is not None:
            return kept.view
        with torch.no_grad():
            view = self.provider.render_view(camera)
            if self.provider.cloud() is None:
                view.prepare()
        self._renders.keep(camera, version, Render(view=view))
        return view

    def raw_outputs(self, cameras: Cameras, render: Callable[[Cameras], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """What a model renders for a camera; kept while there are objects, so that a stroke does not render again."""
        if not self.session.state.objects:
            return render(cameras)
        camera, version = ViewCamera.of(cameras), self.provider.version()
        kept = self._renders.find(camera, version)
        if kept.raw:
            return kept.raw
        raw = render(cameras)
        if knows_features(raw):
            view = self.provider.view_of(raw, cameras)
            if self.provider.cloud() is None:
                view.prepare()
            self._renders.keep(camera, version, Render(raw, view))
        return raw

    def outlines(self, view: FeatureView) -> Silhouettes | None:
        """What the pictures of the scene say of a view; looked up once."""
        pictures = self.provider.pictures()
        if pictures is None or view.points is None:
            return None
        with self._lock:
            found = self._outlines.get(view)
        if found is None or found.pictures is not pictures:
            found = silhouettes(view, pictures)
            with self._lock:
                self._outlines[view] = found
        return found

    def forget(self) -> None:
        """Drops everything that was rendered."""
        self._renders.clear()
        with self._lock:
            self._compiled = None

    # ------------------------------------------------------------------------------------------------- masks

    def segment(self, camera: ViewCamera) -> Segmentation:
        """The session's objects in the view of a camera, at its resolution."""
        return self.segment_view(self.view(camera))

    def segment_coarse_first(self, camera: ViewCamera, longest_side: int = COARSE_SIDE) -> Iterator[Segmentation]:
        """A small mask soon, then the one of the camera's resolution."""
        factor = longest_side / max(camera.width, camera.height)
        if factor < 1:
            yield self.segment(camera.scaled(factor))
        yield self.segment(camera)

    @torch.no_grad()
    def segment_view(self, view: FeatureView, state: SessionState | None = None) -> Segmentation:
        """The session's objects in a view that is rendered already.

        Args:
            view: of this provider's weights.
            state: of the session, the current one if None.
        """
        state = self.session.state if state is None else state
        compiled = self.compile(state)
        objects = state.objects
        if compiled.selection is not None and objects:
            return self._shown(view, objects, compiled.selection)
        if not objects:
            nothing = view.rgb.new_zeros(0, *view.rgb.shape[:2])
            nowhere = torch.zeros(view.rgb.shape[:2], dtype=torch.long, device=view.rgb.device)
            return Segmentation(view.camera, view.rgb, (), nothing, nothing.bool(), nowhere)
        known = compiled.own.get(view.camera)
        if known is not None and len(compiled.evidence) == 1 and view is compiled.evidence[0].view:
            scores, supported = known
        else:
            others = [entry for entry in compiled.evidence if entry.view.camera != view.camera]
            scores, supported = segment(
                view,
                compiled.objects,
                seeds_of(view, objects),
                others,
                self.provider.trace,
                [entry.growth for entry in objects],
                self.outlines(view),
            )
        masks = self._masks(scores, supported, objects)
        parts = torch.zeros_like(masks[0], dtype=torch.long)
        for mask, centroids in zip(masks, self._parts(compiled, objects), strict=True):
            if centroids is not None:
                parts += part_ids(view, mask, centroids)
        return Segmentation(view.camera, view.rgb, objects, scores, masks, parts)

    def selection(self, state: SessionState | None = None) -> Selection | None:
        """The Gaussians of the session's objects; None of a model that has none to select among.

        Args:
            state: of the session, the current one if None.
        """
        return self.compile(self.session.state if state is None else state).selection

    def _shown(self, view: FeatureView, objects: Sequence[ObjectState], selection: Selection) -> Segmentation:
        """Selected Gaussians as a view sees them."""
        cloud, count = self.provider.cloud(), len(objects)
        assert cloud is not None, "there is a selection"
        numbers = torch.arange(1, count + 1, device=selection.ids.device)
        chosen = (selection.ids[:, None] == numbers).to(view.rgb)
        seen = cloud.show(view.camera, torch.cat([chosen, selection.scores], dim=1)).permute(2, 0, 1)
        masks = seen[:count] > 0.5  # of two objects that share a pixel, one has more than half of it, or none
        parts = torch.zeros_like(masks[0], dtype=torch.long)
        for number, entry in enumerate(objects):
            mine = cloud.features[selection.ids == number + 1]
            if entry.parts > 1 and len(mine):
                parts += part_ids(view, masks[number], kmeans(samples(mine, PART_SAMPLES), entry.parts))
        return Segmentation(view.camera, view.rgb, tuple(objects), seen[count:].clamp(0, 1), masks, parts)

    def _masks(self, scores: Tensor, supported: Tensor, objects: Sequence[ObjectState]) -> Tensor:
        _, masks = choose(scores, [entry.threshold for entry in objects])
        smallest, largest = (round(share * masks[0].numel()) for share in (MIN_PART_SHARE, MAX_HOLE_SHARE))
        taken = masks.any(dim=0)
        found = []
        for mask, where in zip(masks, supported, strict=True):
            kept = supported_parts(mask, where, smallest)
            found.append(kept | (without_holes(kept, largest) & ~taken))
        return torch.stack(found)

    def _parts(self, compiled: "Compiled", objects: Sequence[ObjectState]) -> list[Tensor | None]:
        """Prototypes of the parts of every object that is divided, from the views that were drawn in."""
        if all(entry.parts == 1 for entry in objects) or not compiled.evidence:
            return [None] * len(objects)
        views = [entry.view for entry in compiled.evidence]
        masks = [self._masks(*compiled.own[view.camera], objects) for view in views]
        return [
            part_prototypes(views, [mask[index] for mask in masks], entry.parts) if entry.parts > 1 else None
            for index, entry in enumerate(objects)
        ]

    def annotate(self, cameras: Cameras, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs "similarity" [H,W,1], "segmentation" [H,W,1] (0 or 1) and "segmentation_overlay" [H,W,3] of a render.

        Nothing where the session has no objects, or the model no features yet.
        """
        if not self.session.state.objects or not knows_features(raw):
            return {}
        kept = self._renders.find(ViewCamera.of(cameras), self.provider.version()).view
        view = self.provider.view_of(raw, cameras) if kept is None else kept
        found = replace(self.segment_view(view), rgb=raw["rgb"].float().clamp(0, 1))
        return {
            "similarity": found.scores.amax(dim=0)[..., None],
            "segmentation": (found.ids > 0).float()[..., None],
            "segmentation_overlay": found.overlay,
        }

    # ----------------------------------------------------------------------------------------------- prompts

    @torch.no_grad()
    def compile(self, state: SessionState) -> "Compiled":
        """What a state's prompts amount to under the current weights; kept until one of them changes."""
        version = self.provider.version()
        with self._lock:
            if self._compiled is not None:
                of_state, of_version, compiled, since = self._compiled
                # While a model is trained, every step changes the weights: strokes are not rendered anew each time.
                fresh = of_version == version or time.monotonic() - since < REFRESH_SECONDS
                if of_state is state and fresh:
                    return compiled
        compiled = self._compile(state)
        with self._lock:
            self._compiled = (state, version, compiled, time.monotonic())
        return compiled

    def _compile(self, state: SessionState) -> "Compiled":
        views: dict[ViewCamera, FeatureView] = {}
        for _, _, prompt in state.prompts:
            if not isinstance(prompt, TextQuery) and prompt.camera not in views:
                views[prompt.camera] = self.view(prompt.camera)
        prompts = [[prompt for _, prompt in entry.prompts] for entry in state.objects]
        growth = [entry.growth for entry in state.objects]
        cloud, pictures = self.provider.cloud(), self.provider.pictures()
        if cloud is not None and state.objects:
            text = self.provider.text_features
            looks = appearances(prompts, views, text, cloud.nodes.features)
            marks = marked(cloud, {camera: seeds_of(view, state.objects) for camera, view in views.items()}, len(looks))
            opinions = [] if pictures is None else self._opinions(state, views, cloud, pictures)
            limits = [entry.threshold for entry in state.objects]
            return Compiled(looks, [], {}, select(cloud, looks, *marks, growth, limits, opinions))
        scene = None if pictures is None else pictures.features.flatten(0, 2)
        looks = appearances(prompts, views, self.provider.text_features, scene, learned=pictures is not None)
        own, evidence = {}, []
        for camera, view in views.items():
            seeds, outlines = seeds_of(view, state.objects), self.outlines(view)
            found = segment(view, looks, seeds, (), self.provider.trace, growth, outlines)
            own[camera] = found
            evidence.append(Evidence(view, found[0]))
        return Compiled(looks, evidence, own)

    def _opinions(
        self, state: SessionState, views: Mapping[ViewCamera, FeatureView], cloud: Cloud, pictures: Pictures
    ) -> list[Opinion]:
        """What the views that were drawn in, as photos where they are, say of the photos' Gaussians."""
        photos = {camera: self._photo(view) for camera, view in views.items()}
        prompts = [[prompt for _, prompt in entry.prompts] for entry in state.objects]
        scene = pictures.features.flatten(0, 2)
        looks = appearances(prompts, photos, self.provider.text_features, scene, learned=True)
        found = []
        for camera, photo in photos.items():
            outlines = self.outlines(photo)
            if outlines is None:
                continue
            # The truer the surface, the more counts what joins a place with the strokes, and the less its looks.
            doubt = max(1 - outlines.trust, LEAST_DOUBT)
            further = [entry.growth / doubt for entry in state.objects]
            seeds = seeds_of(photo, state.objects)
            scores, _ = segment(photo, looks, seeds, (), self.provider.trace, further, outlines)
            found.append(opinion(cloud, camera, scores, outlines.trust))
        return found

    def _photo(self, view: FeatureView) -> FeatureView:
        """A view as the photo that its camera took; kept as long as the view is."""
        with self._lock:
            found = self._photos.get(view)
        if found is None:
            found = self.provider.photo_of(view)
            if found is not view:  # which would keep itself
                with self._lock:
                    self._photos[view] = found
        return found


@dataclass(frozen=True, eq=False)
class Compiled:
    """The prompts of a state under some weights."""

    objects: list[Appearance]
    evidence: list[Evidence]
    own: dict[ViewCamera, tuple[Tensor, Tensor]]
    """scores and support of the views that were drawn in, by themselves"""
    selection: Selection | None = None
    """of a model with Gaussians to select among, instead of the two above"""


def segment_model(model: SceneModel, session: Path | None) -> Segmenter:
    """Gives a model the outputs of a session: a saved one, or a new one that stays empty until somebody draws.

    Raises:
        SemfieldError: the file is no session.
    """
    segmenter = Segmenter(Session(() if session is None else read_session(session)), ModelViews(model))
    model.annotator = segmenter
    return segmenter


def knows_features(raw: Mapping[str, Tensor]) -> bool:
    """Whether a render has something to compare strokes by."""
    return "features" in raw or "logits" in raw


def seeds_of(view: FeatureView, objects: Sequence[ObjectState]) -> Seeds | None:
    """What was drawn in a view: strokes of one object are not the others."""
    height, width = view.rgb.shape[:2]
    positive = torch.zeros(len(objects), height, width, dtype=torch.bool)
    negative = torch.zeros_like(positive)
    for index, entry in enumerate(objects):
        for _, prompt in entry.prompts:
            if isinstance(prompt, TextQuery) or prompt.camera != view.camera:
                continue
            pixels = prompt.pixels(height, width)
            if isinstance(prompt, Box):
                negative[index] |= ~pixels if prompt.positive else pixels
            elif prompt.positive:
                positive[index] |= pixels
            else:
                negative[index] |= pixels
    if not bool((positive | negative).any()):
        return None
    for index in range(len(objects)):
        others = torch.arange(len(objects)) != index
        negative[index] |= positive[others].any(dim=0) & ~positive[index]
    return Seeds(positive.to(view.rgb.device), negative.to(view.rgb.device))


def outline(ids: Int[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """Pixels of objects that touch something else."""
    around = F.pad(ids[None, None].float(), (1, 1, 1, 1), mode="replicate")[0, 0]
    most, least = (_around(around, pick) for pick in (torch.maximum, torch.minimum))
    return (ids > 0) & (most != least)


def _around(values: Float[Tensor, "rows columns"], pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What is picked of every 3x3 neighbourhood; a few times as fast as pooling."""
    rows = pick(pick(values[:-2], values[1:-1]), values[2:])
    return pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
