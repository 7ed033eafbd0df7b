"""Gaussians in space to Gaussians in a picture (EWA splatting, with gsplat's conventions)."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from semfield_ns.gaussians import backends, checks


@dataclass(frozen=True)
class Projection:
    """N Gaussians in a picture of width x height pixels; those that are not seen have zeros."""

    means2d: Float[Tensor, "gaussians 2"]
    """centres in pixels: x right, y down, the centre of the first pixel is (0.5, 0.5)"""
    depths: Float[Tensor, "gaussians"]
    """of the centres along the optical axis, in scene units"""
    conics: Float[Tensor, "gaussians 3"]
    """the inverse covariance [[a, b], [b, c]] as a, b, c, in 1 / px^2"""
    radii: Float[Tensor, "gaussians"]
    """pixels from the centre beyond which opacities are below 1/255, rounded up; 0 if not seen. No gradient"""
    width: int
    height: int


def project(
    means: Float[Tensor, "gaussians 3"],
    quaternions: Float[Tensor, "gaussians 4"],
    scales: Float[Tensor, "gaussians 3"],
    camera_to_world: Float[Tensor, "rows 4"],
    intrinsics: Float[Tensor, "4"] | Sequence[float],
    width: int,
    height: int,
    opacities: Float[Tensor, "gaussians"] | None = None,
    near: float = 0.01,
    blur: float = 0.3,
    backend: backends.Backend = "auto",
) -> Projection:
    """Projects Gaussians into a pinhole camera. Gradients of means, quaternions and scales.

    The projection is linearised at each centre, or at 1.3 times the half field of view if the centre is further out.
    Not seen are Gaussians nearer than `near`, outside the picture, too transparent, or with numbers that are not
    finite.

    Args:
        means: centres in world coordinates.
        quaternions: rotations, w first, of any length but zero.
        scales: standard deviations along the own axes.
        camera_to_world: OpenGL pose, 3x4 or 4x4. No gradient.
        intrinsics: fx, fy, cx, cy in pixels. No gradient.
        width: of the picture in pixels.
        height: of the picture in pixels.
        opacities: makes the radii tight; without them all are taken to be opaque. No gradient.
        near: smallest depth that is seen, in scene units.
        blur: added to both variances, in px^2, so that no Gaussian is thinner than a pixel.
        backend: "cpu", "gsplat", or "auto": where the tensors are.

    Raises:
        SemfieldError: if shapes or devices do not fit together, the camera is unusable or the backend not available.
    """
    means = checks.floats("means", means, (None, 3))
    n = len(means)
    quaternions = checks.floats("quaternions", quaternions, (n, 4), means)
    scales = checks.floats("scales", scales, (n, 3), means)
    if opacities is not None:
        opacities = checks.floats("opacities", opacities, (n,), means).detach()
    checks.size(width, height)
    pose, numbers = checks.camera(camera_to_world, intrinsics)
    chosen = backends.load(backend, means.device)
    means2d, depths, conics, radii = chosen.project(
        means, quaternions, scales, opacities, pose, numbers, width, height, near, blur
    )
    return Projection(means2d, depths, conics, radii, width, height)


def unblurred_share(projection: Projection, blur: float = 0.3) -> Float[Tensor, "gaussians"]:
    """By how much the blur of `project` spreads each Gaussian: sqrt(det before / det after), 0..1.

    Opacities times this are what anti-aliased splats are trained with (Mip-Splatting; `antialiased` of gsplat).

    Args:
        projection: of `project`.
        blur: that it was made with, px^2.
    """
    a, b, c = projection.conics.unbind(dim=-1)
    # det(C - blur I) / det(C), by the inverse of C.
    return (1 - blur * (a + c) + blur**2 * (a * c - b * b)).clamp(min=0).sqrt()
