"""Which frames to label next, by hand."""

import math

import pytest
import torch

from semfield_ns.evaluation.suggestion import suggest, uncertainty


def test_uncertainty_by_hand():
    assert uncertainty(torch.tensor([[20.0, 0.0], [0.0, 20.0]])) == pytest.approx(0, abs=1e-6)
    assert uncertainty(torch.zeros(3, 4)) == pytest.approx(1)
    # Class 0 has three certain pixels, class 1 one that is as good as even: each class counts half.
    sure, torn = [50.0, 0.0], [0.0, 1e-9]
    assert uncertainty(torch.tensor([sure, sure, sure, torn], dtype=torch.float64)) == pytest.approx(0.5, abs=1e-6)
    three = torch.tensor([[math.log(2), 0.0, 0.0]], dtype=torch.float64)
    assert uncertainty(three) == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3))


def test_suggestions_are_uncertain_and_apart():
    assert suggest({3: 0.2, 7: 0.9, 8: 0.8}, 1) == [7]
    # Frame 8 keeps 1 - 2^(-1/4) of its 0.8, which is less than the 0.2 of frame 0 far away.
    assert suggest({0: 0.2, 7: 0.9, 8: 0.8}, 2) == [7, 0]
    assert suggest({0: 0.2, 7: 0.9, 8: 0.8}, 2, reach=0.1) == [7, 8]
    assert suggest({5: 0.5, 4: 0.5}, 9) == [4, 5]
    assert suggest({}, 3) == []
