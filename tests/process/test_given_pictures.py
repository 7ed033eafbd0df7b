"""Pictures beside poses: which frames they are, and how they were turned."""

import json

import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import write_png
from semfield_ns.process.geometry import Camera
from semfield_ns.process.given_poses import import_poses, resized, turned
from semfield_ns.process.names import FrameNames, PickedFrames
from tests.process.helpers import HEIGHT, WIDTH, camera, pose, sliding


def written(folder, pictures, names, exif=None):
    """A transforms.json of pictures whose camera is at x = 0, 1, 2, ..."""
    frames = []
    (folder / "images").mkdir(parents=True)
    for n, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        Image.fromarray(picture).save(folder / "images" / name, **({"exif": exif, "quality": 95} if exif else {}))
        frames.append({"file_path": f"images/{name}", "transform_matrix": pose(float(n)).tolist()})
    size = {"w": pictures[0].shape[1], "h": pictures[0].shape[0]}
    lens = {"fl_x": 150.0, "fl_y": 140.0, "cx": 70.0, "cy": 65.0}
    (folder / "transforms.json").write_text(json.dumps(lens | size | {"near": 1, "far": 9, "frames": frames}))
    return folder


def picked(folder, pictures, places):
    for n, place in enumerate(places):
        write_png(folder / f"{n:04d}.png", pictures[place])
    return PickedFrames(tuple(FrameNames(n, place, "") for n, place in enumerate(places)), (), len(pictures))


def positions(found):
    return {number: round(c2w[0, 3]) for number, c2w in found.poses.items()}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("every, upto", [(1, 12), (1, 10), (2, 12)])
def test_the_pictures_tell_from_where_their_names_count(tmp_path, first, every, upto):
    """Frames 1 to 10 of 12 could be 0 to 9 as well; of every second frame, both readings are in range."""
    pictures = sliding(12)
    frames = picked(tmp_path / "picked", pictures, range(0, 12, every))
    names = [f"{n + first:05d}.png" for n in range(12)][:upto]
    folder = written(tmp_path / "given", pictures[:upto], names)
    found = import_poses(folder, frames, (WIDTH, HEIGHT), 12, tmp_path / "picked")
    assert positions(found) == {n: place for n, place in enumerate(range(0, 12, every)) if place < upto}


def test_pictures_of_other_frames_are_refused(tmp_path):
    """Every second frame of the video, numbered anew: no reading of the numbers is right."""
    pictures = sliding(24)
    frames = picked(tmp_path / "picked", pictures, range(24))
    folder = written(tmp_path / "given", pictures[::2], [f"frame_{n:05d}.png" for n in range(1, 13)])
    with pytest.raises(SemfieldError, match="pictures that are not those of the frames which their names mean"):
        import_poses(folder, frames, (WIDTH, HEIGHT), 24, tmp_path / "picked")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_cameras_see_what_the_turned_picture_shows(orientation):
    stored = Camera(150.0, 140.0, 70.0, 65.0, WIDTH, HEIGHT, np.array([0.1, -0.02, 0, 0, 0.003, -0.002]))
    here = pose(0.3, 0.1, turn=0.2)
    shown, there = turned(stored, here, orientation)
    points = np.random.default_rng(0).uniform([-1, -1, 3], [1, 1, 6], (50, 3)) * [1, -1, -1]
    pixels = []
    for lens, c2w in ((stored, here), (shown, there)):
        w2c = np.linalg.inv(c2w)
        pixels.append(lens.project((points @ w2c[:3, :3].T + w2c[:3, 3]) * [1, -1, -1]))
    x, y = pixels[0].T
    truth = {3: (WIDTH - x, HEIGHT - y), 6: (HEIGHT - y, x), 8: (y, WIDTH - x)}[orientation]
    np.testing.assert_allclose(pixels[1], np.stack(truth, axis=-1), atol=1e-6)
    assert (shown.width, shown.height) == ((WIDTH, HEIGHT) if orientation == 3 else (HEIGHT, WIDTH))


@pytest.mark.parametrize("orientation, size", [(3, (WIDTH, HEIGHT)), (6, (HEIGHT, WIDTH)), (8, (HEIGHT, WIDTH))])
def test_poses_of_photos_that_lie_on_their_side(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures = sliding(5)
    folder = written(tmp_path / "given", pictures, [f"{n}.jpg" for n in range(5)], exif)
    upright = [np.rot90(p, {3: 2, 6: 3, 8: 1}[orientation]).copy() for p in pictures]
    frames = picked(tmp_path / "picked", upright, range(5))
    found = import_poses(folder, frames, size, 5, tmp_path / "picked")
    lens = found.cameras[0]
    assert (lens.width, lens.height) == size
    assert {round(lens.fx), round(lens.fy)} == {150, 140} and (lens.fx > lens.fy) == (orientation == 3)


def test_cameras_of_another_shape_are_refused():
    assert resized(camera(), (80, 60), "x").fx == camera().fx / 2
    for size in ((HEIGHT, WIDTH), (WIDTH, WIDTH), (WIDTH, HEIGHT - 8)):
        with pytest.raises(SemfieldError, match="another shape: the pictures were cropped or turned"):
            resized(camera(), size, "given")
