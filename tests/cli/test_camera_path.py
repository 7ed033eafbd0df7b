import json
import math

import numpy as np
import pytest
import torch
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.scripts.render import get_crop_from_json

from semfield_ns.cli.camera_path import build_camera_path, interpolate_poses
from semfield_ns.errors import SemfieldError

VIEW = {"width": 160, "height": 120, "fov": 60.0}


def arc(count=6):
    """Cameras on an arc of 40 degrees, each turned with it."""
    angles = np.radians(np.linspace(-20, 20, count))
    sin, cos = np.sin(angles), np.cos(angles)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 0], poses[:, 0, 2], poses[:, 2, 0], poses[:, 2, 2] = cos, sin, -sin, cos
    poses[:, 0, 3], poses[:, 2, 3] = sin, cos
    return poses


TIMES = np.linspace(0, 1, 6)


def read(path):
    """Through a file, as ns-render does."""
    path = json.loads(json.dumps(path))
    assert get_crop_from_json(path) is None
    return get_path_from_json(path)


def test_nerfstudio_reads_back_poses_times_and_intrinsics():
    cameras = read(build_camera_path(arc(), TIMES, **VIEW, kind="train", seconds=6, fps=1))
    np.testing.assert_allclose(cameras.camera_to_worlds.numpy(), arc()[:, :3], atol=1e-6)
    np.testing.assert_allclose(cameras.times.reshape(-1).numpy(), TIMES, atol=1e-6)
    assert cameras.image_height.unique().item() == 120 and cameras.image_width.unique().item() == 160
    np.testing.assert_allclose(cameras.fy.numpy(), 60 / math.tan(math.radians(30)), rtol=1e-5)
    assert cameras[2:3].times.shape == (1, 1)


def test_length_and_frame_rate():
    path = build_camera_path(arc(), TIMES, **VIEW, seconds=2.5, fps=24)
    assert len(path["camera_path"]) == 60 and path["seconds"] == 2.5 and path["fps"] == 24
    assert 2 <= len(path["keyframes"]) <= 12
    assert path["keyframes"][-1]["matrix"] == path["camera_path"][-1]["camera_to_world"]
    assert len(build_camera_path(arc(), TIMES, **VIEW, seconds=0.01, fps=24)["camera_path"]) == 1


def test_train_is_smooth_and_in_order_of_time_whatever_the_order_given():
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = read(build_camera_path(arc()[order], TIMES[order], **VIEW, seconds=3))
    cameras = read(build_camera_path(arc(), TIMES, **VIEW, seconds=3))
    assert torch.equal(shuffled.camera_to_worlds, cameras.camera_to_worlds)
    steps = cameras.camera_to_worlds[:, :, 3].diff(dim=0).norm(dim=-1)
    assert steps.max() < 2 * steps.mean()
    assert (cameras.times.reshape(-1).diff() > 0).all()


def test_bullet_time_stands_still_while_the_camera_moves():
    cameras = read(build_camera_path(arc(), TIMES, **VIEW, kind="bullet-time", seconds=2, at=0.3))
    torch.testing.assert_close(cameras.times, torch.full_like(cameras.times, 0.3))
    np.testing.assert_allclose(cameras.camera_to_worlds[[0, -1]].numpy(), arc()[[0, -1], :3], atol=1e-6)


def test_bullet_time_sweeps_the_cameras_of_a_rig():
    poses, times = np.concatenate([arc(3), arc(3)]), np.repeat([0.0, 1.0], 3)
    poses[3:, 1, 3] += 1.0
    cameras = read(build_camera_path(poses, times, **VIEW, kind="bullet-time", seconds=3, fps=1, at=1.0))
    np.testing.assert_allclose(cameras.camera_to_worlds.numpy(), poses[3:, :3], atol=1e-6)


def test_freeze_time_lets_time_run_before_a_camera_that_stands_still():
    cameras = read(build_camera_path(arc(), TIMES, **VIEW, kind="freeze-time", seconds=2, at=0.4))
    np.testing.assert_allclose(cameras.camera_to_worlds.numpy(), np.repeat(arc()[2:3, :3], 48, 0), atol=1e-6)
    np.testing.assert_allclose(cameras.times.reshape(-1).numpy(), np.linspace(0, 1, 48), atol=1e-6)


def test_spiral_stays_near_the_mean_camera():
    cameras = read(build_camera_path(arc(), TIMES, **VIEW, kind="spiral", seconds=2))
    positions = cameras.camera_to_worlds[:, :, 3].numpy()
    extent = np.linalg.norm(arc()[0, :3, 3] - arc()[-1, :3, 3])
    distance = np.linalg.norm(positions - arc()[:, :3, 3].mean(axis=0), axis=-1)
    assert 0 < distance.max() < extent / 2
    np.testing.assert_allclose(cameras.camera_to_worlds[:, :, :3].numpy(), np.repeat(np.eye(3)[None], 48, 0), atol=1e-6)


@pytest.mark.parametrize("kind", ["train", "bullet-time", "freeze-time", "spiral"])
@pytest.mark.parametrize("count", [1, 2])
def test_rigid_and_finite_with_few_cameras(kind, count):
    cameras = read(build_camera_path(arc()[:count], TIMES[:count], **VIEW, kind=kind, seconds=1))
    rotation = cameras.camera_to_worlds[..., :3]
    assert cameras.camera_to_worlds.isfinite().all()
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(24, 3, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["train", "bullet-time", "spiral"])
def test_static_scenes_get_no_time(kind):
    assert read(build_camera_path(arc(), None, **VIEW, kind=kind)).times is None


def test_interpolation_goes_through_the_poses_and_stops_at_the_ends():
    keys = np.array([0.0, 0.1, 0.5, 0.6, 0.9, 1.0])
    np.testing.assert_allclose(interpolate_poses(keys, arc(), keys), arc(), atol=1e-9)
    np.testing.assert_allclose(interpolate_poses(keys, arc(), np.array([-1.0, 2.0])), arc()[[0, -1]], atol=1e-9)


def test_halfway_between_two_cameras_of_the_arc():
    halfway = interpolate_poses(TIMES, arc(), np.array([0.5]))[0]
    np.testing.assert_allclose(halfway, np.eye(4) + np.eye(4)[2][:, None] * np.eye(4)[3], atol=1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seconds": 0}, "seconds and fps"),
        ({"fps": -1}, "seconds and fps"),
        ({"seconds": math.nan}, "seconds and fps"),
        ({"at": 1.5}, "--at"),
        ({"c2w": arc()[:0], "times": TIMES[:0]}, "at least one training camera"),
        ({"times": None, "kind": "freeze-time"}, "static"),
    ],
)
def test_errors(change, message):
    arguments = {"c2w": arc(), "times": TIMES, **VIEW, **change}
    with pytest.raises(SemfieldError, match=message):
        build_camera_path(**arguments)
