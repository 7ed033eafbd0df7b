"""The dynamic branch as it is seen at a neighbouring time: the same rays, their samples moved along the flow."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.semantic_flow.fields.blending import single_weights
from semfield_ns.semantic_flow.fields.radiance import Radiance, RadianceBranches
from semfield_ns.semantic_flow.flow_attention.heads import SemanticHeads
from semfield_ns.semantic_flow.flow_attention.tracing import Trajectory, trace_neighbours
from semfield_ns.semantic_flow.frames import SourceFrames


@dataclass
class WarpedRender:
    """Rays rendered with their samples where they are one frame later or earlier."""

    rgb: Float[Tensor, "rays 3"]
    logits: Float[Tensor, "rays classes"] | None
    moved: Float[Tensor, "rays samples 3"]
    """The samples at the neighbouring frame."""
    trajectory: Trajectory
    """From `moved`, to the frames around the neighbouring one."""
    step: int
    """+1 for the next frame, -1 for the previous one."""

    @property
    def returned(self) -> Float[Tensor, "rays samples 3"]:
        """The samples traced there and back."""
        return self.trajectory.before if self.step > 0 else self.trajectory.after

    @property
    def acceleration(self) -> Float[Tensor, "rays samples 3"]:
        """Second difference of the trajectory at the neighbouring frame, world units."""
        return self.trajectory.before + self.trajectory.after - 2 * self.moved


def render_warped(
    radiance: Radiance,
    trajectory: Trajectory,
    step: int,
    branches: RadianceBranches,
    heads: SemanticHeads | None,
    frames: SourceFrames,
    detach_weights: bool,
) -> WarpedRender:
    """Renders the dynamic branch of `radiance` (rays whose neighbouring frame exists) at the neighbouring frame.

    Args:
        radiance: the samples that flows start from.
        trajectory: of those samples.
        step: +1 or -1.
        branches: the fields.
        heads: semantic heads, or None without classes.
        frames: the video.
        detach_weights: keep the semantic loss from moving density.
    """
    moved = trajectory.after if step > 0 else trajectory.before
    time = radiance.time + step
    dynamic = branches.evaluate_dynamic(moved, radiance.directions, radiance.deltas, time, frames)
    weights = single_weights(dynamic.alpha)
    onward = trace_neighbours(moved, time, branches.flow.velocity, len(frames), dynamic.velocity, at_frames=True)
    logits = None
    if heads is not None:
        semantic_weights = weights.detach() if detach_weights else weights
        logits = (semantic_weights * heads.dynamic_logits(onward, dynamic.feature, frames)).sum(dim=-2)
    return WarpedRender(
        rgb=(weights * dynamic.color).sum(dim=-2), logits=logits, moved=moved, trajectory=onward, step=step
    )


def random_step() -> int:
    """+1 or -1, from torch's generator so that a seed fixes it."""
    return 1 if int(torch.randint(2, (1,))) else -1
