"""View and ray transformers: their parameters under the official names, and their arithmetic with fewer operations.

The official view attention forms, for every sample and source view, k = Wk K, v = Wv k, a position code
p = P2 relu(P1 d) and the hidden layer relu(A (k - q + p) + a) of its logits. None of these needs to exist: A is linear,
so with T = [relu codes of K, relu(P1 d)] one product gives v + p and A (k + p) at once ("folding", see
`FoldedViewAttention`). The numbers are the same up to rounding; tests compare them with a plain implementation.

Shapes: V source views first (the softmax over views is then a sum of whole planes), N = rays x samples, R rays,
S samples a ray, D channels of the stream.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MASKED = -1e9
"""Logit of a view that does not see a sample. Where no view does, all weigh the same."""

Mix = Callable[[Tensor, Tensor], Tensor]
"""Logits and values [V, N, D] to weighted values [N, D]."""

_NORM_EPS = 1e-6  # pre-norms of the official code; its last norms have PyTorch's default


class TwoLayers(nn.Sequential):
    """Linear, ReLU, Linear, under the names 0 and 2 of a `Sequential`."""

    def __init__(self, inner: int, hidden: int, outer: int) -> None:
        super().__init__(nn.Linear(inner, hidden), nn.ReLU(), nn.Linear(hidden, outer))

    @property
    def first(self) -> nn.Linear:
        """The layer before the ReLU."""
        return cast(nn.Linear, self[0])

    @property
    def second(self) -> nn.Linear:
        """The layer after the ReLU."""
        return cast(nn.Linear, self[2])


class FeedForward(nn.Module):
    """Two layers with four times as many hidden channels."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """The update, to be added to the stream."""
        hidden = F.dropout(
            F.relu(F.linear(x, self.fc1.weight, self.fc1.bias), inplace=True), self.dropout, self.training
        )
        return F.dropout(F.linear(hidden, self.fc2.weight, self.fc2.bias), self.dropout, self.training)


class ViewAttention(nn.Module):
    """Parameters of subtraction attention over source views (see the module's docstring for what they do)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_fc, self.k_fc, self.v_fc = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.pos_fc = TwoLayers(4, dim // 8, dim)
        self.attn_fc = TwoLayers(dim, dim // 8, dim)
        self.out_fc = nn.Linear(dim, dim)


class FoldedViewAttention(NamedTuple):
    """The matrices of one view attention, multiplied out."""

    values: Float[Tensor, "D_plus_hidden T"]
    """codes of a view -> v + p, and A (k + p), both without their constants"""
    values_bias: Float[Tensor, "D"]
    """constant of v + p; the weights of the views sum to 1, so it is added once, after the sum"""
    query: Float[Tensor, "hidden D"]
    """normed stream -> A q"""
    query_bias: Float[Tensor, "hidden"]
    """constants of A (k - q + p) + a, with the query's sign"""
    logits: Float[Tensor, "D hidden"]
    """without a constant, which a softmax over views does not see"""


def fold_view_attention(
    layer: ViewAttention, key: Float[Tensor, "D codes"], key_bias: Float[Tensor, "D"]
) -> FoldedViewAttention:
    """Multiplies the matrices of a layer out.

    Args:
        layer: its parameters.
        key: K = key @ codes + key_bias; K itself is not needed either.
        key_bias: see `key`.

    Returns:
        Matrices that act on [codes, relu(P1 d)], in this order.
    """
    second = layer.pos_fc.second
    hidden, out = layer.attn_fc.first, layer.attn_fc.second
    wk = layer.k_fc.weight @ key
    bk = layer.k_fc.weight @ key_bias
    value = torch.cat([layer.v_fc.weight @ wk, second.weight], dim=1)
    logit = torch.cat([hidden.weight @ wk, hidden.weight @ second.weight], dim=1)
    return FoldedViewAttention(
        torch.cat([value, logit]),
        layer.v_fc.weight @ bk + second.bias,
        hidden.weight @ layer.q_fc.weight,
        -(hidden.weight @ (bk + second.bias) + hidden.bias),
        out.weight,
    )


class ViewTransformer(nn.Module):
    """Lets every sample gather from the source views that see it, then a feed-forward layer."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attn_norm, self.ff_norm = nn.LayerNorm(dim, eps=_NORM_EPS), nn.LayerNorm(dim, eps=_NORM_EPS)
        self.ff = FeedForward(dim, dropout)
        self.attn = ViewAttention(dim)
        self.dropout = dropout
        self.mix: Mix = mix_views

    def forward(
        self,
        q: Float[Tensor, "N D"],
        codes: Float[Tensor, "V N T"],
        visible: Float[Tensor, "V N 1"],
        folded: FoldedViewAttention,
    ) -> Float[Tensor, "N D"]:
        """The stream after this block.

        Args:
            q: the stream.
            codes: what the views show, for all blocks the same.
            visible: 1 where a view sees a sample, else 0.
            folded: of `self.attn`, for these codes.
        """
        query = F.linear(self.attn_norm(q), folded.query, folded.query_bias)
        dropout = self.dropout if self.training else 0.0
        gathered = attend_views(query, codes, visible, folded, self.mix, dropout)
        update = F.linear(gathered, self.attn.out_fc.weight, self.attn.out_fc.bias)
        q = q + F.dropout(update, self.dropout, self.training)
        return q + self.ff(self.ff_norm(q))


def attend_views(
    query: Float[Tensor, "N hidden"],
    codes: Float[Tensor, "V N T"],
    visible: Float[Tensor, "V N 1"],
    folded: FoldedViewAttention,
    mix: Mix,
    dropout: float = 0.0,
) -> Float[Tensor, "N D"]:
    """Sum over views of (v + p) times a softmax over views, for every channel by itself."""
    dim = folded.logits.shape[0]
    both = F.linear(codes, folded.values)
    values, pre = both[..., :dim], both[..., dim:]
    # Hidden views are masked in the few hidden channels and by what the product is added to: no pass over the logits.
    visible = visible.to(pre.dtype)
    inner = F.relu((pre - query.to(pre.dtype)).mul_(visible), inplace=True)
    # A finite number in float16 too: a softmax over nothing but infinities is no number.
    masked = max(MASKED, torch.finfo(pre.dtype).min) * (1 - visible)
    logits = torch.addmm(masked.view(-1, 1), inner.flatten(0, 1), folded.logits.T.to(pre.dtype)).view(values.shape)
    if dropout > 0:
        weights = F.dropout(torch.softmax(logits, dim=0), dropout)
        return (weights * (values + folded.values_bias)).sum(dim=0)
    return mix(logits, values) + folded.values_bias


def mix_views(logits: Float[Tensor, "V N D"], values: Float[Tensor, "V N D"]) -> Float[Tensor, "N D"]:
    """The values, weighted by a softmax over views."""
    return (torch.softmax(logits, dim=0) * values).sum(dim=0)


@cache
def compiled_mix() -> Mix:
    """`mix_views`, compiled for any number of samples and views at its first call: half a minute, kept on disk."""
    return torch.compile(mix_views, dynamic=True)


class RayAttention(nn.Module):
    """Ordinary attention over the samples of a ray."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.q_fc, self.k_fc, self.v_fc = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out_fc = nn.Linear(dim, dim)
        self.heads, self.dropout = heads, dropout

    def forward(
        self, x: Float[Tensor, "R S D"], with_first_row: bool = False
    ) -> tuple[Float[Tensor, "R S D"], Float[Tensor, "R S"] | None]:
        """The update, and if asked the attention of the first sample, averaged over heads (it sums to 1)."""
        rays, samples, dim = x.shape
        joint = torch.cat([self.q_fc.weight, self.k_fc.weight, self.v_fc.weight])
        qkv = F.linear(x, joint).view(rays, samples, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        mixed = mixed.transpose(1, 2).reshape(rays, samples, dim)
        out = F.dropout(F.linear(mixed, self.out_fc.weight, self.out_fc.bias), self.dropout, self.training)
        first = None
        if with_first_row:
            scores = (q[:, :, :1].float() * k.float()).sum(dim=-1) / (dim // self.heads) ** 0.5
            first = scores.softmax(dim=-1).mean(dim=1)
        return out, first


class RayTransformer(nn.Module):
    """Lets the samples of a ray see each other, then a feed-forward layer."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn_norm, self.ff_norm = nn.LayerNorm(dim, eps=_NORM_EPS), nn.LayerNorm(dim, eps=_NORM_EPS)
        self.ff = FeedForward(dim, dropout)
        self.attn = RayAttention(dim, heads, dropout)

    def forward(
        self, q: Float[Tensor, "R S D"], with_first_row: bool = False
    ) -> tuple[Float[Tensor, "R S D"], Float[Tensor, "R S"] | None]:
        """The stream after this block, and what `RayAttention` gives."""
        update, first = self.attn(self.attn_norm(q), with_first_row)
        q = q + update
        return q + self.ff(self.ff_norm(q)), first


class ViewBlend(nn.Module):
    """Picks, for every sample, among the views: a convex combination of what they show.

    A colour or a feature that is copied from the right view needs little learning and stays sharp; what is rendered
    from the stream is added to it. Not part of the official network.

    Args:
        codes_dim: channels of a view's codes.
        dim: channels of the stream.
    """

    def __init__(self, codes_dim: int, dim: int) -> None:
        super().__init__()
        self.key = nn.Linear(codes_dim, dim // 4, bias=False)
        self.query = nn.Linear(dim, dim // 4)
        self.out = nn.Linear(dim // 4, 1)

    def forward(
        self,
        codes: Float[Tensor, "V N T"],
        stream: Float[Tensor, "N D"],
        visible: Float[Tensor, "V N 1"],
        shown: Float[Tensor, "V N C"],
    ) -> Float[Tensor, "N C"]:
        """The blended values of `shown`."""
        logits = self.out(F.relu(self.key(codes) + self.query(stream))).float()
        weights = torch.softmax(logits.masked_fill(visible == 0, MASKED), dim=0)
        return (weights * shown).sum(dim=0)


def pool_samples(x: Float[Tensor, "R S D"], weights: Float[Tensor, "R S"] | None) -> Float[Tensor, "R D"]:
    """The mean over the samples of rays, weighted if weights (which sum to 1) are given."""
    if weights is None:
        return x.mean(dim=1)
    return (weights[..., None].to(x.dtype) * x).sum(dim=1)
