"""Whatever is wrong with a scene, the user reads one sentence that names the file or the frame."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.dataset import SceneDataset
from tests.scenes.helpers import (
    HEIGHT,
    PALETTE,
    WIDTH,
    class_ids,
    constant_flow,
    edit,
    llff_rows,
    read_meta,
    save_npz,
    save_png,
    write_llff_scene,
    write_meta,
    write_nvidia_scene,
    write_transforms_scene,
)


def load(root, **fields):
    """Read everything that training would read."""
    for split in ("train", "val"):
        data = SceneDataset(SemfieldDataParserConfig(data=root, **fields).setup().get_dataparser_outputs(split))
        for index in range(len(data)):
            data[index]


def in_frame(index, **values):
    """A change of one frame of transforms.json; None removes the key."""

    def change(root):
        meta = read_meta(root)
        for key, value in values.items():
            if value is None:
                del meta["frames"][index][key]
            else:
                meta["frames"][index][key] = value
        write_meta(root, meta)

    return change


def in_file(**values):
    """A change of the top level of transforms.json; None removes the key."""

    def change(root):
        edit(root, lambda meta: [meta.pop(k) if v is None else meta.update({k: v}) for k, v in values.items()])

    return change


def remove(name):
    return lambda root: (root / name).unlink()


def truncate(name, keep=0.6):
    def change(root):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * keep)])

    return change


def fill(name, value, shape=(HEIGHT, WIDTH), dtype=np.uint8):
    return lambda root: save_png(root / name, np.full(shape, value, dtype))


def text(name, content):
    return lambda root: (root / name).write_text(content)


def matrix(**entries):
    """A pose with some entries replaced, keyed r<row><column>."""
    value = np.eye(4)
    for key, entry in entries.items():
        value[int(key[1]), int(key[2])] = entry
    return value.tolist()


def poses(change):
    def apply(root):
        rows = llff_rows()
        np.save(root / "poses_bounds.npy", change(rows))

    return apply


def row(values, index=1, columns=slice(None)):
    def change(rows):
        rows[index, columns] = values
        return rows

    return poses(change)


NAN_POSE = matrix(r03=float("nan"))

TRANSFORMS_CASES = {
    "not JSON": (text("transforms.json", '{"frames": [}'), "transforms.json is not valid JSON"),
    "not an object": (text("transforms.json", "[1]"), 'transforms.json has no list "frames"'),
    "no frames": (in_file(frames=[]), "transforms.json lists no frames"),
    "no file path": (in_frame(2, file_path=None), 'frame 2 has no "file_path"'),
    "no pose": (in_frame(2, transform_matrix=None), "images/002.png"),
    "no focal length": (in_file(fl_x=None), "fl_x"),
    "focal length is text": (in_file(fl_x="wide"), "'wide'"),
    "focal length of zero": (in_file(fl_x=0.0), "images/000.png"),
    "angle of view in degrees": (in_file(fl_x=None, fl_y=None, camera_angle_x=50), "angle in radians"),
    "width is a fraction": (in_file(w=16.5), '"w"'),
    "panorama": (in_file(camera_model="EQUIRECTANGULAR"), "'EQUIRECTANGULAR' is not supported"),
    "panorama of one frame": (in_frame(1, camera_model="EQUIRECTANGULAR"), "images/001.png): camera_model"),
    "fisheye with tangential distortion": (in_file(camera_model="OPENCV_FISHEYE", p1=0.1), "no p1 and p2"),
    "distortion of three numbers": (in_file(distortion_params=[1, 2, 3]), "distortion_params"),
    "number as text": (in_file(k1="0.1"), "\"k1\" is '0.1', not a number"),
    "lens that folds back": (in_file(k1=-0.9), "fold the picture back"),
    "pose of unequal rows": (in_frame(1, transform_matrix=[[1, 0, 0, 0], [0, 1, 0]]), "not a matrix of numbers"),
    "pose with shear": (in_frame(1, transform_matrix=matrix(r01=0.1)), "images/001.png: the rotation"),
    "pose of zeros": (in_frame(1, transform_matrix=np.zeros((4, 4)).tolist()), "images/001.png: the rotation"),
    "one picture twice": (in_frame(2, file_path="images/001.png"), "frames 1 and 2 are both of"),
    "path of a folder": (in_frame(1, file_path="images"), "images is a folder, not a file"),
    "path that no file can have": (in_frame(1, file_path="a" * 400), '"file_path" is no path of a file'),
    "path that is a number": (in_frame(1, depth_file_path=3), '"depth_file_path" is 3, not a path'),
    "points are a number": (in_file(ply_file_path=3), '"ply_file_path" is 3, not a path'),
    "near beyond far": (in_file(near=5.0, far=1.0), "the nearest content comes first"),
    "transforms.json is a folder": (
        lambda root: (remove("transforms.json")(root), (root / "transforms.json").mkdir()),
        "transforms.json is a folder, not a file",
    ),
    "links in a circle": (
        lambda root: (remove("images/001.png")(root), (root / "images/001.png").symlink_to("001.png")),
        "images/001.png",
    ),
    "numbers without a picture": (
        lambda root: (np.save(root / "a.npy", class_ids(1)), in_frame(1, semantic_path="a.npy")(root)),
        "a.npy is a format that is not read here: save its numbers as a PNG",
    ),
    "float picture": (
        lambda root: (
            Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32)).save(root / "a.tiff"),
            in_frame(1, file_path="a.tiff")(root),
        ),
        "a.tiff is a F image",
    ),
    "colours changed by JPEG": (
        lambda root: (
            Image.fromarray(PALETTE[class_ids(1)]).save(root / "a.jpg"),
            in_frame(1, semantic_path="a.jpg")(root),
        ),
        "JPEG changes colours",
    ),
    "class without a name": (in_file(semantics={"classes": [{"id": 0, "name": " "}]}), "class without a name"),
    "class that moves or not": (
        in_file(semantics={"classes": [{"id": 0, "name": "a", "dynamic": "no"}]}),
        "neither true nor false",
    ),
    "class twice": (
        in_file(semantics={"classes": [{"id": i, "name": "a"} for i in range(3)]}),
        'names the class "a" twice',
    ),
    "colour in letters": (
        in_file(semantics={"classes": [{"id": 0, "name": "a", "color": "#ff0000"}]}),
        "semantics.classes needs",
    ),
    "depth of grey levels": (fill("depth/001.png", 20), "is an 8-bit picture, whose grey levels are no depths"),
    "NaN pose": (in_frame(1, transform_matrix=NAN_POSE), "images/001.png: its pose contains NaN"),
    "pose of 2x2": (in_frame(1, transform_matrix=[[1, 0], [0, 1]]), "images/001.png"),
    "pose of text": (in_frame(1, transform_matrix="eye"), "images/001.png"),
    "pose with scale": (in_frame(1, transform_matrix=matrix(r00=2.0)), "images/001.png: the rotation"),
    "mirrored pose": (in_frame(1, transform_matrix=matrix(r00=-1.0)), "images/001.png: the rotation"),
    "last row of a pose": (in_frame(1, transform_matrix=matrix(r30=1.0)), "images/001.png: the last row"),
    "duplicate time": (in_frame(2, time=12.0), "images/002.png has the time 12 that frame images/001.png"),
    "times out of order": (in_frame(2, time=11.0), "images/002.png has the time 11, before"),
    "time is text": (in_frame(2, time="noon"), "'noon'"),
    "time is NaN": (in_frame(2, time=float("nan")), "images/002.png"),
    "time for some frames only": (in_frame(2, time=None), 'images/002.png (number 2) has no "time"'),
    "one frame": (lambda root: edit(root, lambda m: m.update(frames=m["frames"][:1])), "one frame"),
    "no training frames": (in_file(train_filenames=[], test_filenames=["images/000.png"]), "no frames to train"),
    "unknown name in a split": (in_file(train_filenames=["images/009.png"]), "images/009.png"),
    "split without training list": (in_file(test_filenames=["images/000.png"]), "train_filenames"),
    "image missing": (remove("images/002.png"), "images/002.png is missing"),
    "image truncated": (truncate("images/002.png"), "images/002.png"),
    "image of a few bytes": (truncate("images/002.png", 0.05), "images/002.png"),
    "image is text": (text("images/002.png", "hello"), "images/002.png"),
    "image is empty": (text("images/002.png", ""), "images/002.png"),
    "image of another size": (fill("images/002.png", 9, (6, 8, 3)), "images/002.png is 8x6 pixels, its camera 16x12"),
    "label missing": (remove("labels/001.png"), "labels/001.png is missing"),
    "label truncated": (truncate("labels/001.png"), "labels/001.png"),
    "label of another size": (fill("labels/001.png", 0, (24, 32)), "labels/001.png is 32x24 pixels"),
    "unknown class": (fill("labels/001.png", 7), "labels/001.png has the unknown class id 7 at pixel x=0, y=0"),
    "unknown colour": (fill("labels/001.png", 7, (HEIGHT, WIDTH, 3)), "labels/001.png has the colour (7, 7, 7)"),
    "classes without labels": (
        lambda root: edit(root, lambda m: [frame.pop("semantic_path") for frame in m["frames"]]),
        "no frame has a label image",
    ),
    "labels without classes": (in_file(semantics=None), "images/000.png has a label image"),
    "semantics without classes": (in_file(semantics={}), "transforms.json"),
    "gap in the ids": (in_file(semantics={"classes": [{"id": 3, "name": "a"}]}), "ids of semantics.classes"),
    "mask missing": (remove("masks/001.png"), "masks/001.png is missing"),
    "mask truncated": (truncate("masks/001.png"), "masks/001.png"),
    "mask of another size": (fill("masks/001.png", 0, (6, 8)), "masks/001.png is 8x6 pixels"),
    "flow missing half-way": (remove("flow/002_fwd.npz"), "images/002.png, forward flow: the file"),
    "flow truncated": (truncate("flow/002_fwd.npz"), "flow/002_fwd.npz"),
    "flow of another shape": (
        lambda root: save_npz(root / "flow/002_bwd.npz", flow=constant_flow(1)[1:]),
        '"flow" in',
    ),
    "flow without flow": (lambda root: save_npz(root / "flow/002_bwd.npz", a=constant_flow(1)), "002_bwd.npz holds no"),
    "flow mask of another shape": (
        lambda root: save_npz(root / "flow/002_bwd.npz", flow=constant_flow(1), mask=np.ones((2, 2))),
        '"mask" in',
    ),
    "flow is a pickle": (
        lambda root: np.savez(root / "flow/002_bwd.npz", flow=np.array([[{}]], dtype=object)),
        "flow/002_bwd.npz",
    ),
    "depth missing": (remove("depth/003.png"), "depth/003.png is missing"),
    "depth truncated": (truncate("depth/003.png"), "depth/003.png"),
    "depth kind": (in_file(depth_kind="metres"), "'metres'"),
    "camera motion": (in_file(camera_motion="walks"), "'walks', it must be"),
    "depth unit": (in_file(depth_unit_scale_factor=-1), "depth_unit_scale_factor"),
    "points missing": (in_file(ply_file_path="points.ply"), "points.ply is missing"),
    "points are no PLY": (
        lambda root: (in_file(ply_file_path="p.ply")(root), text("p.ply", "ply\nhello")(root)),
        "p.ply",
    ),
}

NVIDIA_CASES = {
    "poses of another shape": (poses(lambda rows: rows[:, :16]), "poses_bounds.npy has the shape (4, 16)"),
    "fewer poses than images": (poses(lambda rows: rows[:3]), "poses_bounds.npy has 3 poses for 4 images"),
    "NaN in poses": (row(np.nan, 2, 3), "poses_bounds.npy has NaN or infinity in row 2"),
    "poses of no rotation": (row(0.0, 2, slice(0, 15, 5)), "images_2/002.png: the rotation"),
    "near beyond far": (row([9, 5], 2, slice(15, 17)), "poses_bounds.npy, row 2"),
    "poses truncated": (truncate("poses_bounds.npy"), "poses_bounds.npy"),
    "image of another shape": (fill("images_2/001.png", 0, (12, 12, 3)), "images_2/001.png"),
    "no images": (lambda root: shutil.rmtree(root / "images_2"), "no folder of images"),
    "empty image folder": (lambda root: [f.unlink() for f in (root / "images_2").iterdir()], "images_2 holds no"),
    "no label map": (remove("../labelmap.txt"), "labelmap.txt is missing"),
    "no list of dynamic classes": (remove("../foreground_object.txt"), "foreground_object.txt is missing"),
    "unknown dynamic class": (text("../foreground_object.txt", "dog\n"), '"dog"'),
    "label map that is not one": (text("../labelmap.txt", "# header\ncat;1;2;3\n"), "labelmap.txt, line 2"),
    "unknown colour": (
        fill("SegmentationClass_train/001.png", 5, (HEIGHT, WIDTH, 3)),
        "SegmentationClass_train/001.png has the colour (5, 5, 5)",
    ),
    "label of no image": (fill("SegmentationClass_train/0001.png", 0), "SegmentationClass_train/0001.png has the name"),
    "label of a size that fits nothing": (fill("SegmentationClass_train/001.png", 0, (18, 24)), "24x18 pixels"),
    "flow missing half-way": (remove("flow/002_bwd.npz"), "images_2/002.png, backward flow"),
    "disparity missing": (remove("disp/002.npy"), "images_2/002.png: its disparity"),
    "disparity truncated": (truncate("disp/002.npy"), "disp/002.npy"),
    "disparity of another shape": (
        lambda root: np.save(root / "disp/002.npy", np.ones((2, 3, 4))),
        "disp/002.npy has the shape (2, 3, 4)",
    ),
    "motion mask missing": (remove("motion_masks/002.png"), "images_2/002.png: its motion mask"),
    "held-out frame of no time": (fill("multiview_GT/00000009/cam01.jpg", 0, (12, 16, 3)), "00000009/cam01.jpg"),
    "held-out folder without images": (lambda root: (root / "multiview_GT").mkdir(), "multiview_GT holds no image"),
    "schedule": ({"labels": "some"}, '"some" is not understood'),
    "schedule beyond the video": ({"labels": "0,9"}, "frame 9 does not exist"),
    "downscale factor": ({"downscale_factor": 0}, "downscale-factor"),
    "no such image folder": ({"images": "images_7"}, "images_7"),
    "no held-out frames": ({"eval_frames": "held-out"}, "held-out"),
}


def check(root, case, expected):
    change, fields = (None, case) if isinstance(case, dict) else (case, {})
    if change is not None:
        change(root)
    before = sorted(root.rglob("*"))
    with pytest.raises(SemfieldError) as error:
        load(root, **fields)
    message = str(error.value)
    assert expected in message, message
    assert "\n" not in message
    assert message.endswith("."), message
    assert sorted(root.rglob("*")) == before


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))


@pytest.mark.bad_input
@pytest.mark.parametrize("name", TRANSFORMS_CASES)
def test_transforms(tmp_path, name):
    check(write_transforms_scene(tmp_path / "scene"), *TRANSFORMS_CASES[name])


@pytest.mark.bad_input
@pytest.mark.parametrize("name", NVIDIA_CASES)
def test_nvidia(tmp_path, name):
    check(write_nvidia_scene(tmp_path / "scene"), *NVIDIA_CASES[name])


def test_the_scenes_themselves_are_fine(tmp_path):
    load(write_transforms_scene(tmp_path / "a"))
    load(write_nvidia_scene(tmp_path / "b" / "s", held_out=True))
    load(write_llff_scene(tmp_path / "c"))


@pytest.mark.bad_input
def test_a_video_is_no_scene(tmp_path):
    (tmp_path / "walk.MP4").touch()
    with pytest.raises(SemfieldError, match=r"walk\.MP4 is a video: make a scene of it with semfield process"):
        load(tmp_path / "walk.MP4")


@pytest.mark.bad_input
def test_no_folder_and_empty_folder(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SemfieldError, match=str(path)):
            load(path)


@pytest.mark.bad_input
def test_schedule_that_picks_no_labelled_frame(tmp_path):
    root = write_transforms_scene(tmp_path)
    in_frame(1, semantic_path=None)(root)
    with pytest.raises(SemfieldError, match='schedule "1"'):
        load(root, labels="1")


@pytest.mark.bad_input
def test_disk_full_while_flow_is_cached(tmp_path, monkeypatch):
    root = write_transforms_scene(tmp_path / "scene", flow=False)

    def full(file, **_):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(SemfieldError, match=r"Cannot write .*cache/flow/.*_fwd\.npz \(No space left"):
        load(root)
    assert list((tmp_path / "cache" / "flow").iterdir()) == []


def test_a_scene_may_be_read_only(tmp_path):
    """Flow goes to the cache, never into the scene."""
    root = write_transforms_scene(tmp_path / "scene", flow=False)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    load(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.bad_input
def test_messages_do_not_depend_on_the_json_library(tmp_path):
    root = write_transforms_scene(tmp_path)
    (root / "transforms.json").write_bytes(json.dumps(read_meta(root)).encode("utf-16"))
    with pytest.raises(SemfieldError, match=r"transforms\.json is not valid JSON"):
        load(root)
