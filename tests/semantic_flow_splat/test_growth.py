"""More Gaussians where they are needed."""

import pytest
import torch

from semfield_ns.semantic_flow_splat.growth import TRANSPARENT, grow
from semfield_ns.semantic_flow_splat.moving import MovingGaussians, logit
from semfield_ns.semantic_flow_splat.start import Start

STILL, MOVING, STEPS = 12, 6, 4


def make() -> tuple[MovingGaussians, dict[str, torch.optim.Adam]]:
    """Gaussians far apart, and optimisers that have made a step."""
    generator = torch.Generator().manual_seed(0)
    start = Start(
        torch.arange(STILL)[:, None] * torch.tensor([10.0, 0, 0]),
        (torch.arange(MOVING)[:, None, None] * torch.tensor([0, 10.0, 0])).expand(-1, STEPS, -1).clone(),
        torch.ones(MOVING, STEPS, dtype=torch.bool),
        torch.rand(STILL + MOVING, 3, generator=generator),
        torch.full((STILL + MOVING,), 0.1),
    )
    gaussians = MovingGaussians(STEPS, 3, 1, 5, 2).begin(start)
    optimizers = {name: torch.optim.Adam([getattr(gaussians, name)], lr=1e-3) for name in MovingGaussians.NAMES}
    sum(getattr(gaussians, name).square().sum() for name in MovingGaussians.NAMES).backward()
    for optimizer in optimizers.values():
        optimizer.step()
    return gaussians, optimizers


def consistent(gaussians: MovingGaussians, optimizers: dict[str, torch.optim.Adam]) -> None:
    """All tables are of as many Gaussians, and a step can be made."""
    count, moving = len(gaussians), len(gaussians) - gaussians.num_still
    assert len(gaussians.tracks) == len(gaussians.presence) == moving
    for name in ("opacities", "scales", "colors", "details", "shades", "logits", "known", "features"):
        assert len(getattr(gaussians, name)) == count, name
    sum(getattr(gaussians, name).square().sum() for name in MovingGaussians.NAMES).backward()
    for name, optimizer in optimizers.items():
        for key in ("exp_avg", "exp_avg_sq"):
            assert optimizer.state[getattr(gaussians, name)][key].shape == getattr(gaussians, name).shape
        optimizer.step()


def test_new_ones_stand_beside_those_with_errors():
    gaussians, optimizers = make()
    error = torch.zeros(STILL + MOVING)
    error[3], error[STILL + 2] = 1.0, 1.0
    before = gaussians.still.detach().clone(), gaussians.tracks.detach().clone()
    grow(gaussians, error, 2, optimizers, torch.Generator().manual_seed(1))
    assert len(gaussians) == STILL + MOVING + 2 and gaussians.num_still == STILL + 1
    assert torch.equal(gaussians.still[:STILL], before[0]) and torch.equal(gaussians.tracks[:MOVING], before[1])
    assert float((gaussians.still[-1] - before[0][3]).norm()) < 1
    assert float((gaussians.tracks[-1] - before[1][2]).norm(dim=-1).max()) < 1
    # Still ones stay in front: the colour of the new still one is that of its parent.
    assert torch.equal(gaussians.colors[STILL], gaussians.colors[3])
    assert torch.equal(gaussians.colors[-1], gaussians.colors[STILL + 1 + 2])
    consistent(gaussians, optimizers)


def test_transparent_ones_are_put_elsewhere():
    gaussians, optimizers = make()
    with torch.no_grad():
        gaussians.opacities[5] = logit(torch.tensor(TRANSPARENT / 10))
        gaussians.opacities[STILL + 1] = -9.0
        gaussians.presence[STILL + 2 - STILL] = -20.0
        gaussians.presence[0, 1:] = -20.0  # seen at one time step
    error = torch.zeros(STILL + MOVING)
    error[0], error[STILL + 5] = 1.0, 1.0
    places = gaussians.tracks.detach().clone()
    assert grow(gaussians, error, 0, optimizers, torch.Generator().manual_seed(1)) == 3
    assert len(gaussians) == STILL + MOVING
    assert float((gaussians.still[5] - gaussians.still[0]).norm()) < 1
    for index in (1, 2):
        assert float((gaussians.tracks[index] - gaussians.tracks[5]).norm(dim=-1).max()) < 40
        assert not torch.equal(gaussians.tracks[index], places[index])
    assert torch.equal(gaussians.tracks[0], places[0])
    consistent(gaussians, optimizers)


def test_moving_ones_are_put_elsewhere_while_still_ones_are_added():
    gaussians, optimizers = make()
    with torch.no_grad():
        gaussians.opacities[STILL + 1] = -9.0
    error = torch.zeros(STILL + MOVING)
    error[0], error[STILL + 5] = 1.0, 1e-3
    before = gaussians.tracks.detach().clone(), gaussians.still.detach().clone()
    grow(gaussians, error, 4, optimizers, torch.Generator().manual_seed(1))
    assert gaussians.num_still > STILL
    assert torch.equal(gaussians.still[:STILL], before[1])
    assert float((gaussians.tracks[1] - before[0][5]).norm(dim=-1).max()) < 1
    kept = [index for index in range(MOVING) if index != 1]
    assert torch.equal(gaussians.tracks[kept], before[0][kept])
    consistent(gaussians, optimizers)


@pytest.mark.parametrize("opacity", [0.1, 0.5, 0.9])
def test_two_halves_let_as_much_light_through_as_one(opacity: float):
    gaussians, optimizers = make()
    with torch.no_grad():
        gaussians.opacities[:] = logit(torch.full((STILL + MOVING,), opacity))
    error = torch.zeros(STILL + MOVING)
    error[7] = 1.0
    grow(gaussians, error, 1, optimizers, torch.Generator().manual_seed(1))
    pair = torch.sigmoid(gaussians.opacities[[7, STILL]])
    assert float((1 - pair).prod()) == pytest.approx(1 - opacity, abs=1e-3)


def test_nothing_is_drawn_where_nothing_is_alive():
    gaussians, optimizers = make()
    with torch.no_grad():
        gaussians.opacities[:] = -20.0
    assert grow(gaussians, torch.ones(STILL + MOVING), 3, optimizers, torch.Generator()) == 0
    consistent(gaussians, optimizers)
