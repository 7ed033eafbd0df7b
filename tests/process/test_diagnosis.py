"""Frames whose poses contradict what is followed are told from those with things that move."""

from dataclasses import replace

import numpy as np
import pytest

from semfield_ns.process.diagnosis import contradicted
from semfield_ns.process.geometry import Camera
from semfield_ns.process.models import ModelCard
from semfield_ns.process.registration import Registration
from semfield_ns.process.turning import Matches

COUNT = 12
CAMERA = Camera(400.0, 400.0, 240.0, 135.0, 480, 270)


@pytest.fixture(scope="module")
def walked() -> tuple[Registration, Matches]:
    """A walk to the right past points at many depths, of which a third move by themselves."""
    generator = np.random.default_rng(0)
    poses = {}
    for number in range(COUNT):
        poses[number] = np.eye(4)
        poses[number][:3, 3] = (0.15 * number, 0.02 * np.sin(number), 0.0)
    pairs = np.array([(i, i + reach) for reach in (1, 2, 4, 8) for i in range(COUNT - reach)])
    here = generator.uniform((0, 0), (480, 270), (len(pairs), 150, 2))
    depth = generator.uniform(3, 12, (len(pairs), 150))
    there = []
    for (a, b), pixels, z in zip(pairs, here, depth, strict=True):
        local = np.stack([*(pixels - (240, 135)).T / 400 * z, z], axis=-1) * (1, -1, -1)
        moved = (local + poses[a][:3, 3] - poses[b][:3, 3]) * (1, -1, -1)
        arrived = moved[:, :2] / moved[:, 2:] * 400 + (240, 135)
        arrived[::3] += (0.0, 4.0 * (b - a))  # falls
        there.append(arrived + 0.2 * generator.normal(size=arrived.shape))
    card = ModelCard("poses", "made", "1", "Apache-2.0")
    cameras = dict.fromkeys(range(COUNT), CAMERA)
    return Registration(cameras, poses, np.zeros((0, 3)), {}, {}, card), Matches(pairs, here, np.array(there))


def test_things_that_move_contradict_no_pose(walked):
    assert contradicted(*walked) == []


def test_frames_on_another_path_are_named_worst_first(walked):
    registration, matches = walked
    poses = {number: pose.copy() for number, pose in registration.poses.items()}
    for number, sideways in ((0, 2.0), (1, 1.0)):  # as if they had gone with what falls
        poses[number][:3, 3] += (0.0, sideways, 0.0)
    found = contradicted(replace(registration, poses=poses), matches)
    assert found == [0, 1]


def test_frames_without_a_pose_are_not_asked_about(walked):
    registration, matches = walked
    some = {number: pose for number, pose in registration.poses.items() if number % 2}
    assert contradicted(replace(registration, poses=some), matches) == []
    assert contradicted(replace(registration, poses={}), matches) == []
