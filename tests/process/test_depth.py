import numpy as np
import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.process import depth
from semfield_ns.process.geometry import fit_depth
from tests.process.helpers import HEIGHT, WIDTH, camera, pose, view_of


def test_static_pixels_get_their_depth_and_moving_ones_none():
    truth = np.full((HEIGHT, WIDTH), 3.0)
    truth[:, 80:] = 5.0
    views = [view_of(truth, pose(0.0), pose(x)) for x in (-0.3, 0.3)]
    moving = np.zeros(truth.shape, bool)
    moving[:20] = True
    found = depth.triangulated(fit_depth(camera(), views), moving, np.ones(truth.shape))
    assert not found[:20].any()
    known = found > 0
    assert known[20:].mean() > 0.95 and np.abs(found / truth - 1)[known].max() < 0.01


def test_without_parallax_there_is_no_depth():
    truth = np.full((HEIGHT, WIDTH), 3.0)
    views = [view_of(truth, pose(0.0), pose(x)) for x in (-0.001, 0.001)]
    found = depth.triangulated(fit_depth(camera(), views), np.zeros(truth.shape, bool), np.ones(truth.shape))
    assert not found.any()


def test_lonely_depths_go():
    values = np.full((20, 20), 2.0, np.float32)
    values[5, 5] = 9.0
    values[10] = 0
    clean = depth.without_outliers(values)
    assert clean[5, 5] == 0 and not clean[10].any() and (clean == 2).sum() == 379


@pytest.mark.parametrize("metric", [True, False])
def test_predicted_depth_is_fitted_to_points_in_spite_of_wrong_ones(metric):
    generator = np.random.default_rng(0)
    truth = 2 + 3 * generator.random((40, 60))
    predicted = truth / 7 if metric else 11 * (1 / truth) - 1.5
    pixels = np.floor(generator.random((80, 2)) * [60, 40]) + 0.5
    sparse = truth[pixels[:, 1].astype(int), pixels[:, 0].astype(int)]
    sparse[:12] *= 3
    assert np.abs(depth.fit_to_points(predicted, pixels, sparse, metric) / truth - 1).max() < 0.02


def test_a_picture_that_tells_nothing_gives_a_flat_map():
    pixels = np.random.default_rng(0).random((30, 2)) * 20
    near = np.linspace(2, 4, 30)
    predicted = np.zeros((20, 20))
    predicted[np.floor(pixels[:, 1]).astype(int), np.floor(pixels[:, 0]).astype(int)] = near  # inverted
    found = depth.fit_to_points(predicted, pixels, near, metric=False)
    assert np.isfinite(found).all() and (found > 0).all()


def test_too_few_points_are_an_error():
    with pytest.raises(SemfieldError, match="too few to fit"):
        depth.fit_to_points(np.ones((5, 5)), np.ones((3, 2)), np.ones(3), False)


def test_sparse_points_make_a_map_and_the_nearest_wins():
    pixels = np.array([[2.5, 1.5], [2.6, 1.4], [7.9, 3.9]])
    found = depth.from_points(pixels, np.array([4.0, 2.0, 3.0]), 4, 8)
    assert found[1, 2] == 2 and found[3, 7] == 3 and (found > 0).sum() == 2
    assert depth.relative_error(found, pixels[1:], np.array([2.0, 6.0])).tolist() == [0.0, 0.5]
    assert depth.reduced([]) is None and depth.preview(found).shape == (4, 8, 3)
