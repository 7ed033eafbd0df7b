"""The losses, each a pure function of what was rendered and what was given. No loss changes its inputs.

Masks select rays; a loss over no ray is zero (and keeps its graph), so that a frame without dynamic pixels is no
special case. Most losses are means over rays that are not taken here but all at once (`weighted`): one by one they and
their gradients would be hundreds of small kernels.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from semfield_ns.rendering.constants import constant
from semfield_ns.scenes.labels import IGNORE


@dataclass
class LossWeights:
    """Coefficients of the losses. Defaults are the paper's; 0 switches a loss off."""

    rgb: float = 3.0
    """Squared error of the blended colour; of the static branch alone in stage 1."""
    rgb_static: float = 0.0
    """Squared error of the static branch alone, on static rays of stage 2; of use where it is not frozen."""
    rgb_dynamic: float = 1.0
    """Squared error of the dynamic branch alone, on dynamic rays."""
    rgb_warp: float = 1.0
    """The same, rendered from where the samples are in the next and the previous frame."""
    flow: float = 0.02
    """Induced optical flow against the given flow, mean absolute error in pixels, each direction."""
    flow_slow: float = 0.01
    """Length of the scene flow: what need not move stands still."""
    flow_temporal: float = 0.1
    """Forward plus backward scene flow (acceleration), world units."""
    flow_spatial: float = 0.1
    """Difference of the scene flow of neighbouring samples of a ray."""
    flow_second_order: float = 0.1
    """Acceleration at the next and the previous frame."""
    flow_cycle: float = 1.0
    """Tracing there and back returns to the point."""
    mask: float = 0.1
    """Blending: zero on static rays, its rendered sum equals the motion mask."""
    entropy: float = 0.001
    """Entropy of the dynamic weights along a ray and of the blending: one surface, one branch."""
    depth_blending: float = 1.0
    """Blending is zero further than `depth_thickness` (relative) from the given depth, on dynamic rays."""
    static_flow: float = 0.5
    """Scene flow is zero on static rays."""
    depth: float = 0.04
    """Given depth (`surface_depth`) or disparity (median and MAD normalised), on static rays."""
    depth_dynamic: float = 0.04
    """The same on dynamic rays, of the blended render and of the dynamic branch alone: nothing else shows how far
    away a moving thing is that was seen from one place at a time."""
    depth_order: float = 0.1
    """On static rays the dynamic branch is not in front of the static one."""
    semantics: float = 0.16
    """Cross-entropy of the blended logits."""
    semantics_dynamic: float = 0.08
    """Cross-entropy of the dynamic branch alone, on dynamic rays."""
    semantics_static: float = 0.08
    """Cross-entropy of the static branch alone, on static rays."""
    semantics_warp: float = 0.1
    """Cross-entropy, against the label now, of the logits at the next and previous frame, where flow is valid."""
    semantics_propagated: float = 0.16
    """Cross-entropy against labels carried along the given optical flow to unlabelled frames, by confidence."""
    semantics_evidence: float = 20.0
    """The same where the heads correct `evidence`: divergence of their logits from it. High, since labels of a few
    frames do not show what is wrong with it in others."""
    plane_variation: float = 0.0
    """Squared differences of neighbouring cells of feature planes."""
    interlevel: float = 1.0
    """Nerfstudio's proposal loss."""
    distortion: float = 0.002
    """Nerfstudio's distortion loss: compact weights along a ray."""


@dataclass
class RayMean:
    """A weighted mean over rays that is yet to be taken; 0 over nothing."""

    values: Float[Tensor, "rays *shape"]
    """What it is a mean of; all values of a ray count alike."""
    weight: Shaped[Tensor, "rays *#one"]
    """Of each ray: a mask, or floats."""
    factor: float = 1.0
    """of the mean"""

    def mean(self) -> Float[Tensor, ""]:
        """It alone."""
        return means([self])[0]


Loss = Sequence[RayMean | Tensor]
"""what is added up"""


