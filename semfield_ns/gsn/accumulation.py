"""Losses of many rays with the memory of a few: every part's gradients are computed as soon as its losses are.

What all parts are computed from (weights, and the maps that the encoder made of the source views) is the input; the
gradient of a map is the sum over all rays, and goes through the encoder once. Nothing is computed twice.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

Losses = dict[str, Tensor]


def summed(parts: Iterable[Losses], inputs: Sequence[Tensor]) -> Losses:
    """The sum of each loss over all parts. They are functions of the inputs, and to be added up before `backward`.

    Args:
        parts: at least one, all with the same losses; each is asked for when what the one before kept is gone.
        inputs: what the losses depend on and gradients are wanted of, as far as they require any.
    """
    inputs = [value for value in inputs if value.requires_grad]
    gradients: list[Tensor | None] = [None] * len(inputs)
    totals: Losses = {}
    for losses in parts:
        device = next(iter(losses.values())).device.type
        with torch.autocast(device, enabled=False):  # of the forward pass alone
            found = torch.autograd.grad(reduce(torch.add, losses.values()), inputs, allow_unused=True)
        _add(gradients, found)
        totals = {name: totals.get(name, 0) + value.detach() for name, value in losses.items()}
    # Weights that no loss depends on keep no gradient at all, as they would otherwise.
    used = [(value, gradient) for value, gradient in zip(inputs, gradients, strict=True) if gradient is not None]
    values = _Known.apply(tuple(gradient for _, gradient in used), *totals.values(), *(value for value, _ in used))
    return dict(zip(totals, values, strict=True))


def _add(sums: list[Tensor | None], terms: Sequence[Tensor | None]) -> None:
    """Adds terms to sums, in place."""
    both = [(old, new) for old, new in zip(sums, terms, strict=True) if old is not None and new is not None]
    if both:
        torch._foreach_add_([old for old, _ in both], [new for _, new in both])
    for place, new in enumerate(terms):
        if sums[place] is None:
            sums[place] = new


class _Known(torch.autograd.Function):
    """Losses whose sum has gradients that are known already."""

    @staticmethod
    def forward(ctx: Any, gradients: tuple[Tensor, ...], *values: Tensor) -> tuple[Tensor, ...]:
        ctx.gradients, ctx.losses = gradients, len(values) - len(gradients)
        ctx.set_materialize_grads(False)
        return tuple(value.clone() for value in values[: ctx.losses])

    @staticmethod
    def backward(ctx: Any, *of_losses: Tensor | None) -> tuple[Tensor | None, ...]:
        factor = of_losses[0]
        assert factor is not None and all(each is not None for each in of_losses), "losses are added up"
        gradients = torch._foreach_mul(ctx.gradients, factor)
        return None, *[None] * ctx.losses, *gradients
