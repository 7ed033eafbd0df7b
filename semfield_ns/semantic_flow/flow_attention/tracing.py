"""Trajectories of points through the velocity field (paper, section 3.2)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

VelocityFn = Callable[[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 1"]], Float[Tensor, "*batch 3"]]
"""World points and times (in frames) -> velocities in world units a frame."""


def trace(
    points: Float[Tensor, "*#batch 3"],
    time: Float[Tensor, "*#batch 1"],
    duration: Float[Tensor, "*#batch 1"] | float,
    velocity: VelocityFn,
    substeps: int = 2,
) -> Float[Tensor, "*batch 3"]:
    """Where points that are at `points` at `time` are at `time + duration`: Euler steps along the velocity field.

    Args:
        points: world coordinates.
        time: in frames.
        duration: in frames; negative traces backwards in time.
        velocity: the field.
        substeps: equal Euler steps; the paper takes two a frame.

    Returns:
        World coordinates; exactly `points` where the velocity or the duration is zero.
    """
    step = torch.as_tensor(duration, dtype=points.dtype, device=points.device) / substeps
    for index in range(substeps):
        points = points + step * velocity(points, time + index * step)
    return points
