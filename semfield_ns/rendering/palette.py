"""Labels to colours: one palette for the viewer, the videos and the figures."""

import colorsys

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

GOLDEN_RATIO = (5**0.5 - 1) / 2
STANDING_OUT = ((230, 0, 190), (0, 255, 170), (90, 40, 255), (255, 225, 0), (120, 0, 60), (160, 110, 0))
"""sRGB, for masks over photographs: the first ones are saturated and rare in rooms and streets, and all are far apart
for people who do not tell red from green as well"""
THING_ALPHA = 0.7
"""of the colours of things, over the picture"""
FAINT = (0.45, 0.35)
"""grey of what is hidden: how bright black is, and how much brighter white"""


def default_palette(num_classes: int) -> UInt8[np.ndarray, "C 3"]:
    """Colours for classes that come without any, the same at every call.

    Hues are a golden-ratio sequence, so that the first few classes, whatever their number, are far apart; brightness
    alternates, so that hues that do come close still differ.

    Args:
        num_classes: C, at least 0.

    Returns:
        [C, 3] sRGB colours, all distinct for C up to 256 and none of them black.
    """
    levels = ((0.75, 0.95), (0.55, 0.70), (0.95, 0.55))  # (saturation, value)
    colors = [colorsys.hsv_to_rgb((i * GOLDEN_RATIO) % 1.0, *levels[i % len(levels)]) for i in range(num_classes)]
    return (np.asarray(colors, dtype=np.float64).reshape(-1, 3) * 255).round().astype(np.uint8)


def with_black(colors: UInt8[np.ndarray, "C 3"]) -> UInt8[np.ndarray, "C+1 3"]:
    """The colours of ids from 1 on as a palette: 0 is black."""
    return np.concatenate([np.zeros((1, 3), dtype=np.uint8), colors])


def object_color(number: int) -> tuple[int, int, int]:
    """The colour of the object of a number, from 1: at first those of `STANDING_OUT`, then further ones."""
    if number <= len(STANDING_OUT):
        return STANDING_OUT[number - 1]
    red, green, blue = default_palette(number)[-1].tolist()
    return red, green, blue


def unit_colors(colors: Shaped[Tensor, "C 3"] | Shaped[np.ndarray, "C 3"]) -> Float[Tensor, "C 3"]:
    """Integer colours in 0 to 255, or float colours in [0, 1], as float32 in [0, 1]."""
    table = torch.as_tensor(colors)
    return table.float() if table.is_floating_point() else table.float() / 255.0


def colorize_labels(
    labels: Int[Tensor, "*batch"], colors: Shaped[Tensor, "C 3"] | Shaped[np.ndarray, "C 3"]
) -> Float[Tensor, "*batch 3"]:
    """Paints class ids with the palette.

    Args:
        labels: class ids in 0 to C - 1; any negative id means "no label" and becomes black.
        colors: the palette, integers in 0 to 255 or floats in [0, 1].

    Returns:
        [..., 3] float32 in [0, 1] on the device of `labels`.

    Raises:
        IndexError: an id is C or more (on the CPU; CUDA reports it as a device-side assertion).
    """
    table = unit_colors(colors).to(labels.device)
    painted = table[labels.long().clamp(min=0)]
    return torch.where((labels < 0)[..., None], 0.0, painted)


def hex_color(color: Shaped[np.ndarray, "3"] | tuple[int, int, int]) -> str:
    """`#rrggbb` of a colour given as three integers in 0 to 255."""
    red, green, blue = (int(channel) for channel in color)
    return f"#{red:02x}{green:02x}{blue:02x}"


def faint(rgb: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Colours in [0, 1] as those of something hidden: pale and grey, so that one still sees where it is."""
    return (FAINT[0] + FAINT[1] * rgb.mean(dim=-1, keepdim=True)).expand_as(rgb)


def instance_colors(ids: Int[Tensor, "*batch"], rgb: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """A picture with things in their colours, and the background pale.

    Args:
        ids: numbers of things from 1, 0 for the background.
        rgb: the picture, in [0, 1].
    """
    table = unit_colors(default_palette(int(ids.max()) if ids.numel() else 0))
    mixed = (1 - THING_ALPHA) * rgb + THING_ALPHA * colorize_labels(ids - 1, table)
    return torch.where(ids[..., None] > 0, mixed, faint(rgb))
