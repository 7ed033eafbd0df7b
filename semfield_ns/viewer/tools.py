"""From clicks to prompts, and from prompts to lines in space: pure functions and values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Box, Point, Stroke
from semfield_ns.segmentation.views import surface_points

DOUBLE_CLICK_SECONDS = 0.6
DOUBLE_CLICK_SHARE = 0.02
"""of the picture's longer side: how near two clicks are that are one double-click"""
ERASER_SHARE = 0.05
"""of the picture's longer side: how near to a stroke it has to be clicked"""
SPACING_SHARE = 0.01
"""of the picture's longer side, between the points of a stroke that are put into space"""
SMALLEST_BOX_SHARE = 0.01
LIFTED_SHARE = 0.97
"""of its depth: marks are drawn a bit nearer than the surface, so that they are seen"""


@dataclass(frozen=True)
class PolyLine:
    """A stroke that is being clicked. Each click adds a vertex; the second click of a double-click ends it."""

    camera: ViewCamera
    points: tuple[Point, ...] = ()
    """pixels of the camera"""
    clicked_at: float = -np.inf
    """seconds"""

    def clicked(self, point: Point, now: float) -> tuple["PolyLine", bool]:
        """The line after one more click, and whether it is done."""
        if self._ends_at(point) and now - self.clicked_at < DOUBLE_CLICK_SECONDS:
            return self, True
        return replace(self, points=(*self.points, point), clicked_at=now), False

    def dragged(self, way: Sequence[Point]) -> "PolyLine":
        """The line with the way of a drag at its end. The page tells of a click where that begins as well."""
        return replace(self, points=(*(self.points[:-1] if self._ends_at(way[0]) else self.points), *way))

    def _ends_at(self, point: Point) -> bool:
        near = DOUBLE_CLICK_SHARE * max(self.camera.width, self.camera.height)
        return bool(self.points) and math.dist(point, self.points[-1]) < near

    def stroke(self, positive: bool) -> Stroke:
        """The prompt that was drawn: a hundredth of the picture wide."""
        width = max(1.0, round(SPACING_SHARE * max(self.camera.width, self.camera.height)))
        return Stroke(self.camera, self.points, positive, width)


def pixel(camera: ViewCamera, share: tuple[float, float]) -> Point:
    """Pixels from shares of a picture's sides."""
    return share[0] * camera.width, share[1] * camera.height


def box_between(camera: ViewCamera, first: Point, second: Point, positive: bool) -> Box | None:
    """The rectangle between two corners in pixels; None where it has no extent to speak of."""
    smallest = SMALLEST_BOX_SHARE * max(camera.width, camera.height)
    if abs(first[0] - second[0]) < smallest or abs(first[1] - second[1]) < smallest:
        return None
    return Box(camera, (first, second), positive)


def outline_of(prompt: Stroke | Box) -> Float[np.ndarray, "N 2"]:
    """Pixels along a stroke or around a box, close enough to follow a surface; at most 200."""
    corners = np.array(prompt.points, dtype=np.float64)
    if isinstance(prompt, Box):
        (left, top), (right, bottom) = corners
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    along = np.concatenate([[0.0], np.hypot(*np.diff(corners, axis=0).T).cumsum()])
    spacing = SPACING_SHARE * max(prompt.camera.width, prompt.camera.height)
    count = int(np.clip(np.ceil(along[-1] / spacing), 1 if len(corners) > 1 else 0, 199)) + 1
    # Vertices are among the points: corners stay corners.
    places = np.unique(np.concatenate([np.linspace(0, along[-1], count), along]))
    return np.stack([np.interp(places, along, corners[:, axis]) for axis in (0, 1)], axis=1)


def lift(prompt: Stroke | Box, raw: Mapping[str, Tensor]) -> Float[np.ndarray, "N 3"]:
    """A prompt on the surface that its view shows, in world coordinates, a bit nearer to the camera.

    Args:
        prompt: a drawing.
        raw: what a model renders for the drawing's camera.
    """
    camera = prompt.camera
    size = np.array([camera.width, camera.height])
    pixels = torch.from_numpy(np.floor(outline_of(prompt)).clip(0, size - 1)[:, ::-1].astype(np.int64))
    points = surface_points(raw, camera.cameras(), pixels).cpu().double().numpy()
    return camera.centre + LIFTED_SHARE * (points - camera.centre)


def stroke_at(lines: Mapping[int, Float[np.ndarray, "N 3"]], camera: ViewCamera, point: Point) -> int | None:
    """The number of the line in space that a click meets, or None."""
    best, found = ERASER_SHARE * max(camera.width, camera.height), None
    for number, line in lines.items():
        pixels, depth, _ = camera.project(torch.from_numpy(line).float())
        distance = (pixels - torch.tensor(point)).norm(dim=-1)[depth > 0]
        if len(distance) and float(distance.min()) < best:
            best, found = float(distance.min()), number
    return found


def in_camera(prompt: Stroke | Box, camera: ViewCamera) -> Stroke | Box:
    """The same prompt in the same view at another resolution."""
    x, y = camera.width / prompt.camera.width, camera.height / prompt.camera.height
    points = tuple((u * x, v * y) for u, v in prompt.points)
    if isinstance(prompt, Box):
        return Box(camera, (points[0], points[1]), prompt.positive)
    return Stroke(camera, points, prompt.positive, max(1.0, prompt.width * (x + y) / 2))


def same_view(first: ViewCamera, second: ViewCamera) -> bool:
    """Whether two cameras look from one place in one direction at one time, whatever their resolutions."""
    return (
        first.camera_to_world == second.camera_to_world
        and first.time == second.time
        and first.distortion == second.distortion
        and abs(first.fy / first.height - second.fy / second.height) < 1e-4
    )


def resized(values: Tensor, height: int, width: int, smooth: bool) -> Tensor:
    """An output [H, W, C] at another size."""
    if values.shape[:2] == (height, width):
        return values
    how = {"mode": "bilinear", "align_corners": False, "antialias": True} if smooth else {"mode": "nearest-exact"}
    return torch.nn.functional.interpolate(values.permute(2, 0, 1)[None], (height, width), **how)[0].permute(1, 2, 0)
