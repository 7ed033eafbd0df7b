"""Structural similarity as a loss (Wang et al. 2004), at a cost that a CPU can bear."""

import math
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.rendering.constants import constant

REACH, DEVIATION = 5, 1.5
"""px: how far the usual window reaches around its middle, and the standard deviation of its weights"""
_SHARES = [math.exp(-0.5 * (place / DEVIATION) ** 2) for place in range(-REACH, REACH + 1)]
WINDOW = tuple(share / sum(_SHARES) for share in _SHARES)
LIGHT, CONTRAST = 0.01**2, 0.03**2
"""what is added to numerators and denominators, for values in [0, 1]"""


def similarity_loss(rgb: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> Float[Tensor, ""]:
    """1 - SSIM, with the usual window of 11 pixels, where it is inside; 0 for pictures that are smaller.

    Args:
        rgb: in [0, 1].
        truth: likewise.
    """
    if min(rgb.shape[:2]) < len(WINDOW):
        return rgb.sum() * 0
    mean, square, both = windowed(torch.cat([rgb, rgb * rgb, rgb * truth], dim=-1)).split(3, dim=-1)
    true_mean, true_square = windowed(torch.cat([truth, truth * truth], dim=-1)).split(3, dim=-1)
    product, squares = mean * true_mean, mean * mean + true_mean * true_mean
    light = (2 * product + LIGHT) / (squares + LIGHT)
    contrast = (2 * (both - product) + CONTRAST) / (square + true_square - squares + CONTRAST)
    return 1 - (light * contrast).mean()


def windowed(values: Float[Tensor, "H W C"]) -> Float[Tensor, "h w C"]:
    """Weighted means over the windows that are inside."""
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return _WindowedOnCpu.apply(values)
    channels = values.shape[-1]
    window = constant(WINDOW, values).expand(channels, 1, -1)
    rows = F.conv2d(values.permute(2, 0, 1)[None], window[..., None], groups=channels)
    return F.conv2d(rows, window[:, :, None], groups=channels)[0].permute(1, 2, 0)


class _WindowedOnCpu(torch.autograd.Function):
    """By OpenCV, which takes a seventh of the time of torch's convolutions. The window is symmetric."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        found = _filtered(values)
        return found[REACH : len(found) - REACH, REACH : found.shape[1] - REACH]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _filtered(F.pad(gradients[0], (0, 0, REACH, REACH, REACH, REACH)))


def _filtered(values: Float[Tensor, "H W C"]) -> Float[Tensor, "H W C"]:
    """Of the same size, as if everything outside were 0."""
    window = np.asarray(WINDOW, dtype=np.float32)
    found = cv2.sepFilter2D(values.contiguous().numpy(), -1, window, window, borderType=cv2.BORDER_CONSTANT)
    return torch.from_numpy(np.asarray(found)).view_as(values)
