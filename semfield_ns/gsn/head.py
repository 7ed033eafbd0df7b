"""The feature head: the trunk's stream and the teacher's features of the source views -> a feature of the ray.

GSN's feature is an interpolation of the teacher's features of the source images, learned over many views, which is why
it is cleaner than its teacher. Parameters are named as in the official `dino`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semfield_ns.gsn.projection import Observations
from semfield_ns.gsn.transformers import (
    FoldedViewAttention,
    RayTransformer,
    ViewBlend,
    ViewTransformer,
    fold_view_attention,
    pool_samples,
)
from semfield_ns.gsn.trunk import TrunkOutput, max_over_views


class FeatureHead(nn.Module):
    """One view and one ray transformer on stream and teacher features together.

    Args:
        dim: channels of the trunk's stream.
        feature_dim: channels of the teacher's features, which are also those of the result.
        heads: of the ray transformer.
        dropout: in training.
        masked_pooling: see `Trunk`, as for the next two.
        weighted_samples: of features instead of colours.
        blend: of teacher features instead of colours.
    """

    def __init__(
        self,
        dim: int = 64,
        feature_dim: int = 64,
        heads: int = 4,
        dropout: float = 0.0,
        masked_pooling: bool = True,
        weighted_samples: bool = False,
        blend: bool = False,
    ) -> None:
        super().__init__()
        self.weighted_samples = weighted_samples
        inner = dim + feature_dim
        self.dim, self.masked_pooling = dim, masked_pooling
        self.view_trans = ViewTransformer(inner, dropout)
        self.ray_trans = RayTransformer(inner, heads, dropout)
        self.norm = nn.LayerNorm(inner)
        self.dinofc = nn.Linear(inner, feature_dim)
        self.blend = None
        if blend:
            self.blend = ViewBlend(inner + inner // 8, inner)
            nn.init.zeros_(self.dinofc.weight)
            nn.init.zeros_(self.dinofc.bias)

    def forward(
        self,
        trunk: TrunkOutput,
        seen: Observations,
        teacher: Float[Tensor, "V N F"],
        relative: Float[Tensor, "V R S 4"],
        folded: FoldedViewAttention,
    ) -> Float[Tensor, "R F"]:
        """Features of rays.

        Args:
            trunk: its output for the same samples.
            seen: what the source views show there.
            teacher: its features there.
            relative: directions of the source views at the samples, relative to the target or not.
            folded: of these weights, from `fold`.
        """
        rays, samples = trunk.stream.shape[:2]
        num, views = rays * samples, len(teacher)
        visible = seen.visible
        pooled, _ = max_over_views(teacher, visible if self.masked_pooling else None)
        q = torch.cat([trunk.stream.reshape(num, -1).float(), pooled.float()], dim=-1)
        direction = F.relu(self.view_trans.attn.pos_fc.first(relative.reshape(views, num, 4)))
        codes = torch.cat([trunk.codes[..., : self.dim], teacher.to(direction.dtype), direction], dim=-1)
        q = self.view_trans(q, codes, visible, folded)
        stream, _ = self.ray_trans(q.view(rays, samples, -1))
        weights = trunk.weights if self.weighted_samples else None
        # The mean over samples may be taken first: what follows is linear.
        features = self.dinofc(pool_samples(self.norm(stream), weights)).float()
        if self.blend is not None:
            blended = self.blend(codes, stream.reshape(num, -1), visible, teacher).view(rays, samples, -1)
            features = features + pool_samples(blended, weights)
        return features

    def fold(self, last: nn.Linear) -> FoldedViewAttention:
        """The folded view attention for [codes of the trunk, teacher features, direction codes].

        Args:
            last: the last layer of the trunk's `rgbfeat_fc`, which turns the trunk's codes into K.
        """
        feature_dim = self.dinofc.out_features
        with torch.autocast(last.weight.device.type, enabled=False):
            identity = torch.eye(feature_dim, device=last.weight.device)
            key = torch.block_diag(last.weight, identity)
            bias = F.pad(last.bias, (0, feature_dim))
            return fold_view_attention(self.view_trans.attn, key, bias)
