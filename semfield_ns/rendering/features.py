"""Principal axes of features, and features as colour along axes that are fitted once, so that videos do not flicker."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MAX_SAMPLES = 20_000
LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98


def principal_axes(covariance: Float[Tensor, "C C"], dim: int) -> tuple[Float[Tensor, "C K"], Float[Tensor, "K"]]:
    """Eigenvectors of the K = min(dim, C) largest eigenvalues, as columns, and these, falling.

    An eigenvector is known up to its sign: its largest entry is made positive, so that every machine agrees.
    """
    values, vectors = torch.linalg.eigh(covariance)
    basis = vectors.flip(-1)[:, :dim]
    largest = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
    return basis * torch.where(largest < 0, -1.0, 1.0), values.flip(-1)[:dim].clamp(min=0)


class FixedPCA(nn.Module):
    """The three main directions of a set of features, kept as buffers and therefore in checkpoints.

    Args:
        dim: D, the number of feature channels.
    """

    mean: Tensor
    basis: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("basis", torch.eye(dim, 3))
        self.register_buffer("low", torch.zeros(3))
        self.register_buffer("high", torch.ones(3))

    @torch.no_grad()
    def fit(self, features: Float[Tensor, "*batch D"], seed: int = 0) -> "FixedPCA":
        """Sets the projection from samples.

        Args:
            features: samples of any batch shape; those that are not finite are left out, and of many a seeded random
                subset is used.
            seed: of that subset.

        Returns:
            This module.

        Raises:
            ValueError: the number of channels is not D, or no sample is finite.
        """
        dim = self.mean.shape[0]
        if features.shape[-1] != dim:
            raise ValueError(f"FixedPCA was made for {dim} channels, but the features have {features.shape[-1]}.")
        # Double precision on the CPU: a few megabytes at most, and the same answer on every machine.
        samples = features.detach().reshape(-1, dim)
        if len(samples) > 4 * MAX_SAMPLES:
            # They may lie on disk: look at some only.
            generator = torch.Generator().manual_seed(seed)
            samples = samples[torch.randint(len(samples), (2 * MAX_SAMPLES,), generator=generator).to(samples.device)]
        samples = samples.double().cpu()
        samples = samples[samples.isfinite().all(dim=-1)]
        if len(samples) == 0:
            raise ValueError("FixedPCA needs at least one finite feature.")
        if len(samples) > MAX_SAMPLES:
            generator = torch.Generator().manual_seed(seed)
            samples = samples[torch.randperm(len(samples), generator=generator)[:MAX_SAMPLES]]

        mean = samples.mean(dim=0)
        centred = samples - mean
        basis, _ = principal_axes(centred.T @ centred, 3)
        basis = nn.functional.pad(basis, (0, 3 - basis.shape[1]))

        quantiles = torch.tensor([LOW_QUANTILE, HIGH_QUANTILE], dtype=torch.float64)
        low, high = torch.quantile(centred @ basis, quantiles, dim=0)
        for buffer, value in ((self.mean, mean), (self.basis, basis), (self.low, low), (self.high, high)):
            buffer.copy_(value)
        return self

    def forward(self, features: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch 3"]:
        """Colours in [0, 1], float32; a direction without spread, and whatever is not finite, becomes middle grey."""
        projected = (features.float() - self.mean) @ self.basis
        spread = self.high - self.low
        has_spread = spread > 1e-8
        colors = (projected - self.low) / torch.where(has_spread, spread, 1.0)
        return torch.where(has_spread & colors.isfinite(), colors, 0.5).clamp(0.0, 1.0)
