"""Points in space to pixels of source views, and features under those pixels. Pure functions on tensors.

Coordinates are Nerfstudio's: OpenGL camera-to-world poses (x right, y up, z backwards), pixel centres at +0.5.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.rendering.constants import constant

UNDISTORT_ITERATIONS = 30
FAR_OUTSIDE = 1e4
"""of the focal length: where points are put that a lens does not show"""


def distort(xy: Float[Tensor, "*#batch 2"], distortion: Float[Tensor, "*#batch 6"]) -> Float[Tensor, "*batch 2"]:
    """Applies Nerfstudio's OpenCV distortion (k1, k2, k3, k4, p1, p2) to normalised image coordinates, y down."""
    k1, k2, k3, k4, p1, p2 = distortion.unbind(dim=-1)
    x, y = xy.unbind(dim=-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    return torch.stack([x * radial + dx, y * radial + dy], dim=-1)


def turning_radius(distortion: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch"]:
    """Distance from the axis, at depth 1, at which a lens folds its picture back; infinite for most lenses.

    What lies further out comes back into the picture by the formula, but no lens shows it there.
    """
    rows = distortion.detach().reshape(-1, 6)[:, :4].tolist()
    found = torch.tensor([_turning_radius(*row) for row in rows], dtype=distortion.dtype, device=distortion.device)
    return found.reshape(distortion.shape[:-1])


@lru_cache(maxsize=4096)
def _turning_radius(k1: float, k2: float, k3: float, k4: float) -> float:
    """The first zero of the derivative of r (1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8)."""
    roots = np.roots([9 * k4, 7 * k3, 5 * k2, 3 * k1, 1.0])
    squares = roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)].real
    return float(np.sqrt(squares.min())) if len(squares) else float("inf")


def undistort(bent: Float[Tensor, "*batch 2"], distortion: Float[Tensor, "6"]) -> Float[Tensor, "*batch 2"]:
    """The inverse of `distort`, as a fixed point; what it gives where a lens folds back is not."""
    xy = bent
    for _ in range(UNDISTORT_ITERATIONS):
        xy = bent - (distort(xy, distortion) - xy)
    return xy


def project(
    points: Float[Tensor, "*#batch 3"],
    camera_to_world: Float[Tensor, "*#batch 3 4"],
    intrinsics: Float[Tensor, "*#batch 4"],
    distortion: Float[Tensor, "*#batch 6"] | None = None,
    min_depth: float = 1e-3,
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """Projects world points into cameras.

    Args:
        points: world coordinates.
        camera_to_world: OpenGL poses.
        intrinsics: fx, fy, cx, cy in pixels.
        distortion: OpenCV coefficients in Nerfstudio's order, or None for pinholes.
        min_depth: depths below it are clamped in the division, so that gradients stay finite.

    Returns:
        Pixel coordinates (x right, y down; the centre of the first pixel is (0.5, 0.5)) and depth along the optical
        axis, negative behind the camera. What is beyond the turning radius of a lens is far outside of the picture.
    """
    offset = points - camera_to_world[..., 3]
    local = (camera_to_world[..., :3] * offset[..., None]).sum(dim=-2) * constant((1.0, -1.0, -1.0), offset)
    beside, ahead = local.split((2, 1), dim=-1)
    xy = beside / ahead.clamp(min=min_depth)
    if distortion is not None:
        radius = xy.norm(dim=-1, keepdim=True)
        shown = radius < turning_radius(distortion)[..., None]
        xy = torch.where(shown, distort(xy, distortion), FAR_OUTSIDE * xy / radius.clamp(min=1e-12))
    return torch.addcmul(intrinsics[..., 2:], xy, intrinsics[..., :2]), ahead.squeeze(-1)


def inside(
    pixels: Float[Tensor, "*#batch 2"], depth: Float[Tensor, "*#batch"], size: Float[Tensor, "*#batch 2"]
) -> Bool[Tensor, "*batch"]:
    """Whether a projected point is in front of its camera and in its image of size (width, height)."""
    return (depth > 0) & ((pixels >= 0) & (pixels <= size)).all(dim=-1)


def gather_bilinear(
    table: Tensor, index: Int[Tensor, "*batch"], grid_xy: Float[Tensor, "*batch 2"]
) -> Float[Tensor, "*batch dim"]:
    """Bilinear look-up in a stack of grids that are stored channels-last.

    `grid_sample` wants one grid a batch entry; here every point may ask another frame, and the table needs no gradient.

    Args:
        table: (frames, h, w, dim), any float type.
        index: the frame that each point asks.
        grid_xy: position in cells, x right, y down, with the centre of the first cell at (0, 0); clamped to the border.

    Returns:
        Interpolated features; differentiable in `grid_xy`.
    """
    _, height, width, dim = table.shape
    corner = (max(width - 2.0, 0.0), max(height - 2.0, 0.0))
    low = grid_xy.detach().floor().clamp(constant((0, 0), grid_xy), constant(corner, grid_xy))
    x, y = (grid_xy - low).clamp(0, 1).split(1, dim=-1)
    column, row = low.long().unbind(dim=-1)
    right, down = int(width > 1), width * int(height > 1)
    corners = constant((0, right, down, down + right), index)
    where = ((index * height + row) * width + column)[..., None] + corners
    found = table.reshape(-1, dim)[where].float().unbind(dim=-2)
    return torch.lerp(torch.lerp(found[0], found[1], x), torch.lerp(found[2], found[3], x), y)


def screen_flow(
    surface: Float[Tensor, "*image 3"], scene_flow: Float[Tensor, "*image 3"], camera: Cameras
) -> Float[Tensor, "*image 2"]:
    """Optical flow in pixels of moving surface points, seen by one camera that stands still.

    Args:
        surface: world points.
        scene_flow: their displacement, world units.
        camera: one camera.
    """
    pose = camera.camera_to_worlds.reshape(-1, 3, 4)[0].to(surface)
    intrinsics = torch.cat([v.reshape(-1)[:1] for v in (camera.fx, camera.fy, camera.cx, camera.cy)]).to(surface)
    shape = surface.shape[:-1]
    pose, intrinsics = pose.expand(*shape, 3, 4), intrinsics.expand(*shape, 4)
    before, depth = project(surface, pose, intrinsics)
    after, depth_after = project(surface + scene_flow, pose, intrinsics)
    in_front = ((depth > 0) & (depth_after > 0))[..., None]
    return torch.where(in_front, after - before, torch.zeros_like(after))
