"""Flow features, flow attention and the semantic network (paper, section 3.3).

A point's semantics are read from its *flow*: one token for each frame that it visits (before, after, now), each the
image feature under the traced point there and how far the point has moved. The tokens attend to each other, and the
result, joined with the field's own feature, gives the logits.
"""

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import NeRFEncoding
from torch import Tensor, nn

TOKENS = 3


class FlowAttention(nn.Module):
    """Self-attention over the tokens of a flow, with residual and LayerNorm.

    Args:
        feature_dim: channels of an image feature.
        dim: channels of a token.
        heads: attention heads.
        displacement_frequencies: octaves of the encoding of (displacement, time difference).
        num_tokens: frames that a point visits: before, after and now, or more of its trajectory.
    """

    def __init__(
        self,
        feature_dim: int,
        dim: int = 64,
        heads: int = 4,
        displacement_frequencies: int = 4,
        num_tokens: int = TOKENS,
    ) -> None:
        super().__init__()
        self.displacement_encoding = NeRFEncoding(
            in_dim=4,
            num_frequencies=displacement_frequencies,
            min_freq_exp=-2.0,
            max_freq_exp=displacement_frequencies - 3.0,
            include_input=True,
        )
        # One channel more: whether the frame sees the traced point at all.
        self.embed = nn.Linear(feature_dim + 1 + self.displacement_encoding.get_out_dim(), dim)
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.out_dim = num_tokens * dim

    def forward(
        self,
        features: Float[Tensor, "*batch tokens feature"],
        visible: Float[Tensor, "*batch tokens 1"],
        displacements: Float[Tensor, "*batch tokens 3"],
        durations: Float[Tensor, "*batch tokens 1"],
    ) -> Float[Tensor, "*batch flow"]:
        """The flow feature of each point.

        Args:
            features: image features under the traced points, for the frames before, after and now.
            visible: 1 where that frame sees the point's pixel, else 0.
            displacements: traced point minus the point itself, world units.
            durations: the frame's time minus the point's, in frames.
        """
        moved = self.displacement_encoding(torch.cat([displacements, durations], dim=-1))
        tokens = self.embed(torch.cat([features * visible, visible, moved], dim=-1))
        attended = self._attend(tokens)
        return self.norm(tokens + attended).flatten(start_dim=-2)

    def _attend(self, tokens: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch tokens dim"]:
        """Multi-head attention; on a CPU written out: with few tokens, many small products cost more than they save."""
        query, key, value = self.project(tokens).unflatten(-1, (3, self.heads, -1)).unbind(dim=-3)
        if not tokens.is_cpu:
            return self.out(attend_by_products(query, key, value).flatten(start_dim=-2))
        logits = (query[..., :, None, :, :] * key[..., None, :, :, :]).sum(dim=-1) / query.shape[-1] ** 0.5
        weights = logits.softmax(dim=-2)
        mixed = (weights[..., None] * value[..., None, :, :, :]).sum(dim=-3)
        return self.out(mixed.flatten(start_dim=-2))


def attend_by_products(
    query: Float[Tensor, "*batch tokens heads dim"],
    key: Float[Tensor, "*batch tokens heads dim"],
    value: Float[Tensor, "*batch tokens heads dim"],
) -> Float[Tensor, "*batch tokens heads dim"]:
    """Values mixed by the attention of each head, by batched matrix products."""
    query, key, value = (part.transpose(-3, -2) for part in (query, key, value))
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ value).transpose(-3, -2)


class SemanticNetwork(nn.Module):
    """[context, field feature] -> hidden -> hidden / 2 -> class logits. Without context it is the point-based head.

    Args:
        context_dim: channels read off images (flow feature or static feature); 0 for none.
        field_dim: channels of the field's own feature.
        num_classes: logits.
        hidden: width of the first layer.
    """

    def __init__(self, context_dim: int, field_dim: int, num_classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(context_dim + field_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden // 2),
            nn.ReLU(),
            nn.Linear(hidden // 2, num_classes),
        )

    def forward(
        self, context: Float[Tensor, "*batch context"] | None, field: Float[Tensor, "*batch field"]
    ) -> Float[Tensor, "*batch classes"]:
        """Logits before the softmax."""
        return self.layers(field if context is None else torch.cat([context, field], dim=-1))
