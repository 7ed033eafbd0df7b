"""Cameras, and the one depth at which a pixel's flow into other frames fits their poses best.

Pixels are (x, y) with the centre of the top left one at (0.5, 0.5). Rays and points of a camera are in OpenCV axes
(x right, y down, z forward), poses are camera-to-world in OpenGL axes, as in the rest of the package.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float

from semfield_ns.rendering.projection import distort, undistort
from semfield_ns.scenes.flow import FlowMap, Mask

Pose = Float[np.ndarray, "4 4"]

_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # between OpenGL and OpenCV axes of a camera


@dataclass(frozen=True, eq=False)
class Camera:
    """Intrinsics, px."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: Float[np.ndarray, "6"] = field(default_factory=lambda: np.zeros(6))
    """k1 k2 k3 k4 p1 p2 as Nerfstudio means them"""

    def distort(self, xy: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape 2"]:
        """Normalised image coordinates as the lens bends them."""
        return distort(torch.from_numpy(xy), torch.from_numpy(self.distortion)).numpy()

    def normalise(self, pixels: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape 2"]:
        """Pixels -> normalised image coordinates without distortion (a fixed point of the distortion)."""
        bent = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        if not np.any(self.distortion):
            return bent
        return undistort(torch.from_numpy(bent), torch.from_numpy(self.distortion)).numpy()

    def project(self, points: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 2"]:
        """Points in the camera's OpenCV axes, in front of it, -> pixels."""
        return self.distort(points[..., :2] / points[..., 2:]) * [self.fx, self.fy] + [self.cx, self.cy]

    @property
    def focal(self) -> float:
        """Mean focal length, px."""
        return float(np.sqrt(self.fx * self.fy))


def pixel_grid(height: int, width: int) -> Float[np.ndarray, "H W 2"]:
    """Centres of the pixels of an image."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([x, y], axis=-1) + 0.5


def relative_pose(c2w_from: Pose, c2w_to: Pose) -> Pose:
    """From the OpenCV axes of one camera to those of another."""
    return np.linalg.inv(c2w_to @ _FLIP) @ c2w_from @ _FLIP


def world_to_camera(c2w: Pose) -> Pose:
    """World -> OpenCV axes of the camera."""
    return np.linalg.inv(c2w @ _FLIP)


def camera_to_world(w2c: Pose) -> Pose:
    """The inverse of world_to_camera: OpenGL camera-to-world."""
    return np.linalg.inv(w2c) @ _FLIP


@dataclass(frozen=True, eq=False)
class View:
    """A frame seen from another one: where its pixels went, and where that frame's camera stood."""

    flow: FlowMap
    """px, from this frame to the other"""
    valid: Mask
    """where the flow may be trusted"""
    relative: Pose
    """this camera's OpenCV axes -> the other's"""
    camera: Camera
    """the other frame's intrinsics"""


@dataclass(frozen=True, eq=False)
class Fit:
    """For each pixel the inverse depth that explains its flow into all views best, and how well it does."""

    inverse_depth: Float[np.ndarray, "H W"]
    """1 / z-depth, units of the poses; negative where only a point behind the camera would fit"""
    sigma: Float[np.ndarray, "H W"]
    """standard deviation of the inverse depth for 1 px of noise in the flow; infinite without a baseline"""
    offsets: Float[np.ndarray, "V H W 2"]
    """px in each view, from where the point would be to where the flow leads; 0 where the flow is not trusted"""
    residual: Float[np.ndarray, "H W"]
    """root mean square length of the offsets that count; NaN without a view"""
    count: Float[np.ndarray, "H W"]
    """views with trusted flow"""
    parallax: Float[np.ndarray, "H W"]
    """widest angle, radians, between the pixel's rays from two positions of the camera"""


def fit_depth(camera: Camera, views: Sequence[View], iterations: int = 3, scale: float = 1.0) -> Fit:
    """Triangulates every pixel from its flow.

    A point at inverse depth w on the ray r of a pixel is at (R r + w t) in the other camera (up to scale), which the
    flow says is seen at x: (R r)_xy - x (R r)_z + w (t_xy - x t_z) = 0, linear in w. Dividing by the depth there gives
    pixels; that weight, and a Cauchy weight of `scale` px against wrong flow, come from the w of the iteration before.
    """
    grid = pixel_grid(camera.height, camera.width)
    rays = np.concatenate([camera.normalise(grid), np.ones((*grid.shape[:2], 1))], axis=-1)
    shape = grid.shape[:2]
    constants, slopes, ahead, forward, valid = [], [], [], [], []
    for view in views:
        turned = rays @ view.relative[:3, :3].T
        t = view.relative[:3, 3]
        seen = view.camera.normalise(grid + view.flow)
        constants.append(view.camera.focal * (turned[..., :2] - seen * turned[..., 2:]))
        slopes.append(view.camera.focal * (t[:2] - seen * t[2]))
        ahead.append(turned[..., 2])
        forward.append(t[2])
        valid.append(view.valid)
    if not views:
        empty = np.full(shape, np.nan)
        none = np.zeros(shape)
        return Fit(none, np.full(shape, np.inf), np.zeros((0, *shape, 2)), empty, none, none)
    a, b = np.stack(constants), np.stack(slopes)  # (V,H,W,2)
    depth_at, along, known = np.stack(ahead), np.array(forward)[:, None, None], np.stack(valid)
    w = np.zeros(shape)
    robust = np.ones(known.shape)
    for _ in range(iterations):
        share = _safe(depth_at + w * along)
        weight = known * robust / share**2
        information = (weight * (b * b).sum(-1)).sum(0)
        w = np.where(information > 0, -(weight * (a * b).sum(-1)).sum(0) / np.maximum(information, 1e-12), 0.0)
        share = _safe(depth_at + w * along)
        offsets = np.where(known[..., None], -(a + w[None, ..., None] * b) / share[..., None], 0.0)
        squared = (offsets * offsets).sum(-1)
        robust = 1 / (1 + squared / scale**2)
    count = known.sum(0)
    plain = (known / share**2 * (b * b).sum(-1)).sum(0)
    sigma = np.where(plain > 0, 1 / np.sqrt(np.maximum(plain, 1e-24)), np.inf)
    with np.errstate(invalid="ignore"):
        residual = np.sqrt(squared.sum(0) / np.where(count > 0, count, np.nan))
    return Fit(w, sigma, offsets, residual, count.astype(np.float64), _parallax(rays, views, known, w))


def far_away(camera: Camera, views: Sequence[View]) -> Fit:
    """The same of a camera that stays in its place: every pixel is where the turns lead, at whatever depth."""
    grid = pixel_grid(camera.height, camera.width)
    rays = np.concatenate([camera.normalise(grid), np.ones((*grid.shape[:2], 1))], axis=-1)
    zero = np.zeros(grid.shape[:2])
    offsets = np.zeros((len(views), *grid.shape))
    for offset, view in zip(offsets, views, strict=True):
        turned = rays @ view.relative[:3, :3].T
        turned[..., 2] = _safe(turned[..., 2])
        offset[view.valid] = (grid + view.flow - view.camera.project(turned))[view.valid]
    count = np.sum([view.valid for view in views], axis=0) if views else zero
    with np.errstate(invalid="ignore"):
        residual = np.sqrt((offsets * offsets).sum((0, -1)) / np.where(count > 0, count, np.nan))
    return Fit(zero, np.full(zero.shape, np.inf), offsets, residual, count.astype(np.float64), zero)


def _safe(depth: np.ndarray) -> np.ndarray:
    """Depths kept away from 0, where a point is beside the other camera and has no image."""
    return np.where(depth < 0.05, 0.05, depth)


def _parallax(rays: np.ndarray, views: Sequence[View], known: Bool[np.ndarray, "V H W"], w: np.ndarray) -> np.ndarray:
    """The widest angle at the point between this camera and another that sees it."""
    widest = np.zeros(w.shape)
    for view, seen in zip(views, known, strict=True):
        centre = -view.relative[:3, :3].T @ view.relative[:3, 3]  # of the other camera, in this one's axes
        other = rays - np.maximum(w, 0)[..., None] * centre
        cosine = (rays * other).sum(-1) / (np.linalg.norm(rays, axis=-1) * np.linalg.norm(other, axis=-1) + 1e-12)
        widest = np.maximum(widest, np.where(seen, np.arccos(np.clip(cosine, -1, 1)), 0))
    return widest


def sampson_distance(
    xy_a: Float[np.ndarray, "*shape 2"], xy_b: Float[np.ndarray, "*shape 2"], relative: Pose
) -> Float[np.ndarray, "*shape"]:
    """First-order distance to the epipolar geometry of two posed cameras, in normalised image coordinates."""
    t, rotation = relative[:3, 3], relative[:3, :3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    return sampson(cross @ rotation, xy_a, xy_b)


def sampson(
    fundamental: Float[np.ndarray, "3 3"], a: Float[np.ndarray, "*shape 2"], b: Float[np.ndarray, "*shape 2"]
) -> Float[np.ndarray, "*shape"]:
    """Sampson distance of correspondences a -> b to a fundamental matrix, in the unit of the coordinates."""
    one = np.ones((*a.shape[:-1], 1))
    a, b = np.concatenate([a, one], axis=-1), np.concatenate([b, one], axis=-1)
    line_b, line_a = a @ fundamental.T, b @ fundamental
    norm = (line_b[..., :2] ** 2).sum(-1) + (line_a[..., :2] ** 2).sum(-1)
    return np.abs((b * line_b).sum(-1)) / np.sqrt(np.maximum(norm, 1e-24))
