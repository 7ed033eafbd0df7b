"""Prompts and a view with features -> scores of objects: the heart of segmentation, in three steps.

1. Every superpixel is compared with the features under the strokes (`matching`), and with what the pictures of the
   scene say together of its ray (`silhouettes`).
2. It is looked up in the views that people drew in (`Evidence`), among the superpixels that lie near it in space and
   look like it: a stroke in one view serves all others. That counts as far as the surface can be trusted.
3. All are spread over the view's graph of superpixels (`growing`), strokes in this very view held fast, and drawn to
   the edges of the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.rendering.edges import GuidedFilter
from semfield_ns.segmentation.appearance import Appearance
from semfield_ns.segmentation.clustering import squared_distances
from semfield_ns.segmentation.growing import edge_weights, grow
from semfield_ns.segmentation.matching import TINY
from semfield_ns.segmentation.silhouettes import Silhouettes
from semfield_ns.segmentation.views import FeatureView

SEED_CONFIDENCE = 1000.0
GROWTH_SCALE = 12.0
"""strength of growing at the slider's right end"""
DOUBT = 0.05
"""score of looks, at least: they alone do not rule out what the pictures see"""
OUTLINES_CONFIDENCE = 10.0
"""of outlines where the surface cannot be trusted at all; see `Kernel.confidence`"""
EDGE_RADIUS = 0.015
"""of the longer side of a picture: neighbourhoods in which scores follow colours"""
SUPPORTED = 0.3
"""confidence, as a share of the kernel's, from which a place counts as seen in another view"""


@dataclass(frozen=True)
class Kernel:
    """How superpixels of two views are compared: exp(-|dx|^2 / 2 space^2 - |df|^2 / likeness)."""

    space: float
    """in distances between neighbouring superpixels"""
    likeness: float
    """in mean |df|^2 between superpixels of both views"""
    enough: float
    """sum of weights that is as sure as can be"""
    confidence: float
    """of a superpixel that is as sure as can be; that of the prototypes is 1"""


SAME_KIND = Kernel(space=5.0, likeness=0.05, enough=0.001, confidence=1.0)
"""Somewhere around, and of the same looks: knows what is around the object as well, which few people stroke."""
SAME_PLACE = Kernel(space=1.5, likeness=0.5, enough=2.0, confidence=2.0)
"""The same piece of surface: tells things apart that look alike."""

Trace = Callable[[Float[Tensor, "N 3"], float | None, float | None], Float[Tensor, "N 3"]]


