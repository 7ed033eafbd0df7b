"""From trajectories of samples to class logits: image features along them, and the heads that read these."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semfield_ns.semantic_flow.flow_attention.attention import TOKENS, FlowAttention, SemanticNetwork
from semfield_ns.semantic_flow.flow_attention.tracing import Trajectory
from semfield_ns.semantic_flow.frames import SourceFrames


class SemanticHeads(nn.Module):
    """Logits of the static and of the dynamic branch.

    With `kind="flow"` the dynamic branch reads the attended flow feature and the static branch the image feature of the
    nearest frame; with "point" both read only the fields' own features (the point-based head that the paper compares
    with). With `evidence` the networks correct the evidence of the frame at that time (`SourceFrames.evidence`).
    """

    def __init__(
        self,
        kind: Literal["flow", "point"],
        num_classes: int,
        feature_dim: int,
        static_dim: int,
        dynamic_dim: int,
        token_dim: int = 64,
        attention_heads: int = 4,
        hidden: int = 128,
        evidence: bool = False,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.corrects_evidence = evidence and kind == "flow"
        flow_dim = static_context = 0
        if kind == "flow":
            self.attention = FlowAttention(feature_dim, token_dim, attention_heads)
            flow_dim, static_context = self.attention.out_dim, feature_dim + 1
        self.static = SemanticNetwork(static_context, static_dim, num_classes, hidden)
        self.dynamic = SemanticNetwork(flow_dim, dynamic_dim, num_classes, hidden)
        if self.corrects_evidence:
            # Corrections begin at nothing: noise at the start would cost rare classes, which training hardly sees.
            for network in (self.static, self.dynamic):
                for parameter in network.layers[-1].parameters():
                    nn.init.zeros_(parameter)

    def static_logits(
        self,
        points: Float[Tensor, "rays samples 3"],
        step: Int[Tensor, "rays"],
        field: Tensor,
        frames: SourceFrames,
    ) -> Float[Tensor, "rays samples classes"]:
        """Logits of points that do not move, with the image feature of frame `step`.

        Where something that moves covers the point in that frame, the feature would be that thing's: then it is of the
        nearest frame that shows the point.
        """
        if self.kind == "point":
            return self.static(None, field)
        steps = step[:, None].expand(points.shape[:-1])
        features, visible = frames.gather(points, frames.unobstructed(points, steps))
        return self._static(features * visible, visible, points, steps, field, frames)

    def dynamic_logits(
        self, trajectory: Trajectory, field: Tensor, frames: SourceFrames
    ) -> Float[Tensor, "rays samples classes"]:
        """Logits of moving points from the features along their trajectories."""
        if self.kind == "point":
            return self.dynamic(None, field)
        traced = torch.stack([trajectory.before, trajectory.after, trajectory.now], dim=-2)
        steps = trajectory.steps[:, None, :].expand(traced.shape[:-1])
        return self._dynamic(*frames.gather(traced, steps), traced, trajectory, field, frames)

    def logits(
        self,
        points: Float[Tensor, "rays samples 3"],
        trajectory: Trajectory,
        static_field: Tensor,
        dynamic_field: Tensor,
        frames: SourceFrames,
    ) -> tuple[Float[Tensor, "rays samples classes"], Float[Tensor, "rays samples classes"]]:
        """`static_logits` of points and `dynamic_logits` of their trajectories, with one look-up in the frames."""
        if self.kind == "point":
            return self.static(None, static_field), self.dynamic(None, dynamic_field)
        traced = torch.stack([trajectory.before, trajectory.after, trajectory.now], dim=-2)
        steps = trajectory.steps[:, None].expand(traced.shape[:-1])
        now = steps[..., 2]
        every = torch.cat([traced, points[..., None, :]], dim=-2)
        shown = torch.cat([steps, frames.unobstructed(points, now)[..., None]], dim=-1)
        features, visible = (part.split((TOKENS, 1), dim=-2) for part in frames.gather(every, shown))
        feature, seen = features[1].squeeze(-2), visible[1].squeeze(-2)
        static = self._static(feature * seen, seen, points, now, static_field, frames)
        return static, self._dynamic(features[0], visible[0], traced, trajectory, dynamic_field, frames)

    def _static(
        self, feature: Tensor, visible: Tensor, points: Tensor, steps: Tensor, field: Tensor, frames: SourceFrames
    ) -> Float[Tensor, "rays samples classes"]:
        logits = self.static(torch.cat([feature, visible], dim=-1), field)
        return logits + frames.evidence(points, steps) if self.corrects_evidence else logits

    def _dynamic(
        self,
        features: Tensor,
        visible: Tensor,
        traced: Tensor,
        trajectory: Trajectory,
        field: Tensor,
        frames: SourceFrames,
    ) -> Float[Tensor, "rays samples classes"]:
        durations = trajectory.durations[:, None, :, None].expand(*traced.shape[:-1], 1)
        context = self.attention(features, visible, traced - trajectory.points[..., None, :], durations)
        logits = self.dynamic(context, field)
        if not self.corrects_evidence:
            return logits
        now = trajectory.steps[:, None, 2].expand(traced.shape[:-2])
        return logits + frames.evidence(trajectory.now, now)
