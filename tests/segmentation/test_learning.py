"""What tells an object from its scene is learned from few strokes and many features."""

import math

import pytest
import torch
import torch.nn.functional as F

from semfield_ns.segmentation.appearance import appearances
from semfield_ns.segmentation.learning import combined, fitted, learn, margins
from semfield_ns.segmentation.matching import similarity

DIM = 16


def parts(centres: torch.Tensor, count: int, spread: float, seed: int) -> torch.Tensor:
    """Features of unit norm around centres [C, F], as many of each."""
    generator = torch.Generator().manual_seed(seed)
    noise = spread * torch.randn(len(centres), count, DIM, generator=generator)
    return F.normalize(centres[:, None] + noise, dim=-1)


@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """An object of three looks and a background of six; what the object's have in common is one of many directions."""
    generator = torch.Generator().manual_seed(0)
    common = F.normalize(torch.randn(DIM, generator=generator), dim=0)
    object_ = F.normalize(torch.randn(3, DIM, generator=generator), dim=1) + 0.8 * common
    background = F.normalize(torch.randn(6, DIM, generator=generator), dim=1) - 0.8 * common
    return parts(object_, 200, 0.3, 1), parts(background, 200, 0.3, 2)


def test_more_of_an_object_is_found_than_strokes_show(scene):
    object_, background = scene
    everything = torch.cat([object_.flatten(0, 1), background.flatten(0, 1)])
    truth = torch.arange(len(everything)) < object_[..., 0].numel()
    # Strokes in one of three looks, and in one of six.
    positive, negative = object_[0, :10], background[0, :10]
    likeness = similarity(everything, positive, negative)
    weights = learn(everything, likeness, positive, negative)
    found = combined(likeness, margins(everything, weights))

    def iou(mask):
        return float((mask & truth).sum() / (mask | truth).sum())

    assert iou(found > 0.5) > iou(likeness > 0.5) + 0.05
    assert bool((margins(positive, weights) > 0).all()) and bool((margins(negative, weights) < 0).all())


def test_one_side_alone_teaches_nothing(scene):
    features = scene[0].flatten(0, 1)
    assert learn(features, torch.full((len(features),), 0.5), features[:0], features[:0]) is None
    assert learn(features, torch.ones(len(features)), features[:3], features[:0]) is None


def test_both_sides_count_alike():
    inputs = torch.cat([torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 1.0]]).expand(99, 2)])
    first = torch.arange(100) == 0
    weights = fitted(inputs, first, ~first)
    assert float(weights[1]) == pytest.approx(0.0, abs=1e-6)  # the constant
    assert float(weights[0]) == pytest.approx(1 / 1.3)  # shrunk by the penalty


def test_what_is_undecided_is_told_by_the_discriminant_alone():
    assert combined(torch.tensor([0.5]), torch.tensor([1.0])).item() == pytest.approx(1 / (1 + math.exp(-2)))
    sure = combined(torch.tensor([1.0]), torch.tensor([0.0])).item()
    assert sure == pytest.approx(1 / (1 + math.exp(-0.5 * math.log(19))))


def test_looks_are_learned_only_where_it_is_asked_for():
    assert appearances([[]], {}, lambda texts: torch.zeros(0, DIM), learned=True)[0].learned is None
