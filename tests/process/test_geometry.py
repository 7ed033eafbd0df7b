import numpy as np
import pytest

from semfield_ns.process.geometry import Camera, fit_depth, pixel_grid, relative_pose, sampson_distance
from tests.process.helpers import HEIGHT, WIDTH, camera, pose, view_of


def bent_camera():
    return Camera(140.0, 150.0, 82.0, 58.0, WIDTH, HEIGHT, np.array([-0.1, 0.02, 0.0, 0.0, 0.001, -0.002]))


@pytest.mark.parametrize("lens", [camera(), bent_camera()], ids=["pinhole", "bent"])
def test_pixels_come_back_from_their_rays(lens):
    grid = pixel_grid(HEIGHT, WIDTH)
    points = np.concatenate([lens.normalise(grid), np.ones((HEIGHT, WIDTH, 1))], axis=-1) * 3
    assert np.abs(lens.project(points) - grid).max() < 1e-4


@pytest.mark.parametrize("lens", [camera(), bent_camera()], ids=["pinhole", "bent"])
def test_depth_comes_back_from_exact_flow(lens):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    depth = 2 + 0.02 * x + 0.01 * y
    here = pose(0.0)
    views = [view_of(depth, here, there, lens) for there in (pose(0.2), pose(-0.1, z=0.3), pose(0.1, 0.1, turn=0.05))]
    fit = fit_depth(lens, views)
    assert np.abs(fit.inverse_depth * depth - 1).max() < 1e-3
    assert fit.residual.max() < 1e-2
    assert (fit.count == 3).all() and (fit.parallax > 0).all()


def test_a_moving_pixel_has_a_residual_and_a_static_one_has_not():
    depth = np.full((HEIGHT, WIDTH), 3.0)
    here = pose(0.0)
    views = [view_of(depth, here, pose(x)) for x in (-0.2, 0.2)]
    for view in views:
        view.flow[40:60, 40:60, 1] += 4  # across the epipolar lines, to the same side both times
    fit = fit_depth(camera(), views)
    assert fit.residual[45:55, 45:55].min() > 3
    assert fit.residual[80:, 80:].max() < 0.1


def test_motion_along_the_epipolar_line_is_found_from_two_sides():
    depth = np.full((HEIGHT, WIDTH), 3.0)
    views = [view_of(depth, pose(0.0), pose(x)) for x in (-0.2, 0.2)]
    for view in views:
        view.flow[40:60, 40:60, 0] += 4
    assert fit_depth(camera(), views).residual[45:55, 45:55].min() > 3


def test_without_a_view_nothing_is_known():
    fit = fit_depth(camera(), [])
    assert np.isnan(fit.residual).all() and np.isinf(fit.sigma).all() and not fit.count.any()


def test_sampson_distance_is_the_pixels_off_the_line():
    depth, here, there = np.full((HEIGHT, WIDTH), 3.0), pose(0.0), pose(0.3)
    view, lens = view_of(depth, here, there), camera()
    grid = pixel_grid(HEIGHT, WIDTH)
    turn = relative_pose(here, there)
    exact = sampson_distance(lens.normalise(grid), lens.normalise(grid + view.flow), turn) * lens.focal
    moved = sampson_distance(lens.normalise(grid), lens.normalise(grid + view.flow + [0, 2.0]), turn) * lens.focal
    assert exact.max() < 1e-3
    assert np.allclose(moved, np.sqrt(2), atol=0.05)  # half of 2 px in each image