def means(parts: Sequence[RayMean]) -> Float[Tensor, "parts"]:
    """Means over the same rays, times their factors."""
    rows = [part.values.flatten(start_dim=1).sum(dim=1) if part.values.dim() > 1 else part.values for part in parts]
    values = torch.stack(rows)
    weight = torch.cat([part.weight.reshape(-1) for part in parts]).view_as(values).to(values.dtype)
    factors = tuple(part.factor * len(part.values) / part.values.numel() for part in parts)
    return (values * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6) * constant(factors, values)


def weighted(losses: Mapping[str, Loss], weights: Mapping[str, float]) -> dict[str, Float[Tensor, ""]]:
    """Every loss times its weight; those of weight 0 are left out."""
    used = [name for name in losses if weights[name] != 0]
    of_rays: defaultdict[int, list[RayMean]] = defaultdict(list)
    scalars: list[Tensor] = []
    places: defaultdict[int, list[int]] = defaultdict(list)  # in `used`; of scalars, as if they were of no ray
    for place, name in enumerate(used):
        for part in losses[name]:
            rays = len(part.values) if isinstance(part, RayMean) else 0
            places[rays].append(place)
            scalars.append(part) if isinstance(part, Tensor) else of_rays[rays].append(part)
    values = torch.cat([torch.stack(scalars) if rays == 0 else means(of_rays[rays]) for rays in places])
    where = [place for group in places.values() for place in group]
    scaled = values * constant(tuple(weights[used[place]] for place in where), values)
    total = scaled.new_zeros(len(used)).index_add(0, constant(tuple(where), values, torch.long), scaled)
    return dict(zip(used, total.unbind(), strict=True))


def color(rendered: Float[Tensor, "rays 3"], truth: Float[Tensor, "rays 3"], mask: Bool[Tensor, "rays 1"]) -> RayMean:
    """Mean squared error on masked rays."""
    return RayMean((rendered - truth).square(), mask)


def induced_flow(
    projected: Float[Tensor, "ways rays 2"],
    target: Float[Tensor, "ways rays 2"],
    mask: Bool[Tensor, "ways rays"],
    limit: float,
) -> list[RayMean]:
    """Mean absolute error in pixels between where the surface goes and where the given flow ends, capped at `limit`.

    Of each way.
    """
    error = (projected - target).abs().clamp(max=limit).mean(dim=-1)
    return [RayMean(*part) for part in zip(error.unbind(), mask.unbind(), strict=True)]


def surface_depth(
    weights: Float[Tensor, "rays samples renders"],
    distance: Float[Tensor, "rays samples 1"],
    depth: Float[Tensor, "rays 1"],
) -> Float[Tensor, "rays renders"]:
    """Rendered mean of the relative error of inverse depth, `|depth / distance - 1|` (capped at 1) of each sample.

    Zero if all weight lies at the given depth. The error of the mean depth would also be zero for weight spread evenly
    in front of and behind the surface.

    Args:
        weights: of the samples, of each render; what they lack to 1 counts as an error of 1.
        distance: of the samples along the ray, world units.
        depth: given distance in world units.
    """
    closeness = 1 - (depth[:, None] / distance.clamp(min=1e-6) - 1).abs().clamp(max=1.0)
    return 1 - (weights * closeness).sum(dim=-2)


def normalised_disparity(
    disparity: Float[Tensor, "rays 1"],
    given: Float[Tensor, "rays 1"],
    frame: Int[Tensor, "rays"],
    mask: Bool[Tensor, "rays 1"],
    min_rays: int = 12,
) -> Float[Tensor, ""]:
    """Squared error after each side was normalised by median and mean absolute deviation, frame by frame.

    A monocular disparity is known up to a scale and shift of its frame. The statistics of fewer than `min_rays` masked
    rays would be noise: frames that have fewer in the batch are joined with the next such frames, whose scale is close.
    The loss is zero if all of them together have fewer.
    """
    chosen = mask[:, 0]
    groups, few = [], torch.zeros_like(chosen)
    for index in torch.unique(frame[chosen]):
        rays = chosen & (frame == index)
        if int(rays.sum()) < min_rays:
            rays = few = few | rays
        if int(rays.sum()) >= min_rays:
            groups.append(rays)
            few = few & ~rays
    errors = [(_robust(disparity[rays]) - _robust(given[rays])).square().clamp(max=4.0).mean() for rays in groups]
    return torch.stack(errors).mean() if errors else disparity.sum() * 0.0


