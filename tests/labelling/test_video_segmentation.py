"""SAM 2 as a baseline: with tiny random weights it goes the way that real ones go."""

import numpy as np
import pytest

from benchmarks.video_segmentation import _nearer, video_labels
from semfield_ns.errors import SemfieldError
from tests.process.helpers import sliding
from tests.process.test_learned import tiny_sam  # noqa: F401 (a fixture)


def test_labels_come_from_the_nearer_side():
    assert [_nearer(frame, [2, 6], reverse=False) for frame in range(9)] == [False, False, True, True, True, False, True, True, True]  # fmt: skip  # noqa: E501
    assert [_nearer(frame, [2, 6], reverse=True) for frame in range(9)] == [True, True, False, False, False, True, False, False, False]  # fmt: skip  # noqa: E501


def test_every_frame_gets_classes_of_the_labelled_ones(tiny_sam):  # noqa: F811
    images = sliding(4)
    labels = np.zeros(images[0].shape[:2], dtype=np.int64)
    labels[20:60, 30:80] = 2
    found = video_labels(images, [labels, None, None, labels], [0, 3], num_classes=4, weights=str(tiny_sam))
    assert len(found) == 4
    assert all(image.shape == labels.shape and set(np.unique(image)) <= {0, 2} for image in found)


def test_without_weights_there_is_one_sentence(tmp_path):
    with pytest.raises(SemfieldError, match="hf download nobody/nothing"):
        video_labels([np.zeros((8, 8, 3), np.uint8)], [np.zeros((8, 8), np.int64)], [0], 1, weights="nobody/nothing")
