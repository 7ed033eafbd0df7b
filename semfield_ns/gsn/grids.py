"""Bilinear look-ups in the grids of source views: by `grid_sample`, or, with the same numbers, as rows of a table.

A table has the channels of a cell side by side, so a look-up reads four rows; on a CPU that takes a fifth of the time
of `grid_sample`, which reads every channel from another place. Making a table costs a copy of the grid: it pays where
a whole picture is rendered from it. Pure functions on tensors.

Places are in cells: (0, 0) is the centre of the first cell.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.rendering.constants import constant

Padding = Literal["zeros", "border"]
"""What is beyond the outermost centres: nothing (fading over one cell), or the outermost cell."""


class Table(NamedTuple):
    """The cells of V grids as rows, with a margin of zeros: one cell before the first and two after the last."""

    rows: Float[Tensor, "cells C"]
    height: int
    """of the grids, without the margin"""
    width: int


def table_of(grid: Float[Tensor, "V C h w"]) -> Table:
    """The table of the grids of V views."""
    height, width = grid.shape[-2:]
    padded = F.pad(grid, (1, 2, 1, 2)).permute(0, 2, 3, 1)
    return Table(padded.reshape(-1, grid.shape[1]), height, width)


def corners(
    places: Float[Tensor, "V *many 2"], height: int, width: int, padding: Padding
) -> tuple[Int[Tensor, "V *many 4"], Float[Tensor, "V *many 4"]]:
    """Rows of the table of V grids around places, and their bilinear weights."""
    last = constant((width - 1.0, height - 1.0), places)
    places = places.maximum(-torch.ones_like(last)).minimum(last + 1) if padding == "zeros" else places.clamp(min=0)
    places = places.minimum(last) if padding == "border" else places
    first = places.floor()
    (x, y), (u, v) = (places - first).unbind(dim=-1), (first.int() + 1).unbind(dim=-1)
    stride = width + 3
    view = torch.arange(len(places), device=places.device, dtype=torch.int32) * ((height + 3) * stride)
    corner = v * stride + u + view.view(-1, *[1] * (places.dim() - 2))
    beyond_x, beyond_y = 1 - x, 1 - y
    index = torch.stack([corner, corner + 1, corner + stride, corner + stride + 1], dim=-1)
    weight = torch.stack([beyond_x * beyond_y, x * beyond_y, beyond_x * y, x * y], dim=-1)
    return index, weight


def gather(table: Table, index: Int[Tensor, "V N K"], weight: Float[Tensor, "V N K"]) -> Float[Tensor, "V N C"]:
    """Weighted sums of K rows each."""
    found = F.embedding_bag(index.flatten(0, 1), table.rows, per_sample_weights=weight.flatten(0, 1), mode="sum")
    return found.view(*index.shape[:2], -1)


def sample_grid(
    grid: Float[Tensor, "V C h w"],
    places: Float[Tensor, "V N 2"],
    padding: Padding = "zeros",
    table: Table | None = None,
) -> Float[Tensor, "V N C"]:
    """Bilinear samples of every view's grid.

    Args:
        grid: one a view.
        places: in cells.
        padding: what is beyond.
        table: of the grid; used instead of it where it is given.
    """
    height, width = grid.shape[-2:]
    if table is not None:
        return gather(table, *corners(places, height, width, padding))
    position = 2 * places / (constant((width, height), places) - 1).clamp(min=1) - 1
    if min(height, width) == 1:  # grid_sample maps the whole range to the only cell
        position = torch.where(constant((width, height), places) == 1, 0.0, position)
    found = F.grid_sample(grid, position[:, :, None], padding_mode=padding, align_corners=True)
    return found[..., 0].transpose(1, 2)


def sample_enlarged(table: Table, places: Float[Tensor, "V N 2"], size: tuple[int, int]) -> Float[Tensor, "V N C"]:
    """Samples of grids that were enlarged to images first (`interpolate`, align_corners=False), without enlarging them.

    Each of the four pixels around a place is a mixture of four cells, so the sample is one of sixteen.

    Args:
        table: of the grids.
        places: in pixels of the images.
        size: height and width of the images; nothing is beyond them.
    """
    height, width = size
    first = places.clamp(-2.0, max(size) + 1.0).floor()
    steps = constant((0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0), places).reshape(4, 2)
    pixels = first[:, :, None] + steps
    outer = (1 - (places[:, :, None] - pixels).abs()).clamp(min=0).prod(dim=-1)
    inside = ((pixels >= 0) & (pixels <= constant((width - 1.0, height - 1.0), places))).all(dim=-1)
    cells = (pixels + 0.5) * constant((table.width / width, table.height / height), places) - 0.5
    index, inner = corners(cells, table.height, table.width, "border")
    return gather(table, index.flatten(2), (inner * (outer * inside)[..., None]).flatten(2))
