"""Optical flow as colour: hue is direction, saturation is magnitude (the Middlebury colour wheel of Baker et al.)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Steps from one primary or secondary colour to the next. Uneven because hues differ in how well we tell them apart.
_SEGMENTS = (
    ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), 15),  # red to yellow
    ((1.0, 1.0, 0.0), (0.0, 1.0, 0.0), 6),  # yellow to green
    ((0.0, 1.0, 0.0), (0.0, 1.0, 1.0), 4),  # green to cyan
    ((0.0, 1.0, 1.0), (0.0, 0.0, 1.0), 11),  # cyan to blue
    ((0.0, 0.0, 1.0), (1.0, 0.0, 1.0), 13),  # blue to magenta
    ((1.0, 0.0, 1.0), (1.0, 0.0, 0.0), 6),  # magenta to red
)
_OVERFLOW_DIMMING = 0.75


def color_wheel() -> Float[Tensor, "55 3"]:
    """The wheel's colours in [0, 1]; row 0 is motion to the right (red), and rows go on clockwise in the image."""
    rows = []
    for start, end, steps in _SEGMENTS:
        weight = torch.arange(steps, dtype=torch.float32)[:, None] / steps
        rows.append((1 - weight) * torch.tensor(start) + weight * torch.tensor(end))
    return torch.cat(rows)


def flow_to_color(flow: Float[Tensor, "*batch 2"], max_magnitude: float) -> Float[Tensor, "*batch 3"]:
    """Paints flow vectors.

    Args:
        flow: (dx, dy), dx to the right and dy downwards, in any unit. What is not finite counts as no motion.
        max_magnitude: length at which a colour is fully saturated, in the same unit, more than 0; longer vectors are
            dimmed. Keep it fixed for a video, or the colours flicker.

    Returns:
        [..., 3] float32 in [0, 1]; no motion is white.

    Raises:
        ValueError: `max_magnitude` is not a positive finite number.
    """
    if not (max_magnitude > 0 and math.isfinite(max_magnitude)):
        raise ValueError(f"max_magnitude must be a positive finite number, not {max_magnitude}.")
    finite = flow.float().isfinite().all(dim=-1, keepdim=True)
    scaled = torch.where(finite, flow.float(), 0.0) / max_magnitude
    wheel = color_wheel().to(scaled.device)

    position = torch.atan2(scaled[..., 1], scaled[..., 0]) / (2 * torch.pi) % 1.0 * len(wheel)
    lower = position.long() % len(wheel)
    weight = (position - position.floor())[..., None]
    hue = (1 - weight) * wheel[lower] + weight * wheel[(lower + 1) % len(wheel)]

    magnitude = scaled.norm(dim=-1, keepdim=True)
    saturated = 1 - magnitude * (1 - hue)
    return torch.where(magnitude <= 1, saturated, hue * _OVERFLOW_DIMMING).clamp(0.0, 1.0)
