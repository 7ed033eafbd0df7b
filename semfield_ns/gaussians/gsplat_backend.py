"""Rendering on CUDA devices with gsplat's kernels (1.4), which gsplat compiles when they are first used.

The same pictures as `cpu` makes, except that gsplat takes a Gaussian not to be seen if three standard deviations do not
reach the picture.
"""

import torch
from torch import Tensor

from semfield_ns.gaussians.projection import Projection

TILE = 16
CHANNELS_AT_ONCE = 32
"""More of them need more shared memory than some devices have."""
ALL_BATCHES = 2**31 - 1


def project(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor | None,
    pose: list[list[float]],
    intrinsics: list[float],
    width: int,
    height: int,
    near: float,
    blur: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres, depths, conics and radii; see `semfield_ns.gaussians.projection.project`."""
    from gsplat.cuda._wrapper import fully_fused_projection

    if len(means) == 0:
        return means[:, :2], means[:, 0], means, means[:, 0].detach()
    to_world = torch.tensor(pose, dtype=torch.float64)
    rotation = (to_world[:, :3] * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)).T
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3], view[:3, 3] = rotation, -rotation @ to_world[:, 3]
    fx, fy, cx, cy = intrinsics
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    # What is not finite goes behind the camera: it would be undefined what the kernels do with it.
    with torch.no_grad():
        usable = torch.isfinite(torch.cat([means, quaternions, scales], dim=-1)).all(dim=-1)
        usable &= (quaternions != 0).any(dim=-1)
        behind = (to_world[:, 3] + to_world[:, 2] * (1 + abs(near))).to(means, non_blocking=True)
    means = torch.where(usable[:, None], means, behind)
    quaternions = torch.where(usable[:, None], quaternions, torch.ones_like(quaternions))
    scales = torch.where(usable[:, None], scales, torch.ones_like(scales))
    found, means2d, depths, conics, _ = fully_fused_projection(
        means,
        None,
        quaternions,
        scales,
        view[None].to(means, non_blocking=True),
        matrix[None].to(means, non_blocking=True),
        width,
        height,
        eps2d=blur,
        near_plane=near,
    )
    seen = found[0] > 0
    if opacities is not None:
        seen = seen & (opacities >= 1 / 255) & torch.isfinite(opacities)
    # The kernels leave the values of what is not seen undefined.
    means2d = torch.where(seen[:, None], means2d[0], torch.zeros_like(means2d[0]))
    conics = torch.where(seen[:, None], conics[0], torch.zeros_like(conics[0]))
    depths = torch.where(seen, depths[0], torch.zeros_like(depths[0]))
    return means2d, depths, conics, reach(conics.detach(), opacities, seen)


def reach(conics: Tensor, opacities: Tensor | None, seen: Tensor) -> Tensor:
    """Pixels from the centre beyond which opacities are below 1/255, rounded up; 0 where not seen."""
    a, b, c = conics.double().unbind(dim=-1)
    det = (a * c - b * b).clamp(min=1e-30)
    middle = 0.5 * (a + c)
    largest = (middle + (middle * middle - det).clamp(min=0).sqrt()) / det
    opacity = torch.ones_like(a) if opacities is None else opacities.double()
    radii = (2 * (255 * opacity).clamp(min=1).log() * largest).sqrt().ceil().clamp(1, 1e6).float()
    return torch.where(seen, radii, torch.zeros_like(radii))


def _tiles(projection: Projection) -> tuple[Tensor, Tensor]:
    """Where each tile's list begins, [1, rows, columns], and the lists one behind the other."""
    from gsplat.cuda._wrapper import isect_offset_encode, isect_tiles

    columns, rows = -(-projection.width // TILE), -(-projection.height // TILE)
    with torch.no_grad():
        radii = projection.radii.clamp(0, 1e6).to(torch.int32)
        _, ids, lists = isect_tiles(projection.means2d[None], radii[None], projection.depths[None], TILE, columns, rows)
        return isect_offset_encode(ids, 1, columns, rows), lists


def _composite(
    projection: Projection, opacities: Tensor, channels: Tensor, background: Tensor | None, tiles: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Picture [H, W, C] and accumulation [H, W, 1], some channels at a time."""
    from gsplat.cuda._wrapper import rasterize_to_pixels

    parts, accumulations = [], []
    for first in range(0, max(channels.shape[1], 1), CHANNELS_AT_ONCE):
        some = channels[:, first : first + CHANNELS_AT_ONCE]
        kept = some.shape[1]
        behind = None if background is None or kept == 0 else background[None, first : first + CHANNELS_AT_ONCE]
        if kept == 0:
            some = torch.zeros_like(opacities)[:, None]
        part, alphas = rasterize_to_pixels(
            projection.means2d[None],
            projection.conics[None],
            some[None],
            opacities[None],
            projection.width,
            projection.height,
            TILE,
            *tiles,
            backgrounds=behind,
        )
        parts.append(part[0, :, :, :kept])
        accumulations.append(alphas[0])
    return torch.cat(parts, dim=-1), accumulations[0]


def rasterize(
    projection: Projection,
    opacities: Tensor,
    channels: Tensor,
    background: Tensor | None,
    depth: bool,
    median_depth: bool,
    index: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Picture, accumulation, sum of weighted depths, median depth, index; see `semfield_ns.gaussians.rasterize`."""
    height, width, num = projection.height, projection.width, channels.shape[1]
    if len(opacities) == 0:
        empty = opacities.new_zeros(height, width, 1)
        picture = empty.expand(-1, -1, num) if background is None else empty + background
        nothing = torch.full((height, width), -1, dtype=torch.int64, device=opacities.device)
        return picture, empty, empty if depth else None, empty if median_depth else None, nothing if index else None
    tiles = _tiles(projection)
    if depth:
        channels = torch.cat([channels, projection.depths[:, None]], dim=-1)
        if background is not None:
            background = torch.cat([background, background.new_zeros(1)])
    picture, accumulation = _composite(projection, opacities, channels, background, tiles)
    weighted = picture[..., num:] if depth else None
    median: Tensor | None = None
    strongest: Tensor | None = None
    if median_depth or index:
        from gsplat.cuda._wrapper import rasterize_to_indices_in_range

        with torch.no_grad():
            gaussian_ids, pixel_ids, _ = rasterize_to_indices_in_range(
                0,
                ALL_BATCHES,
                opacities.new_ones(1, height, width),
                projection.means2d[None],
                projection.conics[None],
                opacities[None],
                width,
                height,
                TILE,
                *tiles,
            )
            found = median_and_strongest(projection, opacities, gaussian_ids, pixel_ids)
        median, strongest = found[0] if median_depth else None, found[1] if index else None
    return picture[..., :num], accumulation, weighted, median, strongest


def median_and_strongest(
    projection: Projection, opacities: Tensor, gaussian_ids: Tensor, pixel_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Median depth [H, W, 1] and strongest Gaussian [H, W] from what is composited.

    Args:
        projection: of all Gaussians.
        opacities: of all Gaussians.
        gaussian_ids: Gaussians of the first pixel, front to back, of the next pixel, ...
        pixel_ids: the pixel of each of these, row by row.
    """
    height, width = projection.height, projection.width
    gaussian_ids, pixel_ids = gaussian_ids.long(), pixel_ids.long()
    x, y = (pixel_ids % width + 0.5), (pixel_ids // width + 0.5)
    dx, dy = x - projection.means2d[gaussian_ids, 0], y - projection.means2d[gaussian_ids, 1]
    a, b, c = projection.conics[gaussian_ids].unbind(dim=-1)
    alpha = (opacities[gaussian_ids] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp(max=0.999)
    # Transmittances from sums of logarithms; float64, since the sums go through all pixels.
    passed = torch.log1p(-alpha.double())
    sums = passed.cumsum(dim=0)
    numbers = torch.arange(len(pixel_ids), device=pixel_ids.device)
    first = torch.full((height * width,), len(pixel_ids), device=pixel_ids.device)
    first = first.scatter_reduce(0, pixel_ids, numbers, "amin")[pixel_ids]
    after = torch.exp(sums - (sums - passed)[first])
    before = torch.exp(sums - passed - (sums - passed)[first])
    weights = (alpha * before).float()
    crossing = (before >= 0.5) & (after < 0.5)
    median = projection.depths.new_zeros(height * width)
    median[pixel_ids[crossing]] = projection.depths[gaussian_ids[crossing]]
    largest = weights.new_zeros(height * width).scatter_reduce(0, pixel_ids, weights, "amax")
    best = weights == largest[pixel_ids]
    place = torch.full((height * width,), len(pixel_ids), device=pixel_ids.device)
    place = place.scatter_reduce(0, pixel_ids[best], numbers[best], "amin")
    found = torch.cat([gaussian_ids, gaussian_ids.new_full((1,), -1)])[place]
    return median.reshape(height, width, 1), found.reshape(height, width)


def uplift(projection: Projection, opacities: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of contribution * value, and of contributions; see `semfield_ns.gaussians.rasterize`."""
    n = len(opacities)
    if n == 0:
        return values.new_zeros(0, values.shape[-1]), opacities
    plain = Projection(
        projection.means2d.detach(),
        projection.depths.detach(),
        projection.conics.detach(),
        projection.radii,
        projection.width,
        projection.height,
    )
    with torch.enable_grad():
        channels = values.new_zeros(n, values.shape[-1] + 1, requires_grad=True)
        picture, _ = _composite(plain, opacities, channels, None, _tiles(plain))
        given = torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)
        (sums,) = torch.autograd.grad(picture, channels, given)
    return sums[:, :-1], sums[:, -1]
