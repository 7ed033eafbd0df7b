"""The whole network: image encoder, trunk and feature head, as one configurable module."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from jaxtyping import Float
from torch import Tensor, nn

from semfield_ns.gsn.encoder import ImageEncoder
from semfield_ns.gsn.head import FeatureHead
from semfield_ns.gsn.projection import SourceViews, observe, observe_tokens, ray_difference
from semfield_ns.gsn.transformers import FoldedViewAttention, ViewTransformer, compiled_mix, mix_views
from semfield_ns.gsn.trunk import FoldedTrunk, Trunk

OFFICIAL: dict[str, Any] = {
    "masked_pooling": False,
    "weighted_samples": False,
    "blend": False,
    "head_sees_target": True,
    "tokens_through_image": True,
}
"""The variants that the official code has."""


@dataclass
class NetworkConfig:
    """Sizes and variants. The defaults are the official sizes with our variants; see `OFFICIAL`."""

    dim: int = 64
    """Channels of the trunk's stream."""
    blocks: int = 4
    """Pairs of a view and a ray transformer; GNT has 8 (or 4)."""
    heads: int = 4
    """Attention heads of the ray transformers."""
    feature_dim: int = 64
    """Channels of the teacher's features; 0 for no feature head (GNT)."""
    more_heads: tuple[str, ...] = ()
    """Names of further feature heads of these channels, each with a teacher of its own (`more_teachers` of the model
    sets it)."""
    image_dim: int = 32
    """Channels of the image encoder's maps."""
    encoder_width: int = 64
    """Channels of the image encoder's first stage."""
    encoder_blocks: tuple[int, int, int] = (3, 4, 6)
    """Residual blocks of the image encoder's stages."""
    dropout: float = 0.0
    """In training, in attentions and feed-forward layers; 0.1 in the paper."""
    direction: Literal["color", "trunk"] = "color"
    """Where the viewing direction enters: the colour alone (GSN), or every even block (GNT)."""
    masked_pooling: bool = True
    """Start samples from the views that see them; the official code starts from all."""
    weighted_samples: bool = True
    """Colours and features of a ray come from the samples that its depth comes from; officially, all count the same."""
    blend: bool = True
    """Blend colours and teacher features from the views, and add what the network renders; not in the official code."""
    head_sees_target: bool = False
    """Give the head the target camera's direction too (the official code): its features then change with the view."""
    tokens_through_image: bool = False
    """Enlarge teacher tokens to the image before they are sampled (the official code): 128 times the memory."""


class Folded(NamedTuple):
    """Matrices that follow from the weights alone."""

    trunk: FoldedTrunk
    heads: dict[str, FoldedViewAttention]


class GSNNetwork(nn.Module):
    """GSN, or GNT where there is no feature head. Module names are those of the official checkpoints' parts."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_net = ImageEncoder(config.image_dim, config.encoder_width, config.encoder_blocks)
        self.net_coarse = Trunk(
            config.dim,
            config.blocks,
            config.image_dim,
            config.heads,
            config.dropout,
            config.direction == "trunk",
            config.masked_pooling,
            config.weighted_samples,
            config.blend,
        )
        self.dino = self.make_head() if config.feature_dim else None
        names = config.more_heads if config.feature_dim else ()
        self.more_heads = nn.ModuleDict({name: self.make_head() for name in names})

    def make_head(self) -> FeatureHead:
        """A new feature head."""
        config = self.config
        return FeatureHead(
            config.dim,
            config.feature_dim,
            config.heads,
            config.dropout,
            config.masked_pooling,
            config.weighted_samples,
            config.blend,
        )

    @property
    def feature_heads(self) -> dict[str, FeatureHead]:
        """Every head by the name of its output: "features", and "features_NAME" of the further ones."""
        if self.dino is None:
            return {}
        more = {f"features_{name}": cast(FeatureHead, head) for name, head in self.more_heads.items()}
        return {"features": self.dino} | more

    @property
    def is_official(self) -> bool:
        """Whether the official code could use these weights."""
        return not self.config.blend and not self.more_heads

    def use_compiled(self, compiled: bool = True) -> None:
        """Whether the softmax over views is a compiled loop; the first picture or step then waits for the compiler."""
        for module in self.modules():
            if isinstance(module, ViewTransformer):
                module.mix = compiled_mix() if compiled else mix_views

    def encode(self, views: SourceViews) -> SourceViews:
        """The views with maps of the image encoder."""
        return views._replace(maps=self.feature_net(views.images))

    def fold(self) -> Folded:
        """What follows from the weights alone; good until they change."""
        last = self.net_coarse.rgbfeat_fc.second
        return Folded(self.net_coarse.fold(), {name: head.fold(last) for name, head in self.feature_heads.items()})

    def render(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        depths: Float[Tensor, "R S"],
        views: SourceViews,
        with_features: bool = True,
        folded: Folded | None = None,
    ) -> dict[str, Tensor]:
        """Renders rays from samples at given depths.

        Args:
            origins: camera centres, normalised scene units.
            directions: scaled so that `depths` multiply them: of length 1 for distances along the ray, with z = 1 in
                the camera for z-depths.
            depths: of the samples, ascending.
            views: encoded source views, with tokens if features are wanted.
            with_features: render features.
            folded: of `fold`, to be computed once for many rays; made here if None.

        Returns:
            "rgb" [R,3], not clamped; "weights" [R,S], which sum to 1; "depth" [R,1], in the unit of `depths`; and
            "features" [R,F]; "features_NAME" of further heads.
        """
        points = origins[:, None] + directions[:, None] * depths[..., None]
        seen = observe(points, origins, views)
        unit = directions / directions.norm(dim=-1, keepdim=True)
        folded = folded or self.fold()
        trunk = self.net_coarse(seen, points, unit, folded.trunk)
        outputs = {
            "rgb": trunk.rgb,
            "weights": trunk.weights,
            "depth": (trunk.weights * depths).sum(dim=-1, keepdim=True),
        }
        if not with_features:
            return outputs
        relative = seen.relative
        if not self.config.head_sees_target:
            relative = ray_difference(points.reshape(-1, 3), None, views.camera_to_world[:, :, 3])
            relative = relative.view(seen.relative.shape)
        for number, (name, head) in enumerate(self.feature_heads.items()):
            teacher = observe_tokens(seen.pixels, views, number, self.config.tokens_through_image)
            outputs[name] = head(trunk, seen, teacher, relative, folded.heads[name])
        return outputs
