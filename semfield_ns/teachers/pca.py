"""Principal components of features, gathered image by image so that memory does not grow with their number."""

import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.rendering.features import principal_axes


class Moments:
    """Number, sum and products of features seen so far, in double precision.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.total = torch.zeros(dim, dtype=torch.float64)
        self.products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, features: Float[Tensor, "*batch C"]) -> "Moments":
        """Takes features into account."""
        x = features.reshape(-1, features.shape[-1]).double().cpu()
        self.count += len(x)
        self.total += x.sum(dim=0)
        self.products += x.T @ x
        return self

    def standardisation(self) -> tuple[Float[Tensor, "C"], Float[Tensor, "C"]]:
        """Mean and standard deviation (at least 1e-6) of each channel."""
        mean = self.total / self.count
        variance = self.products.diagonal() / self.count - mean.square()
        return mean, variance.clamp(min=0).sqrt().clamp(min=1e-6)

    def principal_axes(self, dim: int, scale: Float[Tensor, "C"]) -> tuple[Float[Tensor, "C K"], Float[Tensor, "K"]]:
        """The main directions of the features less their mean, divided by `scale`, and the variances along them.

        Args:
            dim: how many; K = min(dim, C).
            scale: of each channel.
        """
        mean = self.total / self.count
        covariance = (self.products / self.count - mean[:, None] * mean) / (scale[:, None] * scale)
        return principal_axes(covariance, dim)
