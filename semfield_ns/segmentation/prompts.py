"""What people draw and write, as values."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A poly-line drawn in a view."""

    camera: ViewCamera
    """the view, at the resolution in which it was drawn"""
    points: tuple[Point, ...]
    """pixels of that view, x right and y down, (0, 0) its upper left corner; one point is a dot"""
    positive: bool = True
    """on the object, or on what is not the object"""
    width: float = 3.0
    """pixels of that view"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _points(self.points, "stroke"))
        if not (math.isfinite(self.width) and self.width > 0):
            raise SemfieldError(f"The width of a stroke is a positive number of pixels, not {self.width!r}.")

    def pixels(self, height: int, width: int) -> Bool[Tensor, "height width"]:
        """The pixels that it covers in a picture of its view of any size; at least one, if it is in the picture."""
        import cv2

        scale = np.array([width / self.camera.width, height / self.camera.height])
        corners = np.floor(np.array(self.points) * scale).astype(np.int32)
        canvas = np.zeros((height, width), dtype=np.uint8)
        thickness = max(1, round(self.width * float(scale.mean())))
        if len(corners) == 1:
            # A line from a point to itself is drawn with round ends: a dot.
            corners = np.repeat(corners, 2, axis=0)
        cv2.polylines(canvas, [corners], isClosed=False, color=(1,), thickness=thickness)
        return torch.from_numpy(canvas.astype(bool))


@dataclass(frozen=True)
class Box:
    """A rectangle drawn in a view: the object is in it, and all of what is in the view (or none of it, if negative)."""

    camera: ViewCamera
    points: tuple[Point, Point]
    """two opposite corners, pixels of that view"""
    positive: bool = True

    def __post_init__(self) -> None:
        points = _points(self.points, "box")
        if len(points) != 2:
            raise SemfieldError(f"A box has two corners, not {len(points)}.")
        object.__setattr__(self, "points", points)

    def pixels(self, height: int, width: int) -> Bool[Tensor, "height width"]:
        """The pixels inside, in a picture of its view of any size."""
        scale = np.array([width / self.camera.width, height / self.camera.height])
        (left, top), (right, bottom) = np.sort(np.array(self.points), axis=0) * scale
        canvas = torch.zeros(height, width, dtype=torch.bool)
        rows = slice(max(0, math.floor(top)), max(0, math.ceil(bottom)))
        canvas[rows, max(0, math.floor(left)) : max(0, math.ceil(right))] = True
        return canvas


@dataclass(frozen=True)
class TextQuery:
    """Words for what an object is (or is not)."""

    text: str
    positive: bool = True

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise SemfieldError("A text query needs words, such as: a red ball.")


Prompt = Stroke | Box | TextQuery


def _points(points: object, what: str) -> tuple[Point, ...]:
    try:
        values = tuple((float(x), float(y)) for x, y in points)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise SemfieldError(f"The points of a {what} are pairs of numbers (x, y).") from error
    if not values or not all(math.isfinite(number) for point in values for number in point):
        raise SemfieldError(f"The points of a {what} are one or more pairs of finite numbers.")
    return values
