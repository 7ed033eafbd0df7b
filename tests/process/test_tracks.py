import numpy as np
import pytest
from PIL import Image

from semfield_ns.process.geometry import world_to_camera
from semfield_ns.process.tracks import Followed, corners, follow, follow_corners, triangulate, with_corners
from tests.process.helpers import HEIGHT, WIDTH, pose, sliding, texture


def test_points_are_triangulated_from_the_views_that_see_them():
    generator = np.random.default_rng(0)
    points = generator.uniform([-1, -1, 3], [1, 1, 6], (20, 3))
    poses = np.stack([world_to_camera(pose(x, turn=0.1 * x))[:3] for x in (-0.5, 0.0, 0.2, 0.6)])
    local = np.einsum("vij,kj->vki", poses[:, :, :3], points) + poses[:, None, :, 3]
    xy, seen = local[..., :2] / local[..., 2:], np.ones((4, 20), bool)
    xy[1, :5] += 0.3  # a wrong one, in a view that does not count
    seen[1, :5] = False
    assert np.abs(triangulate(xy, poses, seen) - points).max() < 1e-6


def test_what_is_at_infinity_is_no_error():
    poses = np.stack([world_to_camera(pose(x))[:3] for x in (0.0, 0.0)])
    found = triangulate(np.zeros((2, 1, 2)), poses, np.ones((2, 1), bool))
    assert np.isfinite(found).all()


def test_corners_are_followed_to_a_fraction_of_a_pixel():
    first, second = sliding(2, step=6.0)
    start = corners(first, None, 100)
    end, good = follow(first, second, start)
    assert good.sum() > 30
    assert np.abs(end[good] - start[good] - [-6, 0]).max() < 0.1


def test_what_is_gone_is_not_found():
    first, second = texture(0, HEIGHT, WIDTH), texture(1, HEIGHT, WIDTH)
    assert follow(first, second, corners(first, None, 100))[1].mean() < 0.1


def test_no_corner_is_taken_on_what_moves(tmp_path):
    for number, picture in enumerate(sliding(4)):
        Image.fromarray(picture).save(tmp_path / f"{number:04d}.png")
    moving = np.zeros((HEIGHT, WIDTH), bool)
    moving[:, : WIDTH // 2] = True
    followed = list(follow_corners(tmp_path, range(4), dict.fromkeys(range(4), moving)))
    assert [one.frames[0] for one in followed] == [0, 1, 2, 3] and set(followed[1].frames) == {0, 1, 2}
    for one in followed:
        assert len(one.pixels[0]) and (one.pixels[0][:, 0] > WIDTH // 2 + 5).all()


def test_a_picture_without_corners_has_none(tmp_path):
    for number in range(3):
        Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / f"{number:04d}.png")
    assert list(follow_corners(tmp_path, range(3), {})) == []


def test_corners_join_a_model_of_several_cameras():
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 2, 1, 4, 50
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    model.delete_all_points2D_and_points3D()
    model.cameras[2].params = [900.0, 500.0, 400.0, -0.03]
    names = ["absent.png", *sorted(image.name for image in model.images.values())]
    images = {image.name: image for image in model.images.values()}
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 3))
    pixels = np.stack([[images[name].project_point(point) for point in points] for name in names[1:]])
    pixels, seen = np.concatenate([pixels, np.zeros((1, 10, 2))]), np.ones((9, 10), bool)
    pixels[3, :4] += 4.0  # not there, as the other frames know
    seen[1:6, 9] = False  # in too few frames
    joined = with_corners(pycolmap, model, names, [Followed([*range(1, 9), 0], pixels, seen)])
    found = list(joined.points3D.values())
    assert np.abs(np.array(sorted(point.xyz.tolist() for point in found)) - sorted(points[:9].tolist())).max() < 0.2
    assert sorted(point.track.length() for point in found) == [7] * 4 + [8] * 5
    exact = [point.xyz for point in found if point.track.length() == 8]
    assert np.abs(np.array(sorted(map(list, exact))) - sorted(points[4:9].tolist())).max() < 1e-6
    assert len(model.points3D) == 0


def test_following_corners_tells_how_far_it_is(tmp_path):
    for number, picture in enumerate(sliding(4)):
        Image.fromarray(picture).save(tmp_path / f"{number:04d}.png")
    shares: list[float] = []
    list(follow_corners(tmp_path, range(4), {}, shares.append))
    assert shares == [0.25, 0.5, 0.75, 1.0]
