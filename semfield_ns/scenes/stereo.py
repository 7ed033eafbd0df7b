"""Depth of posed pictures of what stands still, by plane sweeping (Collins, 1996).

Each depth is tried for the whole picture at once: other views are warped by the plane at that depth, and where they
then look like the picture, it is right. What no other view's depth confirms is not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

PLANES = 96
"""depths that are tried, evenly spread in inverse depth"""
WINDOW = 7
"""px: pictures are compared in windows of this side"""
NOISE = 4.0
"""variance of grey levels, of 255, that is no texture"""
BEST = 2
"""of the other views, those that agree best: in others a place may be hidden"""
LEAST = 0.5
"""correlation below which nothing was found"""
AGREEMENT = 0.02
"""relative difference in depth below which two views see the same surface"""

Depth = Float[np.ndarray, "H W"]


@dataclass(frozen=True, eq=False)
class PosedPicture:
    """A pinhole's picture."""

    rgb: UInt8[np.ndarray, "H W 3"]
    pose: Float[np.ndarray, "3 4"]
    """camera to world, OpenGL axes"""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy, px; the centre of the top left pixel is at 0.5"""

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """Of the intrinsics, for pixel centres at whole numbers."""
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])

    def to_camera(self) -> Float[np.ndarray, "3 4"]:
        """World to camera, x right, y down, z ahead."""
        rotation = np.diag([1.0, -1.0, -1.0]) @ self.pose[:, :3].T
        return np.concatenate([rotation, -rotation @ self.pose[:, 3:]], axis=1)

    def reduced(self, longest: int) -> "PosedPicture":
        """The picture with a longer side of at most so many px."""
        height, width = self.rgb.shape[:2]
        scale = min(1.0, longest / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        x, y = size[0] / width, size[1] / height
        fx, fy, cx, cy = self.intrinsics
        rgb = np.asarray(cv2.resize(self.rgb, size, interpolation=cv2.INTER_AREA))
        return PosedPicture(rgb, self.pose, (fx * x, fy * y, cx * x, cy * y))


def plane_sweep(
    picture: PosedPicture, others: Sequence[PosedPicture], near: float, far: float, planes: int = PLANES
) -> Depth:
    """Depth along the optical axis, world units; 0 where nothing was found.

    Args:
        picture: whose depth is wanted.
        others: that show the same things from elsewhere.
        near: depth of the nearest plane.
        far: depth of the furthest plane.
        planes: that are tried, at least 3.
    """
    grey = _grey(picture)
    inverse = np.linspace(1 / near, 1 / far, planes)
    scores = np.full((planes, *grey.shape), -1.0, np.float32)
    mean, spread = _statistics(grey)
    sources = [(_grey(other), *_relative(picture, other)) for other in others]
    for number, step in enumerate(inverse):
        found = [_correlation(grey, mean, spread, source, base + step * slope) for source, base, slope in sources]
        scores[number] = np.sort(np.stack(found), axis=0)[-BEST:].mean(axis=0)
    best = scores.argmax(axis=0)
    middle = best.clip(1, planes - 2)
    below, here, above = (np.take_along_axis(scores, middle[None] + way, 0)[0] for way in (-1, 0, 1))
    bend = below - 2 * here + above
    shift = np.where((bend < -1e-6) & (best == middle), 0.5 * (below - above) / np.minimum(bend, -1e-6), 0.0)
    found_inverse = np.interp(best + shift.clip(-0.5, 0.5), np.arange(planes), inverse)
    known = (scores.max(axis=0) > LEAST) & (spread > NOISE)
    return np.where(known, 1 / found_inverse, 0.0)


def confirmed(
    picture: PosedPicture, depth: Depth, others: Sequence[tuple[PosedPicture, Depth]], tolerance: float = AGREEMENT
) -> Bool[np.ndarray, "H W"]:
    """Pixels whose surface at least one other view sees at the same place.

    Args:
        picture: whose depth is in question.
        depth: of its pixels, 0 where not known.
        others: with their depth.
        tolerance: relative difference in depth.
    """
    fx, fy, cx, cy = picture.intrinsics
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]] + 0.5
    local = np.stack([(columns - cx) / fx, -(rows - cy) / fy, -np.ones_like(rows)], axis=-1) * depth[..., None]
    points = local @ picture.pose[:, :3].T + picture.pose[:, 3]
    found = np.zeros(depth.shape, bool)
    for other, other_depth in others:
        place = points @ other.to_camera()[:, :3].T + other.to_camera()[:, 3]
        z = np.maximum(place[..., 2], 1e-9)
        x = (other.matrix[0, 0] * place[..., 0] / z + other.matrix[0, 2]).astype(np.float32)
        y = (other.matrix[1, 1] * place[..., 1] / z + other.matrix[1, 2]).astype(np.float32)
        # Of the nearest pixel: depths are not to be mixed across edges.
        seen = cv2.remap(other_depth.astype(np.float32), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        found |= (place[..., 2] > 0) & (seen > 0) & (np.abs(seen - z) < tolerance * z)
    return found & (depth > 0)


def neighbours(pictures: Sequence[PosedPicture], number: int, count: int) -> list[int]:
    """The views from nearest by, of those that look more or less the same way; nearest first."""
    centres = np.stack([each.pose[:, 3] for each in pictures])
    ways = np.stack([each.pose[:, 2] for each in pictures])
    apart = np.linalg.norm(centres - centres[number], axis=1)
    apart[(ways @ ways[number] < 0.5) | (apart < 1e-6 * max(apart.max(), 1e-9))] = np.inf
    apart[number] = np.inf
    return [int(n) for n in np.argsort(apart, kind="stable")[:count] if np.isfinite(apart[n])]


def _grey(picture: PosedPicture) -> Float[np.ndarray, "H W"]:
    return np.asarray(cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def _relative(picture: PosedPicture, other: PosedPicture) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
    """The homography from a picture to another one by a plane is the first + inverse depth * the second."""
    ours, theirs = picture.to_camera(), other.to_camera()
    rotation = theirs[:, :3] @ ours[:, :3].T
    translation = theirs[:, 3] - rotation @ ours[:, 3]
    back = np.linalg.inv(picture.matrix)
    normal = np.array([[0.0, 0.0, 1.0]])
    return other.matrix @ rotation @ back, other.matrix @ (translation[:, None] * normal) @ back


def _average(image: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    return np.asarray(cv2.blur(image, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT))


def _statistics(grey: Float[np.ndarray, "H W"]) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Mean and variance around each pixel."""
    mean = _average(grey)
    return mean, np.maximum(_average(grey * grey) - mean * mean, 0)


def _correlation(
    grey: Float[np.ndarray, "H W"],
    mean: Float[np.ndarray, "H W"],
    spread: Float[np.ndarray, "H W"],
    source: Float[np.ndarray, "H W"],
    homography: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "H W"]:
    """Normalised cross-correlation with another picture that is warped; -1 outside of it."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = grey.shape[::-1]
    warped = cv2.warpPerspective(source, homography, size, flags=flags, borderValue=(-1e4,))
    inside = warped >= 0
    warped = np.where(inside, warped, mean).astype(np.float32)
    other_mean, other_spread = _statistics(warped)
    together = _average(grey * warped) - mean * other_mean
    return np.where(inside, together / np.sqrt((spread + NOISE) * (other_spread + NOISE)), -1.0)
