"""Prompts and a view with features -> scores of objects: the heart of segmentation, in three steps.

1. Every superpixel is compared with the prototypes of the strokes (`matching`).
2. Where its surface was visible in a view that people drew in, it is looked up there (`Evidence`): a stroke in one view
   serves all others.
3. Both are spread over the view's graph of superpixels (`growing`), strokes in this very view held fast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.segmentation.appearance import Appearance
from semfield_ns.segmentation.clustering import squared_distances
from semfield_ns.segmentation.growing import edge_weights, grow
from semfield_ns.segmentation.views import FeatureView

SEED_CONFIDENCE = 1000.0
EVIDENCE_CONFIDENCE = 10.0
SPACING = 1.5
"""standard deviation in space over which views are compared, in distances between neighbouring superpixels"""
UNLIKE = 1.0
"""|df|^2 over which they are not"""
ENOUGH = 2.0
"""sum of weights that is as sure as can be"""
GROWTH_SCALE = 12.0
"""strength of growing at the slider's right end"""
DETAIL = 0.5
"""how much of the difference between a pixel's similarity and its superpixel's is kept"""

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


def segment(
    view: FeatureView,
    objects: Sequence[Appearance],
    seeds: Seeds | None,
    evidence: Sequence[Evidence],
    trace: Trace,
    growth: Sequence[float],
) -> tuple[Float[Tensor, "O H W"], Bool[Tensor, "O H W"]]:
    """Scores of objects in a view.

    Args:
        view: what is segmented.
        objects: O of them.
        seeds: what was drawn in this very view.
        evidence: other views that were drawn in.
        trace: carries surface points of this view's time to that of the evidence.
        growth: for each object, from 0 (superpixels by themselves) to 1.

    Returns:
        Scores in [0, 1], 0.5 where something is as much object as background; and where they are supported by
        strokes or by another view, rather than by likeness alone.
    """
    height, width = view.rgb.shape[:2]
    regions = view.regions
    flat = view.features.flatten(0, 1)
    alike = torch.stack([o.similarity(flat) for o in objects])
    score = torch.stack([o.similarity(view.region_features) for o in objects])
    confidence = torch.ones_like(score)
    supported = torch.zeros_like(score, dtype=torch.bool)
    likeness = score
    for other in evidence:
        found, sure = look_up(view, other, trace)
        total = confidence + EVIDENCE_CONFIDENCE * sure
        score = (confidence * score + EVIDENCE_CONFIDENCE * sure * found) / total
        confidence = total
        supported |= (sure > 0.3) & (found > 0.5)
    if seeds is not None:
        positive = torch.stack([regions.count(mask) for mask in seeds.positive])
        negative = torch.stack([regions.count(mask) for mask in seeds.negative])
        marked = (positive + negative) > 0
        score = torch.where(marked, positive / (positive + negative).clamp(min=1), score)
        confidence = torch.where(marked, SEED_CONFIDENCE, confidence)
        supported |= positive > negative
    weights = edge_weights(view)
    grown = torch.cat(
        [
            grow(score[i : i + 1], confidence[i : i + 1], regions.edges, weights, GROWTH_SCALE * growth[i])
            for i in range(len(objects))
        ]
    )
    labels = regions.labels.flatten()
    pixels = (grown[:, labels] + DETAIL * (alike - likeness[:, labels])).clamp(0, 1)
    return pixels.view(-1, height, width), supported[:, labels].view(-1, height, width)


def look_up(view: FeatureView, other: Evidence, trace: Trace) -> tuple[Float[Tensor, "O R"], Float[Tensor, "O R"]]:
    """Scores that another view gives to the superpixels of this one, and how sure that is, in [0, 1].

    Each superpixel asks those of the other view that lie near it in space and look like it: a bilateral kernel.
    """
    objects, count = len(other.scores), len(view.regions.size)
    if view.points is None or other.view.points is None:
        nothing = view.rgb.new_zeros(objects, count)
        return nothing, nothing
    camera = other.view.camera
    points = view.region_points
    if view.moving is not None and view.camera.time != camera.time:
        # Only what moves is traced: the rest of the velocity field is as good as its regularisation.
        moving = view.regions.count(view.moving) > 0.5 * view.regions.size
        points = points.index_put((moving,), trace(points[moving], view.camera.time, camera.time))
    there, spacing = other.view.region_points, other.view.region_spacing
    apart = torch.cdist(points, there) / (SPACING * spacing)
    unlike = squared_distances(view.region_features, other.view.region_features)
    weight = torch.exp(-0.5 * apart.square() - unlike / UNLIKE)
    total = weight.sum(dim=1)
    scores = other.view.regions.mean(other.scores.permute(1, 2, 0))
    found = (weight @ scores).T / total.clamp(min=1e-6)
    return found, (total / ENOUGH).clamp(max=1).expand_as(found)


def choose(scores: Float[Tensor, "O H W"], thresholds: Sequence[float]) -> tuple[Tensor, Bool[Tensor, "O H W"]]:
    """Each pixel to the object that is highest above its threshold, as [H, W] ids from 1, 0 for none; and the masks."""
    margin = scores - scores.new_tensor(thresholds)[:, None, None]
    best, chosen = margin.max(dim=0)
    ids = torch.where(best > 0, chosen + 1, 0)
    numbers = torch.arange(1, len(scores) + 1, device=ids.device)[:, None, None]
    return ids, ids[None] == numbers
