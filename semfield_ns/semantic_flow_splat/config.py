"""What can be set of the model. The presets differ in these values only."""

from dataclasses import dataclass, field
from pathlib import Path

from nerfstudio.models.base_model import ModelConfig

from semfield_ns.gaussians.backends import Backend


def _model() -> type:
    from semfield_ns.semantic_flow_splat.model import SemanticFlowSplatModel

    return SemanticFlowSplatModel


@dataclass
class SplatLossWeights:
    """Coefficients of the losses; 0 switches a loss off. Means are over pixels, Gaussians or time steps."""

    rgb: float = 0.8
    """Mean absolute error of colours in [0, 1]."""
    rgb_squared: float = 0.0
    """Mean squared error of colours."""
    ssim: float = 0.2
    """1 - structural similarity."""
    depth: float = 1.0
    """Relative error of depth along the optical axis, where metric depth is given."""
    mask: float = 0.05
    """Rendered share of moving Gaussians against the motion mask."""
    accumulation: float = 0.02
    """Light that gets through: every pixel shows something."""
    flow: float = 0.0
    """Optical flow to the neighbouring frames against the given flow, in parts of the picture's width."""
    acceleration: float = 1e-4
    """Squared acceleration of trajectories, in world units, with the video's length as the unit of time."""
    rigidity: float = 0.0
    """Squared change, from frame to frame, of the distance vectors between neighbours, in world units."""
    presence: float = 0.05
    """Squared change of the presence from frame to frame."""
    shading: float = 0.02
    """Squared logarithm of the brightness over time."""
    semantics: float = 0.1
    """Cross-entropy of labels."""
    semantics_carried: float = 0.1
    """Generalised cross-entropy of carried labels on frames without a label of their own, times how far they can be
    trusted; left out where metric depth is given: trajectories then know better."""


@dataclass
class SemanticFlowSplatModelConfig(ModelConfig):
    """Semantic Flow on Gaussians that move."""

    _target: type = field(default_factory=_model)
    default_near: float = 0.1
    """Nearest content, scene units, of a scene without a depth range."""
    default_far: float = 100.0
    """Furthest content, scene units, of a scene without a depth range."""
    max_gaussians: int = 500_000
    """Upper limit of the number of Gaussians."""
    start_gaussians: int = 200_000
    """Upper limit of the number of Gaussians at the start."""
    grow_every: int = 200
    """Training steps after which transparent Gaussians are put elsewhere, and new ones are added."""
    grow_until: int = 10_000
    """The last step at which the number of Gaussians changes."""
    grow_share: float = 0.1
    """New Gaussians at a time, as a share of the present number."""
    harmonics_degree: int = 2
    """Of the spherical harmonics of colours: 0 is the same colour from everywhere, 3 the most."""
    num_shades: int = 8
    """Times, spread over the video, between which the brightness of a Gaussian changes evenly; 0 for one that stays."""
    antialiased: bool = False
    """Whether small Gaussians become more transparent by as much as a pixel enlarges them; of splats that were trained
    that way."""
    backend: Backend = "auto"
    """"cpu" (numba), "gsplat" (CUDA), or whatever fits the device."""
    flow_attention: bool = True
    """Add the logits that flow attention predicts from image features along the trajectories."""
    image_features: bool = True
    """Let tokens of the flow attention have image features, and not only where and when a Gaussian is seen."""
    uplift_labels: bool = True
    """Start from the logits of the labels along the trajectories."""
    free_logits: bool = True
    """Let each Gaussian have free logits of its own in addition."""
    num_tokens: int = 8
    """Frames of the video, spread over it, at which image features along a trajectory are gathered."""
    token_dim: int = 32
    """Channels of a token of the flow attention."""
    attention_heads: int = 4
    """Heads of the flow attention."""
    network_batch: int = 4096
    """Gaussians that the semantic network looks at in a training step."""
    gather_every: int = 300
    """Training steps after which features and labels along the trajectories are gathered again."""
    max_label_frames: int = 48
    """Frames, spread over the video, whose labels are gathered."""
    loss_weights: SplatLossWeights = field(default_factory=SplatLossWeights)
    """Coefficients of the losses."""
    edits: Path | None = None
    """Edits of the scene to render with, a JSON or YAML list (see `semfield_ns.editing.edits`)."""
    enable_collider: bool = False
    """Off: pictures are rendered whole."""

    @property
    def sh_degree(self) -> int:
        """`harmonics_degree`, as Nerfstudio's exporter calls it."""
        return self.harmonics_degree
