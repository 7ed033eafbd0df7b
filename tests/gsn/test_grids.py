"""Look-ups by tables against `grid_sample`."""

import pytest
import torch
import torch.nn.functional as F

from semfield_ns.gsn.grids import sample_enlarged, sample_grid, table_of


def make_places(count, height, width):
    """Inside, on cells, at all borders, and far away."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([width, height])
    places = torch.rand(3, count, 2, generator=generator) * (size + 3) - 2
    corners = torch.tensor([[0.0, 0.0], [width - 1, height - 1], [-1.0, 0.5], [width, height], [1e6, -1e6], [2.0, 1.0]])
    return torch.cat([places, corners.expand(3, -1, 2)], dim=1)


@pytest.mark.parametrize(
    ("padding", "height", "width"),
    [("zeros", 7, 9), ("zeros", 2, 3), ("border", 7, 9), ("border", 2, 3), ("border", 1, 5)],
)
def test_tables_give_what_grid_sample_gives(padding, height, width):
    grid = torch.randn(3, 4, height, width, generator=torch.Generator().manual_seed(1))
    places = make_places(50, height, width)
    found = sample_grid(grid, places, padding, table_of(grid))
    assert found.shape == (3, 56, 4)
    assert torch.allclose(found, sample_grid(grid, places, padding), atol=1e-5)
    assert torch.allclose(found[0, -1], grid[0, :, min(1, height - 1), 2], atol=1e-6)


def test_sixteen_cells_are_the_sample_of_the_enlarged_grid():
    grid = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    size = (33, 47)
    places = make_places(200, *size)
    enlarged = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    assert torch.allclose(sample_enlarged(table_of(grid), places, size), sample_grid(enlarged, places), atol=1e-5)
