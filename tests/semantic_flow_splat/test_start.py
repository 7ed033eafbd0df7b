"""Depth of every pixel, and trajectories from flow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from semfield_ns.semantic_flow_splat.depths import complete, fill, fit_line, triangulate, video_depths
from semfield_ns.semantic_flow_splat.start import start
from semfield_ns.semantic_flow_splat.tracks import spread
from semfield_ns.semantic_flow_splat.video import MadeOnDemand, VideoFrame, at_pixels, longest_video

HEIGHT, WIDTH, FOCAL = 24, 32, 30.0


def make_frame(step: int, place: float = 0.0, moving_at: int | None = None, depth: float = 4.0) -> VideoFrame:
    """A camera at x = `place` that looks along -z at a plane; a column of pixels moves."""
    pose = torch.eye(4)[:3]
    pose[0, 3] = place
    moving = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    if moving_at is not None:
        moving[:, moving_at : moving_at + 4] = True
    flow = torch.zeros(HEIGHT, WIDTH, 3)
    flow[..., 2] = 1
    image = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(step))
    intrinsics = torch.tensor([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2])
    return VideoFrame(step, pose, intrinsics, image, torch.full((HEIGHT, WIDTH), depth), moving, flow, flow.clone())


def test_points_are_lifted_to_where_they_are_projected_from():
    frame = make_frame(0, place=0.5)
    pixels = frame.pixels()[5, 7][None]
    point = frame.lift(pixels, torch.tensor([4.0]))[0]
    expected = torch.tensor([0.5 + (7.5 - 16) / 30 * 4, -(5.5 - 12) / 30 * 4, -4.0])
    assert torch.allclose(point, expected, atol=1e-5)


def test_flow_of_a_plane_gives_its_depth():
    first, second = make_frame(0), make_frame(1, place=0.3)
    flow = first.forward.clone()
    flow[..., 0] = -FOCAL * 0.3 / 4.0
    inverse, weight = triangulate(first, second, flow)
    assert torch.allclose(inverse, torch.full_like(inverse, 0.25), atol=1e-4) and float(weight.min()) > 0
    flow[0, 0, 2] = 0
    assert float(triangulate(first, second, flow)[1][0, 0]) == 0


def test_disparity_is_brought_to_depth_by_what_the_flow_tells():
    frames = []
    generator = torch.Generator().manual_seed(0)
    depth = 2 + 4 * torch.rand(HEIGHT, WIDTH, generator=generator)
    for step in range(2):
        frame = make_frame(step, place=0.3 * step)
        flow = frame.forward.clone()
        flow[..., 0] = (-1 if step == 0 else 1) * FOCAL * 0.3 / depth
        disparity = 7 * (1 / depth - 0.05)
        ways = (flow, None) if step == 0 else (None, flow)
        frames.append(
            VideoFrame(step, frame.pose, frame.intrinsics, frame.image, disparity, frame.moving, ways[0], ways[1])
        )
    found = video_depths(frames, "disparity", 1.0, 20.0)
    assert torch.allclose(found[0], depth, rtol=1e-3) and torch.allclose(found[1], depth, rtol=1e-3)


def test_a_line_is_fitted_past_outliers():
    x = torch.linspace(0, 1, 400)
    y = 3 * x + 0.5
    y[::5] = 40.0
    slope, offset = fit_line(x, y, torch.ones_like(x))
    assert abs(slope - 3) < 0.1 and abs(offset - 0.5) < 0.1
    assert fit_line(torch.ones(400), y, torch.ones(400)) is None
    assert fit_line(x[:10], y[:10], torch.ones(10)) is None


def test_holes_take_the_nearest_depth():
    depth = torch.zeros(3, 5)
    depth[1, 1], depth[1, 4] = 2.0, 5.0
    filled = fill(depth, depth > 0)
    assert float(filled[0, 0]) == 2 and float(filled[2, 4]) == 5
    assert torch.equal(fill(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool)), torch.zeros(2, 2))


def test_a_moving_thing_of_unknown_depth_stands_before_what_it_hides():
    depth = torch.full((40, 60), 8.0)
    depth[20:] = torch.linspace(8, 3, 20)[:, None]  # a floor that comes nearer
    moving = torch.zeros(40, 60, dtype=torch.bool)
    moving[10:30, 10:20] = True  # stands on the floor at row 30
    moving[5:15, 40:50] = True
    known = ~moving
    known[5:15, 40:45] = True  # half of it is measured
    depth[5:15, 40:45] = 2.0
    found = complete(depth, known, moving)
    assert torch.equal(found[~moving], depth[~moving])
    own = found[10:30, 10:20]
    assert float(own.min()) == float(own.max())
    assert abs(float(own.min()) - float(depth[30, 0])) < 0.5
    assert torch.equal(found[5:15, 40:50], torch.full((10, 10), 2.0))
    assert torch.equal(complete(depth, torch.ones_like(moving), moving), depth)


def test_from_one_place_what_moves_is_before_the_rest():
    still = replace(make_frame(0, moving_at=8), depth=None)
    depth = video_depths([still, replace(make_frame(1, moving_at=8), depth=None)], None, 1.0, 4.0)[0]
    assert len(depth[~still.moving].unique()) == 1
    assert 1.0 < float(depth[still.moving].max()) < float(depth[~still.moving].min()) < 4.0


def test_moving_points_follow_the_flow_and_still_ones_do_not():
    frames = [make_frame(step, moving_at=8 + 2 * step) for step in range(4)]
    for frame in frames:
        frame.forward[frame.moving, 0] = 2.0
        frame.backward[frame.moving, 0] = -2.0
    found = start(frames, [frame.depth for frame in frames], 4, 3000)
    assert len(found.tracks) > 0 and len(found.still) > 0
    step = found.tracks[:, 1:] - found.tracks[:, :-1]
    expected = torch.tensor([2.0 * 4 / FOCAL, 0.0, 0.0])
    assert torch.allclose(step[found.seen[:, 1:] & found.seen[:, :-1]], expected, atol=1e-4)
    assert bool(found.seen.all(dim=1).any())
    assert len(found.colors) == len(found.spacing) == len(found.still) + len(found.tracks)


def test_a_lost_point_goes_on_as_its_neighbours():
    frames = [make_frame(step, moving_at=8 + 2 * step) for step in range(3)]
    for frame in frames:
        frame.forward[frame.moving, 0] = 2.0
        frame.backward[frame.moving, 0] = -2.0
    frames[1].forward[: HEIGHT // 4, :, 2] = 0
    found = start(frames, [frame.depth for frame in frames], 3, 3000)
    lost = ~found.seen[:, 2] & found.seen[:, 0]
    assert bool(lost.any())
    step = found.tracks[lost][:, 2] - found.tracks[lost][:, 1]
    assert torch.allclose(step[:, 0], torch.full((int(lost.sum()),), 2 * 4 / FOCAL), atol=1e-3)


def test_a_thing_that_is_faster_than_all_others_is_followed():
    frames = [make_frame(step) for step in range(3)]
    for step, frame in enumerate(frames):
        slow, fast = slice(2, 14), slice(16 + 6 * step, 20 + 6 * step)
        frame.moving[:, slow] = frame.moving[:, fast] = True
        frame.forward[:, slow, 0], frame.backward[:, slow, 0] = 0.1, -0.1
        frame.forward[:, fast, 0], frame.backward[:, fast, 0] = 6.0, -6.0
    found = start(frames, [frame.depth for frame in frames], 3, 3000)
    way = found.tracks[:, 2, 0] - found.tracks[:, 0, 0]
    fast = (way - 12 * 4 / FOCAL).abs() < 1e-3
    assert int(fast.sum()) > 50
    assert bool(found.seen[fast].all())


def test_a_thing_that_is_seen_between_anchors_is_found():
    frames = [make_frame(step, moving_at=8 if step == 3 else None) for step in range(12)]
    frames[0].moving[:2, :2] = True
    found = start(frames, [frame.depth for frame in frames], 12, 3000)
    assert int(found.seen[:, 3].sum()) > 50


def test_sharp_frames_are_preferred_where_one_is_near():
    assert spread(11, 3) == [0, 5, 10]
    assert spread(11, 3, sharp=[1, 4, 9]) == [1, 4, 9]
    assert spread(11, 3, sharp=[0]) == [0, 5, 10]
    assert spread(11, 1, sharp=[3]) == [0]


def test_there_are_never_more_gaussians_than_allowed():
    frames = [make_frame(step, moving_at=8) for step in range(3)]
    found = start(frames, [frame.depth for frame in frames], 3, 200)
    assert 0 < len(found.colors) <= 200


def test_a_scene_in_which_nothing_moves_has_no_tracks():
    frames = [make_frame(step) for step in range(3)]
    found = start(frames, [frame.depth for frame in frames], 3, 500)
    assert found.tracks.shape == (0, 3, 3) and len(found.still) > 0


def test_the_longest_video_is_chosen_and_pixels_outside_are_the_borders():
    assert longest_video(["a", "b", "b", "a", "b"]) == [1, 2, 4]
    image = torch.from_numpy(np.arange(12).reshape(3, 4))
    assert at_pixels(image, torch.tensor([[-3.0, 0.5], [9.0, 9.0]])).tolist() == [0, 11]


def test_frames_are_kept_as_far_as_the_budget_goes_and_give_the_same_start():
    frames = [make_frame(step, moving_at=8 + 2 * step) for step in range(6)]
    for frame in frames:
        frame.forward[frame.moving, 0] = 2.0
        frame.backward[frame.moving, 0] = -2.0
    read = []

    def make(place: int) -> VideoFrame:
        read.append(place)
        return frames[place]

    few = MadeOnDemand(6, make, lambda frame: frame.num_bytes, 2 * frames[0].num_bytes)
    assert few[3] is frames[3] and few[3] is frames[3] and read == [3]
    few[4], few[5], few[3]
    assert read == [3, 4, 5, 3]
    with pytest.raises(IndexError):
        few[6]
    expected = start(frames, [frame.depth for frame in frames], 6, 3000)
    found = start(few, video_depths(few, "metric", 1.0, 20.0, budget=0), 6, 3000)
    assert torch.equal(found.tracks, expected.tracks) and torch.equal(found.still, expected.still)
    assert len(few._kept) <= 2
