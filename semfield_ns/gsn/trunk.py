"""The trunk: what the source views show at the samples of a ray -> colour and depth of the ray (GNT, GSN).

Parameters are named as in the official `net_coarse`.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from semfield_ns.gsn.encodings import ENCODED_DIM, frequency_encoding
from semfield_ns.gsn.projection import Observations
from semfield_ns.gsn.transformers import (
    MASKED,
    FoldedViewAttention,
    RayTransformer,
    TwoLayers,
    ViewBlend,
    ViewTransformer,
    fold_view_attention,
    pool_samples,
)


class FoldedTrunk(NamedTuple):
    """Matrices that follow from the weights alone: the same for all rays of a picture."""

    first: Float[Tensor, "T shown"]
    """what views show -> codes, see `Trunk.first_codes`"""
    blocks: tuple[FoldedViewAttention, ...]
    """of the view attentions, for these codes"""
    positions: Float[Tensor, "P 63"]
    """encoded positions -> their part of the first layer of every `q_fcs`"""
    directions: Float[Tensor, "P 63"] | None
    """the same of encoded directions, where they enter the trunk"""
    positions_bias: Float[Tensor, "P"]


class TrunkOutput(NamedTuple):
    """Of R rays with S samples."""

    rgb: Float[Tensor, "R 3"]
    """not clamped"""
    weights: Float[Tensor, "R S"]
    """how much the nearest sample attends to each: they sum to 1 and serve as weights of the depth"""
    stream: Float[Tensor, "R S D"]
    """last ray transformer's output, before the norm"""
    codes: Float[Tensor, "V N T"]
    """`Trunk.first_codes`; the first D channels are what the views show, before the last layer of `rgbfeat_fc`"""