@dataclass(frozen=True, eq=False)
class Seeds:
    """Pixels of one view that people marked, for each object; a pixel may be in neither."""

    positive: Bool[Tensor, "O H W"]
    negative: Bool[Tensor, "O H W"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """A view that people drew in, with the scores that it got."""

    view: FeatureView
    scores: Float[Tensor, "O H W"]

    @cached_property
    def region_scores(self) -> Float[Tensor, "R O"]:
        """Mean scores of each superpixel."""
        return self.view.regions.mean(self.scores.permute(1, 2, 0))


def segment(
    view: FeatureView,
    objects: Sequence[Appearance],
    seeds: Seeds | None,
    evidence: Sequence[Evidence],
    trace: Trace,
    growth: Sequence[float],
    outlines: Silhouettes | None = None,
) -> tuple[Float[Tensor, "O H W"], Bool[Tensor, "O H W"]]:
    """Scores of objects in a view.

    Args:
        view: what is segmented.
        objects: O of them.
        seeds: what was drawn in this very view.
        evidence: other views that were drawn in.
        trace: carries surface points of this view's time to that of the evidence.
        growth: for each object, from 0 (superpixels by themselves) to 1.
        outlines: what the pictures of the scene say of this view; None where there is nothing to ask, or no need.

    Returns:
        Scores in [0, 1], 0.5 where something is as much object as background; and where they are supported by
        strokes or by another view, rather than by likeness alone.
    """
    height, width = view.rgb.shape[:2]
    regions = view.regions
    score = torch.stack([o.similarity(view.region_features) for o in objects])
    confidence = torch.ones_like(score)
    supported = torch.zeros_like(score, dtype=torch.bool)
    trust = 1.0 if outlines is None else outlines.trust
    if outlines is not None:
        # What a place looks like and whether the pictures see an object there are two opinions of equal weight, but the
        # looks of a rendered place are no truer than its surface.
        found, known = outlines.scores(objects)
        own = 0.5 if view.photo else trust / 2
        score = torch.where(known > 0, score.clamp(min=DOUBT) ** own * found ** (1 - own), score)
        confidence = confidence + OUTLINES_CONFIDENCE * (1 - trust) * known
        supported |= (known > 0) & (found > 0.5)
    for other in evidence:
        for kernel in (SAME_KIND, SAME_PLACE):
            found, sure = look_up(view, other, trace, kernel)
            score, confidence = joined(score, confidence, found, kernel.confidence * trust * sure)
        # Of the last kernel, which knows places.
        supported |= (trust * sure > SUPPORTED) & (found > 0.5)
    if seeds is not None:
        positive = torch.stack([regions.count(mask) for mask in seeds.positive])
        negative = torch.stack([regions.count(mask) for mask in seeds.negative])
        marked = (positive + negative) > 0
        score = torch.where(marked, positive / (positive + negative).clamp(min=1), score)
        confidence = torch.where(marked, SEED_CONFIDENCE, confidence)
        supported |= positive > negative
    weights = edge_weights(view, trust)
    grown = torch.cat(
        [
            grow(score[i : i + 1], confidence[i : i + 1], regions.edges, weights, GROWTH_SCALE * growth[i])
            for i in range(len(objects))
        ]
    )
    drawn = GuidedFilter((view.rgb * 255).byte().cpu().numpy(), max(1, round(EDGE_RADIUS * max(height, width))))
    pixels = [torch.from_numpy(drawn(each[regions.labels].cpu().numpy())).to(view.rgb) for each in grown]
    return torch.stack(pixels).clamp(0, 1), supported[:, regions.labels]


def joined(score: Tensor, confidence: Tensor, found: Tensor, sure: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of what was known and what was found, by how sure they are, and how sure it is."""
    total = confidence + sure
    return (confidence * score + sure * found) / total, total


def look_up(
    view: FeatureView, other: Evidence, trace: Trace, kernel: Kernel
) -> tuple[Float[Tensor, "O R"], Float[Tensor, "R"]]:
    """Scores that another view gives to the superpixels of this one, and how sure that is, in [0, 1].

    Each superpixel asks those of the other view that lie near it in space and look like it.
    """
    there = other.view
    if view.points is None or there.points is None:
        return view.rgb.new_zeros(len(other.scores), len(view.regions.size)), view.rgb.new_zeros(len(view.regions.size))
    points = view.region_points
    if view.moving is not None and view.camera.time != there.camera.time:
        # Only what moves is traced: the rest of the velocity field is as good as its regularisation.
        moving = view.regions.count(view.moving) > 0.5 * view.regions.size
        points = points.index_put((moving,), trace(points[moving], view.camera.time, there.camera.time))
    apart = squared_distances(points, there.region_points) / (kernel.space * there.region_spacing).square()
    unlike = squared_distances(view.region_features, there.region_features)
    # Where nothing is very similar, as in features of many dimensions, the most similar is similar enough.
    scale = torch.maximum(kernel.likeness * unlike.mean(), unlike.amin(dim=1).median()).clamp(min=TINY)
    weight = torch.exp(-apart / 2 - unlike / scale)
    total = weight.sum(dim=1)
    found = (weight @ other.region_scores).T / total.clamp(min=1e-12)
    return found, (total / kernel.enough).clamp(max=1)


def choose(scores: Float[Tensor, "O H W"], thresholds: Sequence[float]) -> tuple[Tensor, Bool[Tensor, "O H W"]]:
    """Each pixel to the object that is highest above its threshold, as [H, W] ids from 1, 0 for none; and the masks."""
    margin = scores - scores.new_tensor(thresholds)[:, None, None]
    best, chosen = margin.max(dim=0)
    ids = torch.where(best > 0, chosen + 1, 0)
    numbers = torch.arange(1, len(scores) + 1, device=ids.device)[:, None, None]
    return ids, ids[None] == numbers
