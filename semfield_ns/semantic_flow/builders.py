"""The parts of a `SemanticFlowModel`, each built from its settings."""

from typing import Any

from torch import nn

from semfield_ns.errors import SemfieldError
from semfield_ns.semantic_flow.config import SemanticFlowModelConfig
from semfield_ns.semantic_flow.fields.branches import DynamicField, FlowField, StaticField
from semfield_ns.semantic_flow.fields.radiance import RadianceBranches
from semfield_ns.semantic_flow.flow_attention.heads import SemanticHeads
from semfield_ns.semantic_flow.frames import SourceFrames


def build_frames(config: SemanticFlowModelConfig, metadata: dict[str, Any]) -> SourceFrames:
    """The video, from the metadata of the training frames.

    Raises:
        SemfieldError: it has a single time step.
    """
    frames = SourceFrames(
        metadata["cameras"],
        metadata["source_features"],
        metadata["source_colors"] if config.source_color else None,
        metadata["source_moving"],
        metadata["source_evidence"]() if config.evidence and "source_evidence" in metadata else None,
        metadata.get("camera_ids"),
        metadata.get("on_disk", False),
    )
    if len(frames) < 2:
        raise SemfieldError(
            "This scene has one time step; semantic-flow learns from motion and needs at least two frames with "
            "different times."
        )
    return frames


def build_branches(config: SemanticFlowModelConfig, warp: nn.Module, frames: SourceFrames) -> RadianceBranches:
    """The static, velocity and dynamic fields."""
    conditioned = config.pixel_features == "everywhere"
    image_dim = frames.feature_dim if conditioned else 0
    static = StaticField(
        warp, config.static_encoding, config.static_width, config.static_blocks, image_dim, config.implementation
    )
    flow = FlowField(
        warp,
        config.flow_encoding,
        len(frames),
        config.flow_width,
        config.flow_blocks,
        config.latent_dim,
        config.max_velocity,
    )
    dynamic = DynamicField(
        flow, config.dynamic_encoding, config.dynamic_width, config.dynamic_blocks, 2 * image_dim, config.source_color
    )
    return RadianceBranches(static, flow, dynamic, conditioned)


def build_heads(
    config: SemanticFlowModelConfig, num_classes: int, branches: RadianceBranches, frames: SourceFrames
) -> SemanticHeads:
    """The semantic heads of both branches."""
    return SemanticHeads(
        config.semantic_head,
        num_classes,
        frames.feature_dim,
        branches.static.out_dim,
        branches.dynamic.out_dim,
        config.token_dim,
        config.attention_heads,
        evidence=config.evidence,
    )
