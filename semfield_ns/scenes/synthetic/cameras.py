"""Pinhole cameras in Nerfstudio's convention, without torch.

A camera-to-world matrix is OpenGL's: x right, y up, the camera looks along -z. Pixel (row i, column j) has its centre
at (u, v) = (j + 0.5, i + 0.5). Depth is z-depth: the distance along the optical axis, in scene units.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole without distortion; all but width and height in pixels as real numbers."""

    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    fx: float
    """Horizontal focal length in pixels."""
    fy: float
    """Vertical focal length in pixels."""
    cx: float
    """Column of the optical axis (width / 2 when centred)."""
    cy: float
    """Row of the optical axis (height / 2 when centred)."""

    @staticmethod
    def centred(width: int, height: int, focal_per_width: float) -> "Intrinsics":
        """A camera with square pixels, its axis through the middle of the image."""
        focal = focal_per_width * width
        return Intrinsics(width, height, focal, focal, width / 2, height / 2)


def pixel_grid(intrinsics: Intrinsics, offset: tuple[float, float] = (0.5, 0.5)) -> Float[np.ndarray, "n 2"]:
    """Image positions (u, v) of one sample in every pixel, row by row; `offset` in [0, 1) within the pixel."""
    columns = np.arange(intrinsics.width) + offset[0]
    rows = np.arange(intrinsics.height) + offset[1]
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


def rays_through(
    uv: Float[np.ndarray, "n 2"], c2w: Float[np.ndarray, "4 4"], intrinsics: Intrinsics
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, "n 3"]]:
    """World origin and directions of rays through image positions, so that origin + z * direction has z-depth z."""
    x = (uv[:, 0] - intrinsics.cx) / intrinsics.fx
    y = -(uv[:, 1] - intrinsics.cy) / intrinsics.fy
    directions = np.stack([x, y, np.full_like(x, -1.0)], axis=-1)
    return c2w[:3, 3], directions @ c2w[:3, :3].T


def project(
    points: Float[np.ndarray, "n 3"], c2w: Float[np.ndarray, "4 4"], intrinsics: Intrinsics
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Image positions (u, v) and z-depths of world points; where the depth is not positive, (u, v) is NaN."""
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    depth = -local[:, 2]
    in_front = np.where(depth > 0, depth, np.nan)
    u = intrinsics.cx + intrinsics.fx * local[:, 0] / in_front
    v = intrinsics.cy - intrinsics.fy * local[:, 1] / in_front
    return np.stack([u, v], axis=-1), depth


def inside_image(uv: Float[np.ndarray, "n 2"], intrinsics: Intrinsics) -> np.ndarray:
    """Which image positions fall on the sensor; NaN is outside. Bool [n]."""
    size = (intrinsics.width, intrinsics.height)
    return np.all((uv >= 0) & (uv < size), axis=-1)


def look_at(position: np.ndarray, target: np.ndarray) -> Float[np.ndarray, "4 4"]:
    """OpenGL camera-to-world matrix at `position` looking at `target`, with world z up."""
    back = np.asarray(position, float) - np.asarray(target, float)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :4] = np.stack([right, np.cross(back, right), back, position], axis=-1)
    return c2w


class CameraPath(Protocol):
    """What a scene asks of the path of its camera."""

    def at(self, u: float, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Float[np.ndarray, "4 4"]:
        """Camera-to-world matrix at path position u in [0, 1], shifted by (right, forward, up) in scene units."""


@dataclass(frozen=True)
class ArcPath:
    """A smooth path of cameras on a circular arc around `target`, all of them looking at it.

    `at(0)` is the left end and `at(1)` the right one; the height waves a little, so that the path is no plane curve.
    """

    target: tuple[float, float, float]
    """World point in the middle of every picture."""
    radius: float
    """Horizontal distance to the target."""
    height: float
    """Mean world height of the camera."""
    sweep: float
    """Angle of the whole arc in radians; its chord is the baseline."""
    height_wave: float = 0.12
    """Amplitude of the wave in height."""
    pitch_wave: float = 0.0
    """Amplitude of a slow wave of the target's height, so that the view is not the same everywhere."""

    def at(self, u: float, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Float[np.ndarray, "4 4"]:
        """Camera-to-world matrix at path position u in [0, 1], shifted by (right, forward, up) in scene units."""
        angle = self.sweep * (u - 0.5)
        target = np.array(self.target)
        target[2] += self.pitch_wave * np.sin(2 * np.pi * u)
        forward = np.array([-np.sin(angle), np.cos(angle), 0.0])
        right = np.array([np.cos(angle), np.sin(angle), 0.0])
        position = np.array([self.target[0], self.target[1], self.height]) - self.radius * forward
        position[2] += self.height_wave * np.sin(2 * np.pi * u)
        return look_at(position + offset[0] * right + offset[1] * forward + (0.0, 0.0, offset[2]), target)


@dataclass(frozen=True)
class WavingPath:
    """A smooth path of cameras that look the same way from about one place, as people take a scene in front of them.

    The camera goes to and fro in an upright plane at y = -distance, and looks at points near the target.
    """

    target: tuple[float, float, float]
    """World point about which the pictures are centred."""
    distance: float
    """From the plane of the cameras to the target."""
    height: float
    """Mean world height of the camera."""
    width: float
    """Half of the plane's part that is used, sideways."""
    rise: float
    """The same, up and down."""
    waves: float = 2.5
    """Times that it goes up and down, while it goes sideways once."""
    follow: float = 0.5
    """Share of the camera's shift by which what it looks at shifts: 0 turns it towards the target, 1 not at all."""

    def at(self, u: float, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Float[np.ndarray, "4 4"]:
        """Camera-to-world matrix at path position u in [0, 1], shifted by (right, forward, up) in scene units."""
        shift = np.array([self.width * (2 * u - 1), 0.0, self.rise * np.sin(2 * np.pi * self.waves * u)])
        target = np.array(self.target)
        position = np.array([target[0], target[1] - self.distance, self.height]) + shift
        return look_at(position + np.array(offset), target + self.follow * shift)
