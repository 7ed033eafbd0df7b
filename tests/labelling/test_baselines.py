import os
from pathlib import Path

import numpy as np
import pytest
import torch

from semfield_ns.labelling.baselines import chained_flow, nearest_labelled, nearest_labelled_frame
from semfield_ns.labelling.classifier import linear_head
from semfield_ns.metrics.confusion import ConfusionMatrix
from semfield_ns.scenes.flow import follow

DATA = Path(os.environ.get("SEMFIELD_DATA", Path(__file__).parents[2] / "../shared/data"))


def constant_flow(dx, dy, shape=(6, 10)):
    return np.broadcast_to(np.array([dx, dy], np.float32), (*shape, 2)).copy()


def moving_bar(column):
    image = np.zeros((6, 10), np.int64)
    image[:, column] = 1
    return image


def test_nearest_frame_prefers_the_earlier_of_two():
    assert [nearest_labelled_frame(t, [0, 1, 11]) for t in range(12)] == [0, 1, 1, 1, 1, 1, 1, 11, 11, 11, 11, 11]
    with pytest.raises(ValueError, match="at least one labelled frame"):
        nearest_labelled_frame(0, [])


def test_copies_of_the_nearest_frame():
    labels = [moving_bar(2), None, None, moving_bar(8)]
    predictions = nearest_labelled(labels, [0, 3], 4)
    for prediction, source in zip(predictions, (0, 0, 3, 3), strict=True):
        np.testing.assert_array_equal(prediction, labels[source])
        assert prediction is not labels[source]


def test_flow_follows_a_moving_bar_from_both_sides():
    """The bar stands at columns 2, 4, 6, 8 and is labelled in the first and the last frame only."""
    labels = [moving_bar(2), None, None, moving_bar(8)]
    forward = [constant_flow(2, 0)] * 3 + [None]
    backward = [None] + [constant_flow(-2, 0)] * 3
    for prediction, column in zip(chained_flow(labels, [0, 3], forward, backward), (2, 4, 6, 8), strict=True):
        np.testing.assert_array_equal(prediction, moving_bar(column))


def test_a_chain_that_leaves_the_image_goes_on_from_the_border():
    x, y, doubtful = follow([(constant_flow(4, 0), None), (constant_flow(-1, 0), None)], (6, 10))
    np.testing.assert_array_equal(x[0], [3, 4, 5, 6, 7, 8, 8, 8, 8, 8])
    np.testing.assert_array_equal(y[:, 0], np.arange(6))
    np.testing.assert_array_equal(doubtful[0], np.arange(10) > 5)


def test_flow_is_looked_up_where_the_chain_is():
    """A step to the right, and then down only in the right half."""
    second = np.zeros((6, 10, 2), np.float32)
    second[:, 5:, 1] = 1
    _, y, _ = follow([(constant_flow(3, 0), None), (second, None)], (6, 10))
    np.testing.assert_array_equal(y[0], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1])


def test_flow_that_is_not_finite_is_no_motion():
    x, _, doubtful = follow([(np.full((6, 10, 2), np.nan, np.float32), None)], (6, 10))
    np.testing.assert_array_equal(x[0], np.arange(10))
    assert doubtful.all()


def test_missing_flow_names_the_frame():
    with pytest.raises(ValueError, match="Frame 1 has no optical flow to frame 0"):
        chained_flow([moving_bar(0), None], [0], [None, None], [None, None])


def test_figures_on_balloon1():
    """Copied 0.341 and chained 0.653 dataset mIoU on the unlabelled frames, as measured independently."""
    scene = DATA / "semantic_nvidia" / "Balloon1"
    if not scene.is_dir():
        pytest.skip(f"{scene} is not there")
    iio = pytest.importorskip("imageio.v3")
    rows = (scene.parent / "labelmap.txt").read_text().splitlines()[1:]
    colors = np.array([row.split(":")[1].split(",") for row in rows if row], dtype=np.int64)
    images = [iio.imread(scene / f"SegmentationClass_train/{t:03d}.png")[..., :3].astype(np.int64) for t in range(12)]
    labels = [np.argmin(np.abs(image[..., None, :] - colors).sum(-1), axis=-1) for image in images]
    forward = [np.load(scene / f"flow/{t:03d}_fwd.npz")["flow"] for t in range(11)] + [None]
    backward = [None] + [np.load(scene / f"flow/{t:03d}_bwd.npz")["flow"] for t in range(1, 12)]

    labelled = [0, 1, 11]
    seen = [image if t in labelled else None for t, image in enumerate(labels)]
    scores = []
    for predictions in (nearest_labelled(seen, labelled, 12), chained_flow(seen, labelled, forward, backward)):
        matrix = ConfusionMatrix(len(colors))
        for t in set(range(12)) - set(labelled):
            matrix.update(predictions[t], labels[t])
        scores.append(matrix.miou)
    assert scores == pytest.approx([0.341, 0.653], abs=0.002)


def test_a_linear_head_learns_what_one_picture_tells():
    """Two features; the class is the larger one. A frame without labels is predicted from its own features."""
    features = torch.randn(3, 6, 8, 2, generator=torch.Generator().manual_seed(0))
    truth = [frame.argmax(dim=-1).numpy() for frame in features]
    found = linear_head(features, {0: truth[0], 1: np.where(truth[1] > 0, 1, -1)}, num_classes=2)
    assert len(found) == 3
    assert (found[0] == truth[0]).mean() > 0.95 and (found[2] == truth[2]).mean() > 0.9
    with pytest.raises(ValueError, match="labelled pixel"):
        linear_head(features, {0: np.full((6, 8), -1)}, num_classes=2)
