"""Features by which cells of one frame are recognised in another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from semfield_ns.teachers.base import Teacher

GRID = 80
"""cells along the longer side of a frame"""
DIM = 64
SAMPLED = 16
"""frames, spread over the video, whose features say how features vary"""

SMALL = 640
"""px: smaller frames are enlarged before features are taken, as a cell of a large one covers less of a thing"""

Rgb = UInt8[np.ndarray, "H W 3"]
Grid = Float[Tensor, "rows columns dim"]


def suited_to(teacher: str, longest: int) -> str:
    """The teacher of this name that suits frames whose longer side has so many px."""
    return "lite-fine" if teacher == "lite" and longest <= SMALL else teacher


class Basis(NamedTuple):
    """An affine map from a teacher's channels to few."""

    mean: Float[Tensor, "channels"]
    directions: Float[Tensor, "channels dim"]

    def apply(self, grid: Grid) -> Grid:
        """Features of unit norm."""
        return F.normalize((grid - self.mean) @ self.directions, dim=-1)


def fit_basis(grids: Sequence[Grid], shares: Float[Tensor, "channels"], dim: int = DIM) -> Basis:
    """Principal components of standardised channels.

    Args:
        grids: features of some frames.
        shares: weights of the standardised channels (`Teacher.shares`).
        dim: of the result, at most.
    """
    samples = torch.cat([grid.flatten(0, 1) for grid in grids])
    mean = samples.mean(0)
    weight = shares / (samples.std(0) + 1e-6)
    centred = (samples - mean) * weight
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return Basis(mean, weight[:, None] * vectors.flip(1)[:, :dim])


class FrameFeatures:
    """Features of the frames of a video, made when they are asked for; those of the last few frames are kept.

    Args:
        frames: all of one size.
        teacher: that encodes them.
        grid: cells along the longer side.
    """

    def __init__(self, frames: Sequence[Rgb], teacher: Teacher, grid: int = GRID) -> None:
        self._frames, self._teacher = frames, teacher
        height, width = frames[0].shape[:2]
        scale = min(1.0, grid / max(teacher.grid_size(height, width)))
        self.size = tuple(max(2, round(scale * cells)) for cells in teacher.grid_size(height, width))
        """rows and columns"""
        numbers = sorted({int(n) for n in np.linspace(0, len(frames) - 1, min(SAMPLED, len(frames)))})
        encoded = {number: self._encoded(number) for number in numbers}
        self._basis = fit_basis(list(encoded.values()), teacher.shares)
        self._kept = {number: self._basis.apply(grid) for number, grid in encoded.items()}

    def __call__(self, number: int) -> Grid:
        """Of a frame, with unit norm."""
        found = self._kept.pop(number, None)
        if found is None:
            found = self._basis.apply(self._encoded(number))
        # A dict remembers the order in which it was filled: what was asked for longest ago comes first, and goes.
        self._kept[number] = found
        if len(self._kept) > 2 * SAMPLED:
            self._kept.pop(next(iter(self._kept)))
        return found

    def _encoded(self, number: int) -> Grid:
        image = torch.from_numpy(np.ascontiguousarray(self._frames[number])).float() / 255
        grid = self._teacher.encode(image[None])
        return F.interpolate(
            grid.permute(0, 3, 1, 2), size=self.size, mode="bilinear", align_corners=False, antialias=True
        )[0].permute(1, 2, 0)
