"""Pictures of Gaussians, and values of pixels carried back to Gaussians.

A pixel is composited front to back, in the order of the centres' depths: a Gaussian contributes alpha * transmittance,
with alpha = min(0.999, opacity * exp(-0.5 d^T conic d)) at the pixel's centre, or nothing if alpha < 1/255; the
transmittance is then multiplied by 1 - alpha. A pixel is finished before its transmittance would reach 1e-4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.gaussians import backends, checks
from semfield_ns.gaussians.projection import Projection, project, unblurred_share
from semfield_ns.gaussians.values import Gaussians


@dataclass(frozen=True)
class Rendering:
    """A picture. What was not asked for is None."""

    channels: Float[Tensor, "height width channels"]
    """sums of contributions times channels, and the background times what light it gets"""
    accumulation: Float[Tensor, "height width 1"]
    """sums of contributions, 0..1"""
    depth: Float[Tensor, "height width 1"] | None = None
    """mean depth along the optical axis, weighted by contributions, in scene units; 0 where nothing is"""
    median_depth: Float[Tensor, "height width 1"] | None = None
    """depth of the Gaussian that lets the transmittance fall below 0.5; 0 where none does. No gradient"""
    index: Int[Tensor, "height width"] | None = None
    """the Gaussian that contributes most (int64), the front one of equals; -1 where nothing is"""


def render(
    gaussians: Gaussians,
    camera_to_world: Float[Tensor, "rows 4"],
    intrinsics: Float[Tensor, "4"] | Sequence[float],
    width: int,
    height: int,
    *,
    background: Float[Tensor, "channels"] | None = None,
    depth: bool = False,
    median_depth: bool = False,
    index: bool = False,
    near: float = 0.01,
    blur: float = 0.3,
    antialiased: bool = False,
    backend: backends.Backend = "auto",
) -> Rendering:
    """A picture of Gaussians: `project`, then `rasterize`; see there. Gradients of all tensors of the Gaussians.

    With `antialiased`, those that the blur makes larger become as much more transparent (see `unblurred_share`).
    """
    gaussians = gaussians.checked()
    projection = project(
        gaussians.means,
        gaussians.quaternions,
        gaussians.scales,
        camera_to_world,
        intrinsics,
        width,
        height,
        opacities=gaussians.opacities,
        near=near,
        blur=blur,
        backend=backend,
    )
    opacities = gaussians.opacities
    if antialiased:
        opacities = opacities * unblurred_share(projection, blur)
    return rasterize(
        projection,
        opacities,
        gaussians.channels,
        background=background,
        depth=depth,
        median_depth=median_depth,
        index=index,
        backend=backend,
    )


def rasterize(
    projection: Projection,
    opacities: Float[Tensor, "gaussians"],
    channels: Float[Tensor, "gaussians channels"],
    *,
    background: Float[Tensor, "channels"] | None = None,
    depth: bool = False,
    median_depth: bool = False,
    index: bool = False,
    backend: backends.Backend = "auto",
) -> Rendering:
    """Composites projected Gaussians. Gradients of centres, conics, depths, opacities, channels and background.

    Args:
        projection: of `project`, for the same or higher opacities.
        opacities: 0..1.
        channels: of any number, also 0.
        background: seen where Gaussians let light through; None for zeros.
        depth: whether the mean depth is wanted.
        median_depth: whether the median depth is wanted.
        index: whether the index of the strongest Gaussian is wanted.
        backend: "cpu", "gsplat", or "auto": where the tensors are.

    Raises:
        SemfieldError: if shapes or devices do not fit together, or the backend is not available.
    """
    projection, opacities = _checked(projection, opacities)
    channels = checks.floats("channels", channels, (len(opacities), None), opacities)
    if background is not None:
        background = checks.floats("background", background, (channels.shape[1],), opacities)
    chosen = backends.load(backend, opacities.device)
    composited, accumulation, weighted_depth, median, strongest = chosen.rasterize(
        projection, opacities, channels, background, depth, median_depth, index
    )
    mean = None
    if weighted_depth is not None:
        mean = weighted_depth / accumulation.clamp(min=1e-10)
    return Rendering(composited, accumulation, mean, median, strongest)


def uplift(
    projection: Projection,
    opacities: Float[Tensor, "gaussians"],
    values: Float[Tensor, "height width values"],
    backend: backends.Backend = "auto",
) -> tuple[Float[Tensor, "gaussians values"], Float[Tensor, "gaussians"]]:
    """Carries values of pixels to Gaussians: the transpose of compositing channels. No gradients.

    Dividing the first by the second gives the mean value of the pixels in which a Gaussian is seen; sums of several
    views may be added before. Zeros for Gaussians that are not seen.

    Args:
        projection: of `project`, for the same or higher opacities.
        opacities: 0..1.
        values: of the pixels of the picture.
        backend: "cpu", "gsplat", or "auto": where the tensors are.

    Returns:
        For each Gaussian the sum over pixels of contribution times value, and of contributions.

    Raises:
        SemfieldError: if shapes or devices do not fit together, or the backend is not available.
    """
    projection, opacities = _checked(projection, opacities)
    values = checks.floats("values", values, (projection.height, projection.width, None), opacities)
    return backends.load(backend, opacities.device).uplift(projection, opacities.detach(), values.detach())


def _checked(projection: Projection, opacities: Tensor) -> tuple[Projection, Tensor]:
    checks.size(projection.width, projection.height)
    opacities = checks.floats("opacities", opacities, (None,))
    n = len(opacities)
    fitting = Projection(
        checks.floats("means2d", projection.means2d, (n, 2), opacities),
        checks.floats("depths", projection.depths, (n,), opacities),
        checks.floats("conics", projection.conics, (n, 3), opacities),
        checks.floats("radii", projection.radii, (n,), opacities),
        projection.width,
        projection.height,
    )
    return fitting, opacities
