"""Where on a ray the network looks: uniform in inverse depth, or where a first look found something."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_FLOOR = 0.02
"""Share of the samples that goes everywhere: a first look may be wrong."""


def inverse_depths(near: Tensor, far: Tensor, count: int, jitter: bool = False) -> Float[Tensor, "R S"]:
    """Samples uniform in inverse depth, both ends included.

    Args:
        near: [R, 1], above 0.
        far: [R, 1].
        count: S.
        jitter: move each sample at random between the middles to its neighbours (stratified, for training).
    """
    steps = torch.linspace(0.0, 1.0, count, device=near.device)
    depths = 1 / (1 / near * (1 - steps) + 1 / far * steps)
    if jitter:
        middles = (depths[:, 1:] + depths[:, :-1]) / 2
        upper = torch.cat([middles, depths[:, -1:]], dim=-1)
        lower = torch.cat([depths[:, :1], middles], dim=-1)
        depths = lower + (upper - lower) * torch.rand_like(depths)
    return depths


def guided_depths(
    near: Tensor, far: Tensor, weights: Float[Tensor, "R S"], count: int, jitter: bool = False
) -> Float[Tensor, "R count"]:
    """Samples where the weights of a first look at `inverse_depths` are large.

    Args:
        near: [R, 1].
        far: [R, 1].
        weights: of the first look's samples, which were uniform in inverse depth; not below 0.
        count: samples wanted.
        jitter: random places (for training) instead of the same quantiles for all rays.
    """
    bins = weights.shape[-1]
    # The surface may lie between two samples: each shares with its neighbours.
    padded = F.pad(weights.detach()[:, None], (1, 1), mode="replicate")[:, 0]
    shared = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    density = shared / shared.sum(dim=-1, keepdim=True).clamp(min=1e-8) * (1 - _FLOOR) + _FLOOR / bins
    total = F.pad(density.cumsum(dim=-1), (1, 0))
    total = total / total[:, -1:]
    quantiles = (torch.arange(count, device=near.device, dtype=near.dtype) + 0.5) / count
    quantiles = quantiles.expand(len(weights), count).contiguous()
    if jitter:
        quantiles = quantiles + (torch.rand_like(quantiles) - 0.5) / count
    index = torch.searchsorted(total, quantiles, right=True).clamp(1, bins)
    below, above = total.gather(1, index - 1), total.gather(1, index)
    inside = (quantiles - below) / (above - below).clamp(min=1e-8)
    # Bin i reaches from half a step before sample i to half a step after it.
    step = (index - 1 + inside.clamp(0, 1) - 0.5) / max(bins - 1, 1)
    step = step.clamp(0, 1)
    return 1 / (1 / near * (1 - step) + 1 / far * step)
