"""Volume rendering weights of a static and a dynamic branch that share a ray (paper, equation of the blending)."""

from dataclasses import dataclass

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

    @property
    def total(self) -> Float[Tensor, "*rays samples 1"]:
        """Weight of the sample as a whole; its sum along the ray is the accumulation."""
        return self.static + self.dynamic


def alpha(density: Float[Tensor, "*rays samples 1"], deltas: Float[Tensor, "*rays samples 1"]) -> Tensor:
    """Opacity `1 - exp(-relu(density) delta)` of a sample of length `deltas`."""
    # A density that has run over to infinity is opaque at any length but 0, where it would not be a number.
    return 1 - torch.exp(-density.clamp(0, min(1e12, torch.finfo(density.dtype).max)) * deltas)


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


def single_weights(alphas: Float[Tensor, "*rays samples 1"]) -> Float[Tensor, "*rays samples 1"]:
    """Weights of one branch rendered alone."""
    return exclusive_product(1 - alphas) * alphas


def exclusive_product(factors: Float[Tensor, "*rays samples 1"]) -> Float[Tensor, "*rays samples 1"]:
    """Product of the factors of the samples before each sample; 1 for the first."""
    # The sum of logarithms has a bounded gradient where a factor is zero; a cumulative product has not.
    # In single precision at least: in float16, 1e-10 is zero.
    logs = torch.log(factors.to(torch.promote_types(factors.dtype, torch.float32)).clamp(min=1e-10))
    return torch.exp(torch.cumsum(logs, dim=-2) - logs).to(factors.dtype)
