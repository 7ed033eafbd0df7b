"""What can be set of the model. The presets differ in these values only."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nerfstudio.models.base_model import ModelConfig

from semfield_ns.semantic_flow.encodings import EncodingConfig, Implementation
from semfield_ns.semantic_flow.fields.warp import WarpKind
from semfield_ns.semantic_flow.losses import LossWeights


def _model() -> type:
    from semfield_ns.semantic_flow.model import SemanticFlowModel

    return SemanticFlowModel


@dataclass
class SemanticFlowModelConfig(ModelConfig):
    """One set of classes; the presets differ in these values only."""

    _target: type = field(default_factory=_model)
    warp: WarpKind = "auto"
    """Map from the world to the cube that encodings see: one wide perspective camera, or a contraction."""
    default_near: float = 0.1
    """Near plane, scene units, of a scene without a depth range."""
    default_far: float = 100.0
    """Far plane, scene units, of a scene without a depth range."""
    num_samples: int = 64
    """Samples of a ray at which the fields are evaluated."""
    num_proposal_samples: tuple[int, ...] = ()
    """Samples of a ray for each density that places samples; empty for stratified samples alone (the paper)."""
    num_flow_samples: int = 64
    """Samples of a ray, those that weigh most, at which flows, image features and logits are computed."""
    static_encoding: EncodingConfig = field(default_factory=lambda: EncodingConfig(kind="frequency"))
    """Of positions, in the static field."""
    flow_encoding: EncodingConfig = field(default_factory=lambda: EncodingConfig(kind="frequency"))
    """Of positions and time, in the velocity field."""
    dynamic_encoding: EncodingConfig = field(default_factory=lambda: EncodingConfig(kind="none"))
    """Of positions and time, in the dynamic field, beside the velocity field's trunk."""
    proposal_encoding: EncodingConfig = field(
        default_factory=lambda: EncodingConfig(kind="planes", channels=8, resolutions=(64,))
    )
    """Of the densities that place samples."""
    implementation: Implementation = "torch"
    """Backend of hash grids; "tcnn" needs tinycudann and a GPU."""
    static_width: int = 256
    """Channels of the static trunk."""
    static_blocks: int = 5
    """Residual blocks of the static trunk."""
    flow_width: int = 128
    """Channels of the velocity trunk."""
    flow_blocks: int = 2
    """Residual blocks of the velocity trunk."""
    dynamic_width: int = 128
    """Channels of the dynamic trunk."""
    dynamic_blocks: int = 3
    """Residual blocks of the dynamic trunk."""
    pixel_features: Literal["everywhere", "semantics"] = "everywhere"
    """Where image features are used: in the radiance trunks too (the paper), or on the semantic path only."""
    source_color: bool = False
    """Blend the dynamic colour, by a learned gate, with the colour of the frame at that time."""
    latent_dim: int = 256
    """Channels of the learned code of the scene in the velocity field."""
    max_velocity: float = 1.0
    """Bound of a velocity component, world units a frame."""
    semantic_head: Literal["flow", "point"] = "flow"
    """"flow": attended flow features; "point": the field's feature alone, the baseline."""
    evidence: bool = False
    """Let the "flow" head only correct the evidence of labels: a linear classifier of the image feature, and labels
    carried along the given flow. For filling in frames of the video itself: it makes views from elsewhere worse."""
    token_dim: int = 64
    """Channels of a token of the flow attention."""
    attention_heads: int = 4
    """Heads of the flow attention."""
    semantic_gradient: bool = True
    """Let semantic losses move density (the paper); False stops them at the rendering weights."""
    stage_one_steps: int = 60000
    """Steps that train the static branch on static pixels before everything else starts."""
    freeze_static: bool = True
    """Keep the static branch as stage 1 left it."""
    warp_directions: Literal["both", "random"] = "both"
    """Neighbouring frames rendered in a step: both (the paper), or one of them at random (half the price)."""
    depth_thickness: float = 0.03
    """Half thickness of a dynamic surface, relative to its depth, for the depth-blending loss."""
    flow_error_limit: float = 0.1
    """Errors of the induced flow are capped at this part of the image width: beyond it, the given flow is wrong."""
    proposal_anneal_steps: int = 500
    """Steps after the start of a stage over which samples go from spread to concentrated."""
    loss_weights: LossWeights = field(default_factory=LossWeights)
    """Coefficients of the losses."""
    edits: Path | None = None
    """Edits of the scene to render with, a JSON or YAML list (see `semfield_ns.editing.edits`)."""
    eval_num_rays_per_chunk: int = 4096
    """Rays rendered at once in evaluation and in the viewer."""
    shared: Literal["semantics", "networks"] = "networks"
    """What several scenes share: the semantic path alone, or all layers too, so that a scene has encodings and a latent
    code of its own (the paper)."""

    def setup(self, **kwargs: Any) -> Any:
        """The model; that of several scenes where the metadata has several."""
        if "scenes" not in kwargs["metadata"]:
            return super().setup(**kwargs)
        from semfield_ns.semantic_flow.many_scenes.model import ManyScenesModel

        return ManyScenesModel(self, **kwargs)