def _robust(values: Float[Tensor, "rays 1"]) -> Float[Tensor, "rays 1"]:
    centred = values - values.median()
    return centred / centred.abs().mean().clamp(min=1e-6)


def blending_mask(
    blending: Float[Tensor, "rays samples 1"],
    rendered: Float[Tensor, "rays 1"],
    dynamic: Bool[Tensor, "rays 1"],
    static: Bool[Tensor, "rays 1"],
) -> list[RayMean]:
    """Blending to 0 on static rays, and the rendered dynamic weight to the motion mask."""
    return [RayMean(blending.square(), static), RayMean((rendered - dynamic.float()).square(), dynamic | static)]


def entropy(
    dynamic_weights: Float[Tensor, "rays samples 1"], blending: Float[Tensor, "rays samples 1"]
) -> list[Float[Tensor, ""]]:
    """Entropy of the normalised dynamic weights of a ray, and that of the blending of a sample."""
    p = dynamic_weights / dynamic_weights.sum(dim=-2, keepdim=True).clamp(min=1e-6)
    # A little more than nothing, where the gradient is bounded.
    along = torch.special.entr(p + 1e-8).sum(dim=-2).mean()
    return [along, 2 * torch.special.entr(torch.cat([blending, 1 - blending]) + 1e-6).mean()]


def depth_blending(
    blending: Float[Tensor, "rays samples 1"],
    distance: Float[Tensor, "rays samples 1"],
    depth: Float[Tensor, "rays 1"],
    mask: Bool[Tensor, "rays 1"],
    thickness: float,
) -> Float[Tensor, ""]:
    """Squared blending of samples further than `thickness` (relative to the depth) from the given depth."""
    away = (distance / depth[:, None].clamp(min=1e-6) - 1).abs() > thickness
    counted = (mask[:, None] & away).float()
    return (blending.square() * counted).sum() / counted.sum().clamp(min=1e-6)


def depth_order(
    dynamic: Float[Tensor, "rays 1"], static: Float[Tensor, "rays 1"], mask: Bool[Tensor, "rays 1"]
) -> RayMean:
    """On static rays the inverse depth of the dynamic branch does not exceed that of the (fixed) static one."""
    return RayMean(torch.relu(dynamic - static.detach()).square(), mask)


def along_ray(
    flow: Float[Tensor, "*ways rays samples 3"], distance: Float[Tensor, "rays samples 1"]
) -> Float[Tensor, ""]:
    """Difference of the flow of neighbouring samples, less the further (relatively) they are apart."""
    gap = (distance[:, 1:] / distance[:, :-1].clamp(min=1e-6) - 1).abs().detach()
    return (flow.diff(dim=-2).abs() * torch.exp(-2 * gap)).mean()


def cross_entropies(
    logits: Sequence[Float[Tensor, "rays classes"]],
    labels: Int[Tensor, "rays"],
    weights: Sequence[Shaped[Tensor, "rays"]],
) -> list[RayMean]:
    """Weighted cross-entropies of several renders over the rays that have a label; those marked `IGNORE` do not count.

    Args:
        logits: of each render.
        labels: of the rays.
        weights: of the rays, for each render.
    """
    every = torch.stack(list(logits))
    targets = labels.expand(len(every), -1)
    values = F.cross_entropy(every.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    known = (labels != IGNORE) * torch.stack(list(weights))
    return [RayMean(*part) for part in zip(values.view_as(targets).unbind(), known.unbind(), strict=True)]


def divergence(
    logits: Float[Tensor, "rays classes"], target: Float[Tensor, "rays classes"], weight: Shaped[Tensor, "rays"]
) -> RayMean:
    """Kullback-Leibler divergence of the logits' distribution from a target distribution, weighted over rays."""
    return RayMean(F.kl_div(logits.log_softmax(dim=-1), target, reduction="none").sum(dim=-1), weight)
