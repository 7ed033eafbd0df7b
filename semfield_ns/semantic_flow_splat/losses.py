"""The losses, each a pure function of what was rendered and what was given; a loss over nothing is zero."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.scenes.labels import IGNORE

ROBUSTNESS = 0.7
"""q of the generalised cross-entropy: 0 is cross-entropy, 1 the mean absolute error"""


def over(values: Float[Tensor, "*batch"], where: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Mean of the values where something is given; 0 (with its graph) where that is nowhere."""
    return (values * where).sum() / where.sum().clamp(min=1)


def at_size(image: Float[Tensor, "H W 3"], size: tuple[int, int] | None) -> Float[Tensor, "h w 3"]:
    """The picture at a smaller size (height, width), each pixel the mean of what it covers; None: as it is."""
    if size is None:
        return image
    rows, columns = (_covered(*sides, image.dtype, image.device) for sides in zip(image.shape[:2], size, strict=True))
    return torch.einsum("hH,HWc,wW->hwc", rows, image, columns)


@lru_cache(maxsize=64)
def _covered(count: int, fewer: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "fewer count"]:
    """Shares of a row of pixels in each of fewer that cover it. Torch's "area" takes whole pixels: edges shift."""
    with torch.inference_mode(False):  # so that gradients may pass it later
        ends = torch.arange(fewer + 1, dtype=dtype, device=device)[:, None] * (count / fewer)
        before = (ends - torch.arange(count, dtype=dtype, device=device)).clamp(0, 1)
        return (before[1:] - before[:-1]) * (fewer / count)


def relative_depth_loss(depth: Float[Tensor, "H W"], given: Float[Tensor, "H W"]) -> Float[Tensor, ""]:
    """Relative error of depth along the optical axis, where it is given (above 0)."""
    return over((depth - given).abs() / given.clamp(min=1e-6), given > 0)


def mask_loss(moving: Float[Tensor, "H W"], mask: Float[Tensor, "H W"]) -> Float[Tensor, ""]:
    """Rendered share of moving Gaussians against a mask: 1 moving, 0 still, -1 not known."""
    return over((moving - mask).abs(), mask >= 0)


def flow_loss(flow: Float[Tensor, "H W 2"], given: Float[Tensor, "H W 3"]) -> Float[Tensor, ""]:
    """Mean absolute error of flow, in parts of the picture's width, where the given one is valid."""
    return over((flow - given[..., :2]).abs().sum(dim=-1) / flow.shape[1], given[..., 2] > 0.5)


def acceleration_loss(tracks: Float[Tensor, "M T 3"]) -> Float[Tensor, ""]:
    """Mean squared second derivative of ways, with the time from the first step to the last as the unit."""
    if tracks.shape[1] < 3 or len(tracks) == 0:
        return tracks.sum() * 0
    step = 1 / (tracks.shape[1] - 1)
    return (tracks[:, 2:] - 2 * tracks[:, 1:-1] + tracks[:, :-2]).square().sum(dim=-1).mean() / step**4


def rigidity_loss(
    tracks: Float[Tensor, "M T 3"], neighbours: Int[Tensor, "M K"], distances: Float[Tensor, "M K"]
) -> Float[Tensor, ""]:
    """Mean squared change, from step to step, of the distances between neighbours.

    Args:
        tracks: positions, world.
        neighbours: numbers of other tracks.
        distances: to them at some time; what is further than twice the median is left aside.
    """
    if tracks.shape[1] < 2 or neighbours.numel() == 0:
        return tracks.sum() * 0
    apart = (tracks[neighbours] - tracks[:, None]).square().sum(dim=-1).clamp(min=1e-12).sqrt()
    change = (apart[..., 1:] - apart[..., :-1]).square().mean(dim=-1)
    return over(change, distances < 2 * distances.median())


def change_loss(values: Float[Tensor, "M T"]) -> Float[Tensor, ""]:
    """Squared first difference over time."""
    if values.shape[1] < 2 or len(values) == 0:
        return values.sum() * 0
    return (values[:, 1:] - values[:, :-1]).square().mean()


def label_loss(logits: Float[Tensor, "H W C"], labels: Int[Tensor, "H W"]) -> Float[Tensor, ""]:
    """Cross-entropy where there is a label (not `IGNORE`)."""
    values = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="none")
    return over(values, labels.flatten() != IGNORE)


def carried_label_loss(logits: Float[Tensor, "H W C"], carried: Float[Tensor, "H W 2"]) -> Float[Tensor, ""]:
    """Generalised cross-entropy of class ids (first channel), times how far they are trusted (second channel).

    (1 - p^q) / q of the probability p of the class (Zhang and Sabuncu 2018): what a render firmly contradicts hardly
    pulls at it, since carried labels are wrong now and then. A mean over all pixels, so that what is trusted little
    counts little.
    """
    classes, trust = carried[..., 0].long().flatten(), carried[..., 1].flatten()
    probability = logits.flatten(0, 1).softmax(dim=-1).gather(-1, classes[:, None])[:, 0]
    return ((1 - probability.clamp(min=1e-6) ** ROBUSTNESS) / ROBUSTNESS * trust).mean()
