import math

import pytest
import torch
from nerfstudio.utils.colormaps import apply_colormap

from semfield_ns.rendering.flow_color import color_wheel, flow_to_color


def test_the_wheel_has_the_six_corners_of_the_color_cube():
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    corners = {0: (1, 0, 0), 15: (1, 1, 0), 21: (0, 1, 0), 25: (0, 1, 1), 36: (0, 0, 1), 49: (1, 0, 1)}
    for row, color in corners.items():
        torch.testing.assert_close(wheel[row], torch.tensor(color, dtype=torch.float32))


def test_values_by_hand():
    flow = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 0.0], [8.0, 0.0]])
    expected = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.5, 0.5], [0.75, 0.0, 0.0]])
    torch.testing.assert_close(flow_to_color(flow, 4.0), expected)


def test_every_entry_of_the_wheel_is_met_at_its_angle():
    angle = torch.arange(55) / 55 * 2 * math.pi
    flow = torch.stack([angle.cos(), angle.sin()], dim=-1) * 0.999999
    torch.testing.assert_close(flow_to_color(flow, 1.0), color_wheel(), atol=1e-4, rtol=0)


def test_neighbouring_directions_have_neighbouring_colors_all_around():
    angle = torch.linspace(-math.pi, math.pi, 2000)
    colors = flow_to_color(torch.stack([angle.cos(), angle.sin()], dim=-1) * 0.9, 1.0)
    assert (colors[1:] - colors[:-1]).abs().max() < 0.02


def test_range_shape_and_odd_values():
    flow = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1)) * 100
    flow[0, 0] = math.nan
    flow[0, 1, 1] = math.inf
    colors = flow_to_color(flow, 20.0)
    assert colors.shape == (3, 5, 3) and colors.dtype == torch.float32
    assert colors.isfinite().all() and colors.min() >= 0 and colors.max() <= 1
    assert torch.equal(colors[0, :2], torch.ones(2, 3))
    assert torch.equal(apply_colormap(colors), colors)


@pytest.mark.parametrize("magnitude", [0.0, -1.0, math.nan, math.inf])
def test_the_magnitude_must_be_positive(magnitude):
    with pytest.raises(ValueError, match="max_magnitude"):
        flow_to_color(torch.zeros(2), magnitude)
