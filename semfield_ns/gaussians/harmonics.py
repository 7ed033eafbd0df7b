"""Colours that depend on the direction of view: real spherical harmonics as 3-D Gaussian splatting stores them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.errors import SemfieldError

MAX_DEGREE = 3
CONSTANT = 0.28209479177387814
"""The harmonic of degree 0: 1 / (2 sqrt(pi))."""


def harmonics(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch terms"]:
    """The (degree + 1)^2 values of the basis, in the order and with the signs of 3-D Gaussian splatting.

    Args:
        directions: of unit length, in world coordinates, from the camera to the Gaussian.
        degree: 0 to 3.

    Raises:
        SemfieldError: for another degree.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise SemfieldError(f"Spherical harmonics of degree {degree}: it has to be from 0 to {MAX_DEGREE}.")
    x, y, z = directions.unbind(dim=-1)
    terms = [torch.full_like(x, CONSTANT)]
    if degree >= 1:
        terms += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        terms += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        terms += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(terms, dim=-1)


def colours(
    coefficients: Float[Tensor, "gaussians terms channels"],
    means: Float[Tensor, "gaussians 3"],
    camera_to_world: Float[Tensor, "rows 4"],
    degree: int | None = None,
) -> Float[Tensor, "gaussians channels"]:
    """Colours of Gaussians seen from a camera: the harmonics' sum + 0.5, not below 0; differentiable.

    Args:
        coefficients: for 1, 4, 9 or 16 terms of the basis.
        means: centres in world coordinates.
        camera_to_world: OpenGL pose.
        degree: highest degree to use, lower than there are coefficients for while training begins; None for all.

    Raises:
        SemfieldError: if there are too few coefficients for the degree, or another number than above.
    """
    stored = {1: 0, 4: 1, 9: 2, 16: 3}.get(coefficients.shape[1])
    if stored is None or (degree is not None and degree > stored):
        raise SemfieldError(
            f"Spherical harmonics of degree {degree}: {coefficients.shape[1]} coefficients of a Gaussian; "
            "1, 4, 9 or 16 are needed for degrees 0 to 3."
        )
    degree = stored if degree is None else degree
    if degree == 0:
        return (coefficients[:, 0] * CONSTANT + 0.5).clamp(min=0)
    basis = harmonics(F.normalize(means - camera_to_world[:3, 3], dim=-1), degree)
    return (torch.einsum("nk,nkc->nc", basis, coefficients[:, : basis.shape[-1]]) + 0.5).clamp(min=0)


def coefficients_of(colour: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
    """The coefficients of degree 0 that give a colour, the same from every side."""
    return (colour - 0.5) / CONSTANT
