"""Scenes as COLMAP leaves them."""

import numpy as np
import pytest
from nerfstudio.data.utils import colmap_parsing_utils as colmap
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.formats import is_scene, read_scene

WIDTH, HEIGHT = 40, 30
CENTRES = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [1.0, 0.1, 0.2]])
POINTS = np.array([[0.2, 0.1, -4.0], [0.5, -0.3, -6.0]])


def turned(degrees):
    angle = np.radians(degrees)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    return pose


def write_colmap(folder, suffix=".bin", model="OPENCV", size=(WIDTH, HEIGHT), names=("c.png", "a.png", "b.png")):
    """Three images whose names are not in the order of their ids; returns their OpenGL poses by name."""
    (folder / "images").mkdir(parents=True)
    (folder / "sparse" / "0").mkdir(parents=True)
    params = {"OPENCV": [50, 52, 20, 15, 0.1, 0.01, 0.001, 0.002], "OPENCV_FISHEYE": [50, 52, 20, 15, 0.1, 0.2, 0, 0]}
    params["FOV"] = [50, 52, 20, 15, 0.5]
    cameras = {7: colmap.Camera(7, model, WIDTH, HEIGHT, np.array(params[model], dtype=float))}
    images, poses = {}, {}
    for index, centre in enumerate(CENTRES):
        name, pose = names[index], turned(10 * index)
        pose[:3, 3] = centre
        poses[name] = pose
        opencv = pose @ np.diag([1, -1, -1, 1])
        inverse = np.linalg.inv(opencv)
        rotation = colmap.rotmat2qvec(inverse[:3, :3])
        nothing = np.zeros((0, 2)), np.zeros(0, dtype=int)
        images[index + 1] = colmap.Image(index + 1, rotation, inverse[:3, 3], 7, name, *nothing)
        Image.new("RGB", size).save(folder / "images" / name)
    empty = np.zeros(0, dtype=int)
    points = {i: colmap.Point3D(i, xyz, np.zeros(3, dtype=int), 0.5, empty, empty) for i, xyz in enumerate(POINTS)}
    colmap.write_model(cameras, images, points, str(folder / "sparse" / "0"), suffix)
    return poses


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_cameras_poses_and_points(tmp_path, suffix):
    poses = write_colmap(tmp_path / "s", suffix)
    assert is_scene(tmp_path / "s") and not is_scene(tmp_path)
    scene = read_scene(tmp_path / "s")
    assert [frame.image_path.name for frame in scene.train] == ["a.png", "b.png", "c.png"]
    for frame in scene.train:
        np.testing.assert_allclose(frame.c2w, poses[frame.image_path.name], atol=1e-9)
        assert (frame.fx, frame.fy, frame.cx, frame.cy) == (50, 52, 20, 15)
        np.testing.assert_allclose(frame.distortion, [0.1, 0.01, 0, 0, 0.001, 0.002])
    np.testing.assert_allclose(scene.points, POINTS)


def test_a_fisheye_is_read_as_one(tmp_path):
    write_colmap(tmp_path / "s", model="OPENCV_FISHEYE")
    for frame in read_scene(tmp_path / "s").train:
        assert frame.fisheye
        np.testing.assert_allclose(frame.distortion, [0.1, 0.2, 0, 0, 0, 0])


def test_reduced_images_have_reduced_cameras(tmp_path):
    write_colmap(tmp_path / "s", size=(WIDTH // 2, HEIGHT // 2))
    frame = read_scene(tmp_path / "s").train[0]
    assert (frame.fx, frame.fy, frame.cx, frame.cy) == (25, 26, 10, 7.5)


def test_bad_models_are_one_sentence(tmp_path):
    write_colmap(tmp_path / "fov", model="FOV")
    with pytest.raises(SemfieldError, match="FOV camera, which is not supported"):
        read_scene(tmp_path / "fov")
    write_colmap(tmp_path / "crop", size=(WIDTH, WIDTH))
    with pytest.raises(SemfieldError, match="is no reduction"):
        read_scene(tmp_path / "crop")
    write_colmap(tmp_path / "broken")
    (tmp_path / "broken" / "sparse" / "0" / "images.bin").write_bytes(b"\x03")
    with pytest.raises(SemfieldError, match=r"Cannot read the COLMAP model's .*images\.bin"):
        read_scene(tmp_path / "broken")
    write_colmap(tmp_path / "lost")
    (tmp_path / "lost" / "images" / "b.png").unlink()
    with pytest.raises(SemfieldError, match=r"b\.png"):
        read_scene(tmp_path / "lost")


# --- text as people and programs write it ----------------------------------------------------------------------------

CAMERAS = "1 PINHOLE 40 30 50 50 20 15\n"
IMAGES = "".join(f"{n} 2 0 0 0 {0.1 * n} 0 0 1 walk {n} b.png\n\n" for n in (1, 2, 3))


def written(root, cameras=CAMERAS, images=IMAGES):
    model = root / "sparse" / "0"
    (root / "images").mkdir(parents=True)
    model.mkdir(parents=True)
    for n in (1, 2, 3):
        Image.new("RGB", (40, 30)).save(root / "images" / f"walk {n} b.png")
    (model / "cameras.txt").write_bytes(cameras.encode())
    (model / "images.txt").write_bytes(images if isinstance(images, bytes) else images.encode())
    return root


@pytest.mark.parametrize(
    "images",
    [IMAGES, IMAGES.replace("\n", "\r\n"), b"\xef\xbb\xbf# comment\n" + IMAGES.encode(), "# a\n" + IMAGES + "# b\n"],
)
def test_text_with_spaces_comments_and_marks(tmp_path, images):
    scene = read_scene(written(tmp_path / "s", images=images))
    assert [frame.image_path.name for frame in scene.train] == ["walk 1 b.png", "walk 2 b.png", "walk 3 b.png"]
    assert [frame.c2w[0, 3] for frame in scene.train] == pytest.approx([-0.1, -0.2, -0.3])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "change, told",
    [
        ({"images": IMAGES.replace("\n\n", "\n")}, "the line of corners after walk 1 b.png is missing"),
        ({"images": IMAGES.replace("1 2 0 0 0", "1 0 0 0 0")}, "the quaternion of its pose is zero"),
        ({"images": IMAGES.replace("1 2 0 0 0", "1 nan 0 0 0")}, "contains NaN"),
        ({"images": "words\n"}, "Cannot read the COLMAP model's .*images.txt"),
        ({"images": ""}, "has no registered image"),
        ({"images": IMAGES.encode("utf-16")}, "Cannot read the COLMAP model's .*images.txt"),
        ({"cameras": ""}, "has no camera 1, which walk 1 b.png names"),
        ({"cameras": "1 PINHOLE 40 30 50 50\n"}, "camera 1 has 2 parameters, too few for the model PINHOLE"),
        ({"cameras": "1 FOV 40 30 50 50 20 15 0.9\n"}, "a FOV camera, which is not supported: undistort"),
        ({"cameras": "1 PINHOLE 30 40 50 50 15 20\n"}, "no reduction of its camera's 30x40"),
    ],
)
def test_bad_text(tmp_path, change, told):
    with pytest.raises(SemfieldError, match=told):
        read_scene(written(tmp_path / "s", **change))
