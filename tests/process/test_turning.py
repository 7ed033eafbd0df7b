"""Turns and focal lengths of a camera in one place, and whether it was in one place, from pixels followed."""

import cv2
import numpy as np
import pytest

from semfield_ns.io import write_png
from semfield_ns.process.diagnosis import diagnose, gather
from semfield_ns.process.flow import dense_inverse_search, write_flows
from semfield_ns.process.geometry import far_away, relative_pose
from semfield_ns.process.turning import Matches, Turning, solve
from tests.process.helpers import camera, pose, turning, view_of, walk

SIZE = (480, 270)


def turned(count: int, focals: np.ndarray, degrees: float, outliers: float = 0.2) -> tuple[Turning, Matches]:
    """A camera that turns to the right by so many degrees in all, and noisy matches of what it sees."""
    generator = np.random.default_rng(0)
    angles = np.radians(degrees) * np.arange(count) / (count - 1)
    rotations = np.stack([cv2.Rodrigues(np.array([0.02 * np.sin(a * 9), a, 0.0]))[0] for a in angles])
    truth = Turning(rotations, focals, SIZE)
    pairs = np.array([(i, i + reach) for reach in (1, 4, 8) for i in range(count - reach)])
    here = generator.uniform((0, 0), SIZE, (len(pairs), 100, 2))
    there = np.stack([truth.lead(i, j, pixels) for (i, j), pixels in zip(pairs, here, strict=True)])
    there += 0.3 * generator.normal(size=there.shape)
    wrong = generator.random(there.shape[:2]) < outliers
    there[wrong] += (25.0, 4.0)  # a thing that moves to the right
    return truth, Matches(pairs, here, there)


def largest_error(found: Turning, truth: Turning) -> float:
    """Of the turns against the first frame, degrees."""
    mine, true = (np.swapaxes(t.rotations[:1], 1, 2) @ t.rotations for t in (found, truth))
    return max(float(np.degrees(np.linalg.norm(cv2.Rodrigues(a.T @ b)[0]))) for a, b in zip(mine, true, strict=True))


def test_turns_and_focal_length_of_wide_turns_are_found():
    truth, matches = turned(20, np.full(20, 520.0), 30)
    found = solve(matches, 20, SIZE)
    assert found.certain and np.allclose(found.focals, 520, rtol=0.01)
    assert largest_error(found, truth) < 0.05
    assert np.median(found.misses(matches)) < 0.6


def test_a_zoom_is_followed():
    truth, matches = turned(20, 500 * 1.5 ** (np.arange(20) / 19), 30)
    found = solve(matches, 20, SIZE)
    assert np.allclose(found.focals, truth.focals, rtol=0.02) and largest_error(found, truth) < 0.1


def test_a_long_lens_that_hardly_turns_has_the_usual_focal_length_or_says_it():
    _, matches = turned(12, np.full(12, 500.0), 0.3, outliers=0.0)
    found = solve(matches, 12, SIZE)
    assert not found.certain and 0.5 < found.focals.mean() / (0.85 * 480) < 2
    assert np.allclose(solve(matches, 12, SIZE, focal=500.0).focals, 500)


def test_poses_lie_in_one_place_and_lead_where_the_turns_do():
    truth, _ = turned(6, np.full(6, 500.0), 20)
    here, there = (truth.poses()[i] for i in (0, 5))
    assert np.allclose(here[:3, 3], 0)
    ray = np.array([[30.0, 50.0]])
    start, end = truth.cameras()[0], truth.cameras()[5]
    direction = np.append(start.normalise(ray)[0], 1.0) @ relative_pose(here, there)[:3, :3].T
    assert np.allclose(end.project(direction[None]), truth.lead(0, 5, ray))


def test_what_only_turns_is_far_away():
    depth = np.full((120, 160), 5.0)
    views = [view_of(depth, pose(0.0), pose(0.0, turn=turn)) for turn in (-0.1, 0.1)]
    views[0].flow[40:60, 50:90] += (3.0, 4.0)
    fit = far_away(camera(), views)
    length = np.linalg.norm(fit.offsets, axis=-1)
    assert np.allclose(length[0, 40:60, 50:90], 5, atol=1e-3) and length[1].max() < 1e-3 and (fit.count == 2).all()


def followed(folder, pictures):
    for number, picture in enumerate(pictures):
        write_png(folder / "images" / f"{number:04d}.png", picture)
    pairs = [(i, i + 1) for i in range(len(pictures) - 1)]
    write_flows(dense_inverse_search(), folder / "images", folder / "flow", pairs)
    matches = gather(folder / "images", folder / "flow", len(pictures))
    size = pictures[0].shape[1::-1]
    return diagnose(matches, solve(matches, len(pictures), size))


@pytest.mark.parametrize(
    "pictures, kind",
    [(turning(10, 0.012), "turning"), (turning(10, 0.0), "still"), (walk(10, turn=0.02), "moving")],
)
def test_turning_is_told_from_walking_and_standing(tmp_path, pictures, kind):
    assert followed(tmp_path, pictures).camera_motion == kind


def test_what_cannot_be_followed_is_not_said_to_turn(tmp_path):
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 255, (90, 120, 3)).astype(np.uint8) for _ in range(5)]
    assert followed(tmp_path, noise).camera_motion == "moving"
