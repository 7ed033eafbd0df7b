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
from semfield_ns.segmentation.growing import edge_weights, grow
from semfield_ns.segmentation.views import FeatureView

SEED_CONFIDENCE = 1000.0
EVIDENCE_CONFIDENCE = 4.0
DEPTH_TOLERANCE = 0.04
"""relative difference of depths at which a surface point is half as surely what another view shows"""
GROWTH_SCALE = 4.0
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
    weights = edge_weights(view.region_features, regions.edges, regions.border)
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

    A sample of a superpixel counts as far as its depth in the other view is the one that was rendered there, and its
    feature the one seen there.
    """
    objects = len(other.scores)
    samples = view.regions.samples
    if view.points is None or other.view.points is None:
        nothing = view.rgb.new_zeros(objects, len(samples))
        return nothing, nothing
    camera = other.view.camera
    points = view.points.flatten(0, 1)[samples.flatten()]
    if view.moving is not None and view.camera.time != camera.time:
        # Only what moves is traced: the rest of the velocity field is as good as its regularisation.
        moving = view.moving.flatten()[samples.flatten()]
        points = points.index_put((moving,), trace(points[moving], view.camera.time, camera.time))
    pixels, depth, visible = camera.project(points)
    column = pixels[:, 0].long().clamp(0, camera.width - 1)
    row = pixels[:, 1].long().clamp(0, camera.height - 1)
    apart = (depth - other.view.depth[row, column]) / (DEPTH_TOLERANCE * depth.clamp(min=1e-6))
    unlike = (other.view.features[row, column] - view.features.flatten(0, 1)[samples.flatten()]).square().sum(dim=1)
    weight = visible * torch.exp2(-apart.square()) * torch.exp(-unlike)
    weight = weight.view(samples.shape)
    found = other.scores[:, row, column].view(objects, *samples.shape)
    total = weight.sum(dim=1)
    score = (weight * found).sum(dim=2) / total.clamp(min=1e-6)
    return score, (total / samples.shape[1]).expand_as(score)


def choose(scores: Float[Tensor, "O H W"], thresholds: Sequence[float]) -> tuple[Tensor, Bool[Tensor, "O H W"]]:
    """Each pixel to the object that is highest above its threshold, as [H, W] ids from 1, 0 for none; and the masks."""
    margin = scores - scores.new_tensor(thresholds)[:, None, None]
    best, chosen = margin.max(dim=0)
    ids = torch.where(best > 0, chosen + 1, 0)
    numbers = torch.arange(1, len(scores) + 1, device=ids.device)[:, None, None]
    return ids, ids[None] == numbers
