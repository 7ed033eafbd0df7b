"""Shadows: how much of the sky a ball hides, and what the brightness over time says of it."""

import math

import pytest
import torch

from semfield_ns.semantic_flow_splat.shadows import Ball, fitted_strengths, hidden, parts, surface_normals


@pytest.mark.parametrize(("distance", "angle"), [(2.0, 0.0), (2.0, 0.6), (3.0, 1.0), (5.0, 0.3)])
def test_a_ball_hides_the_light_that_its_outline_covers(distance, angle):
    """Against sampled directions of a uniform sky, weighted by the cosine."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, 400_000, generator=generator, dtype=torch.float64)
    radius, turn = u.sqrt(), 2 * math.pi * v  # directions as dense as their cosine
    directions = torch.stack([radius * turn.cos(), radius * turn.sin(), (1 - u).sqrt()], dim=1)
    centre = distance * torch.tensor([math.sin(angle), 0.0, math.cos(angle)], dtype=torch.float64)
    nearest = directions @ centre
    met = (nearest > 0) & ((centre.square().sum() - nearest.square()) < 0.7**2)
    point, normal = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    assert hidden(point, normal, Ball(centre, 0.7)).item() == pytest.approx(met.double().mean().item(), abs=2e-3)


def test_a_ball_below_the_horizon_or_of_no_size_hides_nothing():
    points, normals = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
    assert hidden(points, normals, Ball(torch.tensor([0.0, 0.0, -2.0]), 0.5)).item() == 0
    assert hidden(points, normals, Ball(torch.tensor([0.0, 0.0, 2.0]), 0.0)).item() == 0
    assert hidden(points, normals, Ball(torch.zeros(3), 0.5)).isfinite().all()


def test_strengths_are_found_again():
    generator = torch.Generator().manual_seed(1)
    part = torch.rand(2, 200, 6, generator=generator) * 0.3
    colour = torch.rand(200, 1, generator=generator) + 0.2
    brightness = colour * (1 - 0.6 * part[0] - 0.1 * part[1])
    weights = torch.ones(200)
    found = fitted_strengths(brightness, part, weights)
    assert torch.allclose(found, torch.tensor([0.6, 0.1]), atol=0.08)
    brightness[:100], weights[:100] = torch.rand(100, 6, generator=generator), 0.0  # nobody saw these
    assert torch.allclose(fitted_strengths(brightness, part, weights), torch.tensor([0.6, 0.1]), atol=0.08)
    assert fitted_strengths(torch.ones(200, 6), part, weights).abs().max() < 1e-5
    assert fitted_strengths(brightness, 0 * part, weights).abs().max() < 1e-5, "objects that are nowhere"


def test_normals_are_across_the_surface_and_towards_who_sees_it():
    plane = torch.rand(300, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 1.0, 1e-3])
    for height in (2.0, -2.0):
        normals = surface_normals(plane, torch.tensor([0.5, 0.5, height]))
        assert torch.allclose(normals, torch.tensor([0.0, 0.0, height / 2]).expand(300, 3), atol=0.05)


def test_a_ball_is_moved_and_scaled():
    matrix = torch.tensor([[0.0, -2.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])
    moved = Ball(torch.tensor([1.0, 2.0, 3.0]), 0.5).placed(matrix)
    assert moved.centre.tolist() == [-3.0, 2.0, 6.0] and moved.radius == pytest.approx(1.0)


def test_two_things_are_two_balls_and_one_is_one():
    generator = torch.Generator().manual_seed(3)
    shell = torch.nn.functional.normalize(torch.randn(400, 3, generator=generator), dim=1)
    way = torch.stack([torch.zeros(5), torch.arange(5.0), torch.zeros(5)], dim=1)
    one = shell[:, None] + way
    assert parts(one).unique().tolist() == [0]
    both = torch.cat([one, one + torch.tensor([6.0, 0.0, 0.0])])
    numbers = parts(both)
    assert len(numbers.unique()) == 2
    assert len(numbers[:400].unique()) == len(numbers[400:].unique()) == 1
    assert len(parts(both[:0])) == 0 and parts(both[:3]).tolist() == [0, 0, 0]
