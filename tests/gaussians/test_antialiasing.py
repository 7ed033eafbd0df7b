"""Small Gaussians of anti-aliased splats: as much fainter as the blur of a pixel makes them larger."""

import pytest
import torch

from semfield_ns.gaussians.projection import project, unblurred_share
from semfield_ns.gaussians.rasterize import render
from semfield_ns.gaussians.values import Gaussians

POSE = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4]])
LENS = (40.0, 40.0, 16.0, 16.0)


def one(scale: float) -> Gaussians:
    turn, scales = torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), scale)
    return Gaussians(torch.zeros(1, 3), turn, scales, torch.tensor([0.8]), torch.ones(1, 1))


@pytest.mark.parametrize("scale", [0.003, 0.03, 0.3])
def test_the_share_is_the_root_of_the_ratio_of_areas(scale):
    found = one(scale)
    share = unblurred_share(project(found.means, found.quaternions, found.scales, POSE, LENS, 32, 32))
    variance = (40 * scale / 4) ** 2  # px^2
    assert float(share) == pytest.approx(variance / (variance + 0.3), rel=1e-3, abs=2e-4)


def test_a_small_gaussian_gives_as_much_light_from_near_and_far():
    """Its light in pixels, relative to its area there, stays the same; without anti-aliasing it grows."""

    def light(distance: float, antialiased: bool) -> float:
        pose = POSE.clone()
        pose[2, 3] = distance
        return float(render(one(0.05), pose, LENS, 32, 32, antialiased=antialiased).channels.sum()) * distance**2

    assert light(12, True) == pytest.approx(light(3, True), rel=0.15)
    assert light(12, False) > 2 * light(3, False)
