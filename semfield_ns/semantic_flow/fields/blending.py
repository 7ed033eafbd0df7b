"""Volume rendering weights of a static and a dynamic branch that share a ray (paper, equation of the blending)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class BlendedWeights:
    """What every sample adds to its ray."""

    static: Float[Tensor, "*rays samples 1"]
    """`T a_s (1 - b)`."""
    dynamic: Float[Tensor, "*rays samples 1"]
    """`T a_d b`."""

    @cached_property
    def total(self) -> Float[Tensor, "*rays samples 1"]:
        """Weight of the sample as a whole; its sum along the ray is the accumulation."""
        return self.static + self.dynamic


def alpha(density: Float[Tensor, "*rays samples 1"], deltas: Float[Tensor, "*rays samples 1"]) -> Tensor:
    """Opacity `1 - exp(-density delta)` of a sample of length `deltas`; densities are not negative."""
    return Opacity.apply(density, deltas)


class Opacity(torch.autograd.Function):
    """`alpha`, with a gradient for the density alone, in few kernels."""

    @staticmethod
    def forward(
        ctx: Any, density: Float[Tensor, "*rays samples 1"], deltas: Float[Tensor, "*rays samples 1"]
    ) -> Float[Tensor, "*rays samples 1"]:
        """Without gradients."""
        # A density that has run over to infinity is opaque at any length but 0, where it would not be a number.
        passed = torch.exp(density.clamp(max=min(1e12, torch.finfo(density.dtype).max)) * -deltas)
        ctx.save_for_backward(passed, deltas)
        return 1 - passed

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "*rays samples 1"]) -> tuple[Float[Tensor, "*rays samples 1"], None]:
        """What passes, times the length."""
        passed, deltas = ctx.saved_tensors
        return gradient * passed * deltas, None


def blend(
    alpha_static: Float[Tensor, "*rays samples 1"],
    alpha_dynamic: Float[Tensor, "*rays samples 1"],
    blending: Float[Tensor, "*rays samples 1"],
) -> BlendedWeights:
    """Weights with transmittance `T = prod (1 - a_d b)(1 - a_s (1 - b))` over the samples before.

    Args:
        alpha_static: opacities of the static branch, near to far.
        alpha_dynamic: opacities of the dynamic branch.
        blending: b in [0, 1]; 1 means dynamic.
    """
    static, dynamic = alpha_static * (1 - blending), alpha_dynamic * blending
    transmittance = exclusive_product((1 - dynamic) * (1 - static))
    return BlendedWeights(static=transmittance * static, dynamic=transmittance * dynamic)


def all_weights(
    alpha_static: Float[Tensor, "*rays samples 1"],
    alpha_dynamic: Float[Tensor, "*rays samples 1"],
    blending: Float[Tensor, "*rays samples 1"],
) -> tuple[BlendedWeights, Float[Tensor, "*rays samples 1"], Float[Tensor, "*rays samples 1"]]:
    """`blend`, and `single_weights` of the static and of the dynamic branch, in few kernels."""
    dynamic = alpha_dynamic * blending
    static = alpha_static - alpha_static * blending
    opacities = torch.cat([static + dynamic - static * dynamic, alpha_static, alpha_dynamic], dim=-1)
    both, *alone = exclusive_product(1 - opacities).split(1, dim=-1)
    return (
        BlendedWeights(static=both * static, dynamic=both * dynamic),
        alone[0] * alpha_static,
        alone[1] * alpha_dynamic,
    )


def single_weights(alphas: Float[Tensor, "*rays samples 1"]) -> Float[Tensor, "*rays samples 1"]:
    """Weights of one branch rendered alone."""
    return exclusive_product(1 - alphas) * alphas


def exclusive_product(factors: Float[Tensor, "*rays samples renders"]) -> Float[Tensor, "*rays samples renders"]:
    """Product of the factors of the samples before each sample; 1 for the first."""
    # The sum of logarithms has a bounded gradient where a factor is zero; a cumulative product has not.
    # In single precision at least: in float16, 1e-10 is zero.
    logs = torch.log(factors.to(torch.promote_types(factors.dtype, torch.float32)).clamp(min=1e-10))
    return torch.exp(torch.cumsum(logs, dim=-2) - logs).to(factors.dtype)
