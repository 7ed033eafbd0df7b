"""Values of Gaussians over time."""

import math

import torch

from semfield_ns.gaussians.harmonics import CONSTANT
from semfield_ns.semantic_flow_splat.moving import MovingGaussians
from semfield_ns.semantic_flow_splat.start import Start

STEPS = 5


def gaussians(num_shades: int) -> MovingGaussians:
    """A still one and a moving one, both of one colour."""
    way = torch.linspace(0, 1, STEPS)[None, :, None].expand(1, STEPS, 3)
    start = Start(
        torch.zeros(1, 3), way, torch.ones(1, STEPS, dtype=torch.bool), torch.full((2, 3), 0.4), torch.full((2,), 0.1)
    )
    return MovingGaussians(STEPS, 2, 1, 3, num_shades).begin(start)


def seen(scene: MovingGaussians, step: float) -> torch.Tensor:
    """Colours from everywhere."""
    return scene.coefficients_at(step)[:, 0] * CONSTANT + 0.5


def test_positions_between_two_steps_lie_between():
    assert torch.allclose(gaussians(0).means_at(1.5), torch.tensor([[0.0] * 3, [0.375] * 3]))


@torch.no_grad()
def test_a_shadow_that_passes_darkens_a_gaussian_for_a_while():
    scene = gaussians(3)
    scene.details += 1.0
    scene.shades[0, 1] = math.log(0.5)
    assert torch.allclose(seen(scene, 0), torch.full((2, 3), 0.4), atol=1e-6)
    assert torch.allclose(seen(scene, 2), torch.tensor([[0.2] * 3, [0.4] * 3]), atol=1e-6)
    assert torch.allclose(seen(scene, 1), torch.tensor([[0.4 * 0.5**0.5] * 3, [0.4] * 3]), atol=1e-6)
    assert torch.allclose(scene.coefficients_at(2)[:, 1:, 0], torch.tensor([[0.5] * 3, [1.0] * 3]))


@torch.no_grad()
def test_without_shades_brightness_stays():
    scene = gaussians(0)
    assert torch.equal(scene.coefficients_at(0), scene.coefficients_at(3.3))
