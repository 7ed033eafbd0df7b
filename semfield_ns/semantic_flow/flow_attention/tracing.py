"""Trajectories of points through the velocity field (paper, section 3.2)."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.rendering.constants import constant

VelocityFn = Callable[[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 1"]], Float[Tensor, "*batch 3"]]
"""World points and times (in frames) -> velocities in world units a frame."""


def trace(
    points: Float[Tensor, "*#batch 3"],
    time: Float[Tensor, "*#batch 1"],
    duration: Float[Tensor, "*#batch 1"] | float,
    velocity: VelocityFn,
    substeps: int = 2,
    first: Float[Tensor, "*#batch 3"] | None = None,
) -> Float[Tensor, "*batch 3"]:
    """Where points that are at `points` at `time` are at `time + duration`: Euler steps along the velocity field.

    Several durations of the same points, along axes before theirs, share the first step's velocity.

    Args:
        points: world coordinates.
        time: in frames.
        duration: in frames; negative traces backwards in time.
        velocity: the field.
        substeps: equal Euler steps; the paper takes two a frame.
        first: the velocity of the first step, if it is known.

    Returns:
        World coordinates; exactly `points` where the velocity or the duration is zero.
    """
    step = torch.as_tensor(duration, dtype=points.dtype, device=points.device) / substeps
    points = points + step * (velocity(points, time) if first is None else first)
    for index in range(1, substeps):
        points = points + step * velocity(points, time + index * step)
    return points


@dataclass
class Trajectory:
    """Points and where they are in the neighbouring frames; world units, times in frames."""

    points: Float[Tensor, "rays samples 3"]
    time: Float[Tensor, "rays 1 1"]
    now: Float[Tensor, "rays samples 3"]
    """At the frame nearest to `time`; the points themselves at whole frames."""
    before: Float[Tensor, "rays samples 3"]
    after: Float[Tensor, "rays samples 3"]
    steps: Int[Tensor, "rays 3"]
    """The frames before, after and now."""

    @property
    def durations(self) -> Float[Tensor, "rays 3"]:
        """Frames from `time` to each of `steps`."""
        return self.steps - self.time[:, 0]

    def rays(self, chosen: slice) -> "Trajectory":
        """Those of some rays."""
        return Trajectory(*(getattr(self, field.name)[chosen] for field in fields(self)))


def nearest_frame(time: Float[Tensor, "*batch"], num_frames: int) -> Int[Tensor, "*batch"]:
    """The frame of a video nearest to a time in frames."""
    return time.round().long().clamp(0, num_frames - 1)


def neighbouring_steps(time: Float[Tensor, "rays 1"], num_frames: int) -> Int[Tensor, "rays 3"]:
    """The frames before, after and nearest to a time. At the ends of the clip the missing one repeats the nearest."""
    now = nearest_frame(time, num_frames)
    return (now + constant((-1, 1, 0), now)).clamp(0, num_frames - 1)


def trace_neighbours(
    points: Float[Tensor, "rays samples 3"],
    time: Float[Tensor, "rays 1"],
    velocity: VelocityFn,
    num_frames: int,
    first: Float[Tensor, "rays samples 3"] | None = None,
    at_frames: bool = False,
) -> Trajectory:
    """Traces points at a time, in frames, to the neighbouring frames, both ways, and to the nearest one.

    Args:
        points: world coordinates.
        time: of each ray.
        velocity: the field.
        num_frames: of the video.
        first: velocities of the points at their times, if they are known.
        at_frames: all times are whole frames, as in training: then the points are where the nearest frame has them.
    """
    steps = neighbouring_steps(time, num_frames)
    clock = time[:, None]
    durations = (steps - time).T[: 2 if at_frames else 3, :, None, None]
    before, after, *now = trace(points, clock, durations, velocity, first=first).unbind()
    return Trajectory(points, clock, now=points if at_frames else now[0], before=before, after=after, steps=steps)


def per_frame(
    displacement: Float[Tensor, "*#batch 3"], duration: Float[Tensor, "*#batch 1"]
) -> Float[Tensor, "*#batch 3"]:
    """A displacement over a duration in frames, of either sign, as one over a single frame; 0 over no time."""
    return torch.where(duration == 0, 0.0, displacement / duration.abs())