class Trunk(nn.Module):
    """View and ray transformers in turn.

    Args:
        dim: D, channels of the stream.
        blocks: number of pairs of a view and a ray transformer.
        image_dim: channels of the image features.
        heads: of the ray transformers.
        dropout: in training.
        direction_in_trunk: feed the viewing direction into every even block (GNT) instead of the colour alone (GSN).
        masked_pooling: start from the views that see a sample; the official code starts from all of them.
        weighted_samples: the colour of a ray is that of the samples which its depth is taken from, too; the official
            code takes the mean over all samples.
        blend: colours are blended from those of the views, and what the network renders is added.
    """

    def __init__(
        self,
        dim: int = 64,
        blocks: int = 4,
        image_dim: int = 32,
        heads: int = 4,
        dropout: float = 0.0,
        direction_in_trunk: bool = False,
        masked_pooling: bool = True,
        weighted_samples: bool = False,
        blend: bool = False,
    ) -> None:
        super().__init__()
        self.weighted_samples = weighted_samples
        self.dim, self.masked_pooling, self.direction_in_trunk = dim, masked_pooling, direction_in_trunk
        self.rgbfeat_fc = TwoLayers(3 + image_dim, dim, dim)
        self.view_crosstrans = nn.ModuleList(ViewTransformer(dim, dropout) for _ in range(blocks))
        self.view_selftrans = nn.ModuleList(RayTransformer(dim, heads, dropout) for _ in range(blocks))
        encoded = ENCODED_DIM * (2 if direction_in_trunk else 1)
        # As a list with holes: the official names count all blocks.
        self.q_fcs = nn.ModuleList(
            TwoLayers(dim + encoded, dim, dim) if i % 2 == 0 else nn.Identity() for i in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)
        if not direction_in_trunk:
            self.hviews_fc = TwoLayers(dim + ENCODED_DIM, dim, dim)
        self.rgb_fc = nn.Linear(dim, 3)
        self.blend = None
        if blend:
            self.blend = ViewBlend(dim + blocks * (dim // 8), dim)
            # Training starts from blended colours alone.
            nn.init.zeros_(self.rgb_fc.weight)
            nn.init.zeros_(self.rgb_fc.bias)

    def forward(
        self,
        seen: Observations,
        points: Float[Tensor, "R S 3"],
        directions: Float[Tensor, "R 3"],
        folded: FoldedTrunk,
    ) -> TrunkOutput:
        """Renders rays.

        Args:
            seen: what the source views show at the samples.
            points: the samples, normalised world coordinates, near to far.
            directions: unit viewing directions.
            folded: of these weights.
        """
        rays, samples = points.shape[:2]
        num = rays * samples
        codes = F.relu(F.linear(seen.shown.flatten(1, 2), folded.first), inplace=True)
        visible = seen.visible
        # The stream stays in single precision under autocast: blocks add to it.
        q = self.pool(codes, visible).float()
        directions_code = frequency_encoding(directions)
        position_codes = self.encode_positions(points, directions_code, folded)
        first = None
        last = len(self.view_crosstrans) - 1
        for i, (view, ray) in enumerate(zip(self.view_blocks, self.view_selftrans, strict=True)):
            q = view(q, codes, visible, folded.blocks[i])
            layer = self.q_fcs[i]
            if isinstance(layer, TwoLayers):
                inner = F.linear(q, layer.first.weight[:, : self.dim]) + position_codes[i // 2].reshape(num, -1)
                q = layer.second(F.relu(inner, inplace=True)).float()
            stream, first = ray(q.view(rays, samples, -1), with_first_row=i == last)
            q = stream.reshape(num, -1)
        stream = q.view(rays, samples, -1)
        assert first is not None
        pooled = first if self.weighted_samples else None
        rgb = self.color(stream, directions_code, pooled).float()
        if self.blend is not None:
            colors = seen.colors.reshape(-1, num, 3)
            blended = self.blend(codes, q, visible, colors).view(rays, samples, 3)
            rgb = rgb + pool_samples(blended, pooled)
        return TrunkOutput(rgb, first, stream, codes)

    @property
    def view_blocks(self) -> list[ViewTransformer]:
        """The view transformers."""
        return cast(list[ViewTransformer], list(self.view_crosstrans))

    def fold(self) -> FoldedTrunk:
        """Multiplies out and joins what does not depend on rays."""
        layers = [layer.first for layer in self.q_fcs if isinstance(layer, TwoLayers)]
        middle, end = self.dim, self.dim + ENCODED_DIM
        directions = torch.cat([layer.weight[:, end:] for layer in layers]) if self.direction_in_trunk else None
        return FoldedTrunk(
            self.first_codes(),
            tuple(self.fold_block(block) for block in range(len(self.view_crosstrans))),
            torch.cat([layer.weight[:, middle:end] for layer in layers]),
            directions,
            torch.cat([layer.bias for layer in layers]),
        )

    def first_codes(self) -> Float[Tensor, "T shown"]:
        """What each view shows -> codes [D] of it, followed by those [D/8] of the direction for every block.

        One product for the first layers of `rgbfeat_fc` and of all position codes, which are small.
        """
        first = self.rgbfeat_fc.first
        positions = [block.attn.pos_fc.first for block in self.view_blocks]
        weight = torch.block_diag(first.weight, torch.cat([layer.weight for layer in positions]))
        # What is shown ends with a 1: constants are a column, not a pass over the result.
        bias = torch.cat([first.bias, *(layer.bias for layer in positions)])
        return torch.cat([weight, bias[:, None]], dim=1)

    def fold_block(self, block: int) -> FoldedViewAttention:
        """The folded view attention of a block, for the codes."""
        last = self.rgbfeat_fc.second
        layer = self.view_blocks[block].attn
        with torch.autocast(last.weight.device.type, enabled=False):
            folded = fold_view_attention(layer, last.weight, last.bias)
        # Codes of the other blocks' directions get zeros.
        width, count = self.dim // 8, len(self.view_crosstrans)
        values = folded.values
        rows = values.shape[0]
        parts = [values[:, : self.dim], values.new_zeros(rows, block * width), values[:, self.dim :]]
        parts.append(values.new_zeros(rows, (count - 1 - block) * width))
        return folded._replace(values=torch.cat(parts, dim=1))

    def pool(self, codes: Float[Tensor, "V N T"], visible: Float[Tensor, "V N 1"]) -> Float[Tensor, "N D"]:
        """The stream's start: the largest entry over views; zero where a mask is used and no view sees the sample."""
        last = self.rgbfeat_fc.second
        shown = codes.flatten(0, 1)[:, : self.dim]  # two dimensions: a product of rows of a wider matrix needs no copy
        keys = F.linear(shown, last.weight).view(*codes.shape[:2], -1)
        largest, nobody = max_over_views(keys, visible if self.masked_pooling else None)
        largest = largest + last.bias
        return largest if nobody is None else largest.masked_fill(nobody, 0.0)

    def encode_positions(self, points: Tensor, directions_code: Tensor, folded: FoldedTrunk) -> list[Tensor]:
        """The encodings' part of the first layer of every `q_fcs`, each [R, S, D]."""
        with torch.autocast(points.device.type, enabled=False):  # positions among the encodings are not in [-1, 1]
            coded = F.linear(frequency_encoding(points), folded.positions, folded.positions_bias)
        if folded.directions is not None:
            coded = coded + F.linear(directions_code, folded.directions)[:, None]
        return list(coded.split(self.dim, dim=-1))

    def color(
        self,
        stream: Float[Tensor, "R S D"],
        directions_code: Float[Tensor, "R 63"],
        weights: Float[Tensor, "R S"] | None,
    ) -> Float[Tensor, "R 3"]:
        """Colour of rays. What is linear is done after the mean over samples."""
        h = self.norm(stream)
        if self.direction_in_trunk:
            return self.rgb_fc(pool_samples(h, weights))
        first, second = self.hviews_fc.first, self.hviews_fc.second
        direction = F.linear(directions_code, first.weight[:, self.dim :], first.bias)
        hidden = F.relu(F.linear(h, first.weight[:, : self.dim]) + direction[:, None], inplace=True)
        return self.rgb_fc(second(pool_samples(hidden, weights)))


def max_over_views(
    x: Float[Tensor, "V N D"], visible: Float[Tensor, "V N 1"] | None
) -> tuple[Float[Tensor, "N D"], Bool[Tensor, "N 1"] | None]:
    """Largest entry over the views; over those that see the sample if that is given, and where none does."""
    if visible is None:
        return x.amax(dim=0), None
    nobody = visible.amax(dim=0) == 0
    return (x + MASKED * (1 - visible)).amax(dim=0).masked_fill(nobody, 0.0), nobody
