import math

import numpy as np
import pytest
import torch

from semfield_ns.metrics.confusion import ConfusionMatrix, image_miou
from semfield_ns.metrics.images import end_point_error, psnr

# Four known pixels of class 0, three of them found; two of class 1, one of them found; class 2 is only predicted.
TRUTH = torch.tensor([[0, 0, 0, 0], [1, 1, -1, -1]])
PRED = torch.tensor([[0, 0, 0, 1], [1, 2, 2, 0]])


def test_values_by_hand():
    matrix = ConfusionMatrix(4).update(PRED, TRUTH)
    assert matrix.counts.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.total == 6
    iou = matrix.per_class_iou
    torch.testing.assert_close(iou[:3], torch.tensor([3 / 4, 1 / 3, 0.0]))
    assert iou[3].isnan()
    assert matrix.miou == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    assert matrix.accuracy == pytest.approx(4 / 6)
    assert matrix.mean_class_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert matrix.summary() == {
        "miou": matrix.miou,
        "accuracy": matrix.accuracy,
        "mean_class_accuracy": matrix.mean_class_accuracy,
    }
    assert image_miou(PRED, TRUTH, 4) == matrix.miou


def test_a_data_set_is_not_the_mean_of_its_images():
    first = (np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))  # IoU: 3/4, 0
    second = (np.array([1, 1]), np.array([1, 1]))  # IoU: -, 1
    matrix = ConfusionMatrix(2).update(*first).update(*second)
    assert matrix.miou == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert (image_miou(*first, 2) + image_miou(*second, 2)) / 2 == pytest.approx((3 / 8 + 1) / 2)
    merged = ConfusionMatrix(2).update(*first).merge(ConfusionMatrix(2).update(*second))
    assert torch.equal(merged.counts, matrix.counts)


def test_nothing_labelled_is_nan_not_a_crash():
    matrix = ConfusionMatrix(3).update(torch.zeros(4), torch.full((4,), -1))
    assert matrix.total == 0
    assert all(math.isnan(value) for value in matrix.summary().values())


def test_predictions_count_only_where_there_is_truth():
    assert ConfusionMatrix(2).update(torch.tensor([5, 1]), torch.tensor([-1, 1])).accuracy == 1


@pytest.mark.parametrize(
    "pred, truth, message",
    [([0], [0, 1], "shape"), ([2], [0], "predicted class id"), ([0], [2], "true class id"), ([-1], [0], "predicted")],
)
def test_errors(pred, truth, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(2).update(torch.tensor(pred), torch.tensor(truth))


def test_merge_needs_the_same_classes():
    with pytest.raises(ValueError, match="2 classes"):
        ConfusionMatrix(3).merge(ConfusionMatrix(2))


def test_file_round_trip(tmp_path):
    matrix = ConfusionMatrix(4).update(PRED, TRUTH)
    matrix.save(tmp_path / "matrix.json", ["a", "b", "c", "d"])
    loaded, names = ConfusionMatrix.load(tmp_path / "matrix.json")
    assert torch.equal(loaded.counts, matrix.counts) and names == ("a", "b", "c", "d")


def test_psnr_by_hand():
    assert psnr(torch.full((2, 3), 0.5), torch.full((2, 3), 0.6)) == pytest.approx(20, abs=1e-4)
    assert psnr(torch.ones(3), torch.ones(3)) == math.inf


def test_end_point_error_by_hand():
    pred = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert end_point_error(pred, torch.zeros(2, 2)) == pytest.approx(3)
    assert end_point_error(pred, torch.zeros(2, 2), torch.tensor([False, True])) == pytest.approx(1)
    assert math.isnan(end_point_error(pred, pred, torch.tensor([False, False])))
