"""Several teachers as one: their features side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.teachers.base import Teacher


class JoinedTeacher(Teacher):
    """The maps of several teachers, on the grid of the first one.

    Args:
        teachers: at least one.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self.teachers = tuple(teachers)
        self.name = " + ".join(teacher.name for teacher in teachers)
        self.dim = sum(teacher.dim for teacher in teachers)
        self.stride = teachers[0].stride

    @property
    def parts(self) -> tuple[int, ...]:
        """Those of the teachers, one after the other."""
        return tuple(part for teacher in self.teachers for part in teacher.parts)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """That of the first teacher."""
        return self.teachers[0].grid_size(height, width)

    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        """Features of every teacher, one after the other."""
        size = self.grid_size(*images.shape[1:3])
        grids = [teacher.encode(images).permute(0, 3, 1, 2) for teacher in self.teachers]
        resized = [F.interpolate(grid, size=size, mode="bilinear", antialias=True) for grid in grids]
        return torch.cat(resized, dim=1).permute(0, 2, 3, 1)
