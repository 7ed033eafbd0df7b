import numpy as np
import pytest

from semfield_ns.evaluation.strokes import METHODS, Figures, Sample, StrokeEvaluation, choose_view, compare, targets
from semfield_ns.sessions.masks import NamedView
from tests.segmentation.scene import camera


def test_figures_of_a_mask_by_hand():
    truth = np.array([[True, True, False, False]])
    mask = np.array([[True, False, True, False]])
    scores = np.array([[0.9, 0.3, 0.6, 0.1]])
    found = compare(mask, scores, truth)
    assert found.iou == pytest.approx(1 / 3)
    assert found.accuracy == pytest.approx(0.5)
    # True at the first and the third place: precisions 1 and 2/3.
    assert found.precision == pytest.approx((1 + 2 / 3) / 2)
    assert compare(truth, truth.astype(float), truth) == Figures(1.0, 1.0, 1.0)


def test_average_precision_is_that_of_torchmetrics():
    import torch
    from torchmetrics.functional.classification import binary_average_precision

    random = np.random.default_rng(0)
    truth, scores = random.random((20, 30)) < 0.3, random.random((20, 30))
    expected = binary_average_precision(torch.from_numpy(scores.ravel()), torch.from_numpy(truth.ravel()).long())
    assert compare(scores > 0.5, scores, truth).precision == pytest.approx(float(expected), abs=1e-6)


def test_the_table_tells_the_spread_over_seeds():
    def sample(seed: int, iou: float) -> Sample:
        return Sample(METHODS[0], "1", seed, "a", Figures(iou, 0.9, 0.8))

    found = StrokeEvaluation([sample(0, 0.5), sample(0, 0.7), sample(1, 0.8)], {})
    assert found.methods == [METHODS[0]]
    table = found.table()
    assert table.splitlines()[2:] == [f"| {METHODS[0]} | 0.700 | 0.141 | 0.900 | 0.800 |"]


def test_strokes_are_drawn_where_the_object_is_seen_well():
    views = [NamedView(name, camera()) for name in ("a", "b", "c")]
    truths = {name: np.zeros((10, 10), dtype=int) for name in "abc"}
    truths["b"][:3] = 7
    truths["c"][0, 0] = 7
    truths["c"][5:, 5:] = 2
    assert targets(truths, views) == [2, 7]
    assert {choose_view(views, truths, 7, seed).name for seed in range(5)} == {"b"}
    assert choose_view(views, truths, 9, 0) is None
