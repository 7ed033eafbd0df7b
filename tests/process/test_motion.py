from dataclasses import replace

import cv2
import numpy as np
import pytest

from semfield_ns.process import motion
from semfield_ns.process.geometry import fit_depth
from tests.process.helpers import HEIGHT, WIDTH, camera, pose, texture, view_of


def wavy_depth():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return 3 + np.sin(x / 17) + 0.8 * np.cos(y / 13)


def test_flow_of_a_moving_camera_is_explained_and_that_of_a_thing_is_not():
    view = view_of(wavy_depth(), pose(0.0), pose(0.3, 0.05, 0.1))
    view.flow[30:60, 50:90] += [3.0, 8.0]
    evidence = motion.unexplained(view.flow, view.valid)
    assert (evidence[32:58, 52:88] > 0).mean() > 0.95
    assert (evidence[80:] > 0).mean() < 0.05


def test_what_stands_before_a_wall_is_not_taken_for_motion():
    depth = np.full((HEIGHT, WIDTH), 6.0)
    depth[20:100, 60:100] = 3.0
    view = view_of(depth, pose(0.0), pose(0.3, 0.1))
    view.flow[30:60, 20:40] += [0.0, 15.0]
    evidence = motion.unexplained(view.flow, view.valid)
    assert (evidence[20:100, 60:100] > 0).mean() < 0.02
    assert (evidence[32:58, 22:38] > 0).mean() > 0.95


def test_posed_frames_show_motion_where_there_is_texture_to_see_it():
    depth, here = wavy_depth(), pose(0.0)
    views = [view_of(depth, here, there) for there in (pose(-0.2), pose(0.2), pose(0.4, 0.1))]
    for place, view in enumerate(views):
        view.flow[30:60, 50:90] += [0.0, 4.0 * (place + 1)]
        view.flow[80:110, 50:90] += [0.0, 4.0 * (place + 1)]
    rgb = texture(0, HEIGHT, WIDTH)
    rgb[75:, :] = 128  # a blank wall: flow there is a guess
    fit = fit_depth(camera(), views)
    evidence, weight = motion.not_static(fit, views, motion.texture(rgb))
    assert (evidence[35:55, 55:85] > 0.5).mean() > 0.9
    assert (evidence[85:105, 55:85] > 0).mean() < 0.1 and weight[85:105].max() < 0.3
    assert (evidence[5:25] > 0).mean() < 0.05


@pytest.mark.parametrize("error", [-0.02, 0.02])
def test_poses_that_are_a_little_off_make_nothing_move_that_is_far(error):
    depth = np.full((HEIGHT, WIDTH), 1000.0)
    depth[90:] = 3.3
    views = []
    for x in (-1.0, 1.0, 2.0):
        view = view_of(depth, pose(0.0), pose(x))
        off = np.eye(4)
        off[:3, :3] = cv2.Rodrigues(np.array([0.0, error * x, 0.0]))[0]
        views.append(replace(view, relative=off @ view.relative))
    rgb = texture(0, HEIGHT, WIDTH)
    evidence, _ = motion.not_static(fit_depth(camera(), views), views, motion.texture(rgb))
    assert (evidence[5:80, 20:140] > 0).mean() < 0.05


def test_a_mask_follows_the_edges_of_a_thing():
    rgb = texture(1, HEIGHT, WIDTH) // 3
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[30:80, 50:100] = True
    rgb[truth] = [220, 60, 60]
    evidence = np.full(truth.shape, -1.0)
    evidence[24:86, 44:106] = -0.2
    evidence[36:74, 56:94] = 1.0
    mask = motion.to_mask(motion.smoothed(evidence), rgb)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85


def test_no_evidence_makes_no_mask_and_islands_go():
    rgb = texture(2, HEIGHT, WIDTH)
    assert not motion.to_mask(np.full((HEIGHT, WIDTH), -0.5), rgb).any()
    mask = np.zeros((50, 50), bool)
    mask[10:30, 10:30] = True
    mask[15, 15] = False
    mask[45, 45] = True
    clean = motion.without_islands(mask, 5)
    assert clean[15, 15] and not clean[45, 45] and clean.sum() == 400


def test_evidence_is_joined_over_what_is_known():
    a, b = np.array([[1.0, 0.0, 0.0]]), np.array([[-0.5, 0.5, 0.0]])
    assert np.allclose(motion.joined([a, b]), [[0.25, 0.5, 0.0]])


def test_a_thing_that_moves_in_part_moves_as_a_whole_and_a_parked_one_stays():
    things = np.zeros((40, 60), bool)
    things[5:15, 5:25] = things[20:35, 30:55] = True
    mask = np.zeros((40, 60), bool)
    mask[5:15, 20:28] = True  # a quarter of the first, and a bit beside it
    mask[20:22, 30:40] = True  # a twentieth of the second
    found = motion.completed(mask, things)
    assert found[5:15, 5:28].all() and (found[20:35, 30:55] == mask[20:35, 30:55]).all()
