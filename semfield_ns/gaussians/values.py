"""Gaussians in space as plain tensors: put together, chosen among, moved."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.gaussians.checks import floats


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in world coordinates, in the units of the scene; nothing is stored as a logit or logarithm.

    Gradients flow through every tensor. Shapes are checked where they are rendered.
    """

    means: Float[Tensor, "gaussians 3"]
    """centres"""
    quaternions: Float[Tensor, "gaussians 4"]
    """rotations from own axes to the world's, w first, of any length but zero"""
    scales: Float[Tensor, "gaussians 3"]
    """standard deviations along the own axes, positive"""
    opacities: Float[Tensor, "gaussians"]
    """of the centre, 0..1"""
    channels: Float[Tensor, "gaussians channels"]
    """what is composited: colours, features, logits"""

    def __len__(self) -> int:
        return len(self.means)

    def select(self, which: Bool[Tensor, "gaussians"] | Int[Tensor, "chosen"]) -> "Gaussians":
        """The Gaussians under a mask, or with these indices."""
        return Gaussians(*(getattr(self, field.name)[which] for field in fields(self)))

    def with_channels(self, channels: Float[Tensor, "gaussians others"]) -> "Gaussians":
        """The same shapes with other channels."""
        return replace(self, channels=channels)

    def to(self, device: torch.device | str) -> "Gaussians":
        return Gaussians(*(getattr(self, field.name).to(device) for field in fields(self)))

    def detach(self) -> "Gaussians":
        return Gaussians(*(getattr(self, field.name).detach() for field in fields(self)))

    def transformed(
        self,
        rotations: Float[Tensor, "*gaussians 4"] | None = None,
        translations: Float[Tensor, "*gaussians 3"] | None = None,
        factors: Float[Tensor, "*gaussians"] | float = 1.0,
    ) -> "Gaussians":
        """Enlarges about the origin, then rotates about it, then shifts: x -> R (factor x) + translation.

        Args:
            rotations: quaternions, w first, one or one for each Gaussian; None for none. Directions that channels
                depend on (spherical harmonics) are not turned.
            translations: in world coordinates, one or one for each Gaussian; None for none.
            factors: positive, one or one for each Gaussian.
        """
        enlarged = torch.as_tensor(factors, dtype=self.means.dtype, device=self.means.device)[..., None]
        means, quaternions = self.means * enlarged, self.quaternions
        if rotations is not None:
            means = (rotation_matrices(rotations) @ means[..., None])[..., 0]
            quaternions = multiply(F.normalize(rotations, dim=-1), quaternions)
        if translations is not None:
            means = means + translations
        return replace(self, means=means, quaternions=quaternions, scales=self.scales * enlarged)

    def checked(self) -> "Gaussians":
        """The same as float32.

        Raises:
            SemfieldError: if shapes or devices do not fit together, or numbers are integers.
        """
        means = floats("means", self.means, (None, 3))
        n = len(means)
        return Gaussians(
            means,
            floats("quaternions", self.quaternions, (n, 4), means),
            floats("scales", self.scales, (n, 3), means),
            floats("opacities", self.opacities, (n,), means),
            floats("channels", self.channels, (n, None), means),
        )


def concatenate(parts: Sequence[Gaussians]) -> Gaussians:
    """All Gaussians of all parts, in this order; the parts have equally many channels."""
    return Gaussians(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Gaussians)))


def multiply(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The product of quaternions, w first: the rotation b, then the rotation a."""
    aw, ax, ay, az = a.unbind(dim=-1)
    bw, bx, by, bz = b.unbind(dim=-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def rotation_matrices(quaternions: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotations of quaternions (w first, of any length but zero)."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(dim=-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def covariances(
    quaternions: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """Covariance matrices in world coordinates, in squared scene units."""
    half = rotation_matrices(quaternions) * scales[..., None, :]
    return half @ half.transpose(-1, -2)
