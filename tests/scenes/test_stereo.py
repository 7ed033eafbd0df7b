"""Depth by plane sweeping."""

import cv2
import numpy as np
import pytest

from semfield_ns.scenes.stereo import PosedPicture, confirmed, neighbours, plane_sweep

SIZE = (64, 96)
INTRINSICS = (90.0, 90.0, 48.0, 32.0)


def texture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5).astype(float) * 3 - 256).clip(0, 255).astype(np.uint8)


def seen(shift: tuple[float, float, float], depth: float, wall: np.ndarray) -> PosedPicture:
    """A wall across the optical axis at a depth, from a camera that is shifted (x right, y up, z back)."""
    pose = np.eye(4)[:3]
    pose[:, 3] = shift
    picture = PosedPicture(np.zeros((*SIZE, 3), np.uint8), pose, INTRINSICS)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    away = depth + shift[2]
    x = (columns - INTRINSICS[2]) / INTRINSICS[0] * away + shift[0]
    y = (rows - INTRINSICS[3]) / INTRINSICS[1] * away - shift[1]
    # 50 px of the texture are one unit.
    place = ((50 * x + 150).astype(np.float32), (50 * y + 100).astype(np.float32))
    return PosedPicture(np.asarray(cv2.remap(wall, *place, cv2.INTER_CUBIC)), picture.pose, INTRINSICS)


@pytest.mark.parametrize("depth", [1.6, 2.3, 3.1])
def test_a_wall_is_found_where_it_is(depth):
    wall = texture()
    views = [seen(shift, depth, wall) for shift in ((0, 0, 0), (0.2, 0, 0), (0, -0.2, 0.1), (-0.2, 0.1, -0.1))]
    found = plane_sweep(views[0], views[1:], 1.0, 5.0)
    inner = found[8:-8, 8:-8]
    assert (inner > 0).mean() > 0.9
    assert np.quantile(np.abs(inner[inner > 0] / depth - 1), 0.98) < 0.02


def test_nothing_is_found_without_texture_or_overlap():
    grey = np.full((200, 300, 3), 120, np.uint8)
    blank = [seen((0.2 * n, 0, 0), 2.0, grey) for n in range(3)]
    assert not plane_sweep(blank[0], blank[1:], 1.0, 5.0).any()
    elsewhere = seen((50.0, 0, 0), 2.0, texture())
    assert not plane_sweep(seen((0, 0, 0), 2.0, texture()), [elsewhere], 1.0, 5.0).any()


def test_depth_is_confirmed_by_who_sees_the_same():
    wall = texture()
    first, second = seen((0, 0, 0), 2.0, wall), seen((0.1, 0, 0), 2.0, wall)
    right = np.full(SIZE, 2.0)
    agreed = confirmed(first, right, [(second, right)])
    assert agreed[:, 10:].all()
    assert not agreed[:, :4].any(), "the other one does not see that"
    assert not confirmed(first, 1.2 * right, [(second, right)]).any()
    assert not confirmed(first, right, [(second, 0 * right)]).any()
    assert not confirmed(first, 0 * right, [(second, right)]).any()


def test_neighbours_look_the_same_way():
    wall = texture()
    views = [seen((x, 0, 0), 2.0, wall) for x in (0.0, 0.3, 0.1, 0.9)]
    turned = views[1].pose @ np.diag([-1.0, 1.0, -1.0, 1.0])
    views.append(PosedPicture(wall, turned, INTRINSICS))
    assert neighbours(views, 0, 2) == [2, 1]
    assert neighbours(views, 0, 9) == [2, 1, 3]


def test_a_reduced_picture_is_of_the_same_view():
    view = seen((0, 0, 0), 2.0, texture())
    small = view.reduced(48)
    assert small.rgb.shape == (32, 48, 3)
    assert small.intrinsics == (45.0, 45.0, 24.0, 16.0)
    assert view.reduced(500).rgb.shape == view.rgb.shape
