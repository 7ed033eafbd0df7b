import shutil

import numpy as np
import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.flow import read_flow
from semfield_ns.scenes.formats import read_scene, write_transforms
from semfield_ns.scenes.formats.ply import read_ply_points, write_ply_points
from tests.scenes.helpers import (
    CLASSES,
    FOCAL,
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    edit,
    llff_rows,
    pose,
    write_llff_scene,
    write_nvidia_scene,
    write_transforms_scene,
)


def assert_same_frames(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        for key in a.__dataclass_fields__:
            u, v = getattr(a, key), getattr(b, key)
            if key.endswith("_path"):
                assert (u and u.resolve()) == (v and v.resolve()), key
            elif isinstance(u, np.ndarray):
                np.testing.assert_allclose(u, v, atol=1e-12)
            else:
                assert u == v, key


def test_transforms(tmp_path):
    scene = read_scene(write_transforms_scene(tmp_path / "room"))
    assert scene.name == "room"
    assert [frame.time for frame in scene.train] == [10, 12, 14, 16]
    assert [frame.time_index for frame in scene.train] == [0, 1, 2, 3]
    assert scene.test == []
    assert scene.label_map.names == [c["name"] for c in CLASSES]
    assert (scene.depth_kind, scene.depth_unit_scale) == ("metric", 1e-3)
    frame = scene.train[1]
    assert (frame.fx, frame.fy, frame.cx, frame.cy, frame.size) == (FOCAL, FOCAL, 8, 6, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(frame.c2w, pose(1))
    assert frame.flow_bwd_path.name == "001_bwd.npz"
    assert scene.train[0].flow_bwd_path is None
    assert scene.train[-1].flow_fwd_path is None


def test_the_file_itself_may_be_given(tmp_path):
    assert len(read_scene(write_transforms_scene(tmp_path) / "transforms.json").train) == NUM_FRAMES


def test_plain_nerfstudio_scene_without_time_and_semantics(tmp_path):
    def plain(meta):
        for frame in meta["frames"]:
            del frame["time"]

    scene = read_scene(write_transforms_scene(tmp_path, semantics=False))
    assert scene.label_map is None
    edit(tmp_path, plain)
    assert [frame.time for frame in read_scene(tmp_path).train] == [0, 1, 2, 3]


def test_intrinsics_of_a_frame_win(tmp_path):
    write_transforms_scene(tmp_path)
    edit(tmp_path, lambda meta: meta["frames"][2].update(fl_x=30.0, k1=0.01, p2=0.02))
    frame = read_scene(tmp_path).train[2]
    assert frame.fx == 30
    assert frame.distortion.tolist() == [0.01, 0, 0, 0, 0, 0.02]


def test_split_lists(tmp_path):
    write_transforms_scene(tmp_path)
    names = [f"images/{i:03d}.png" for i in range(NUM_FRAMES)]
    edit(
        tmp_path,
        lambda meta: meta.update(train_filenames=names[:3], val_filenames=names[3:], test_filenames=[names[1]]),
    )
    scene = read_scene(tmp_path)
    assert [frame.time_index for frame in scene.train] == [0, 1, 2]
    assert [(frame.image_path.name, frame.time_index) for frame in scene.test] == [("001.png", 1), ("003.png", 2)]


def test_cameras_that_share_times_are_sorted_by_time(tmp_path):
    write_transforms_scene(tmp_path, flow=False)

    def two_cameras(meta):
        for i, frame in enumerate(meta["frames"]):
            frame.update(camera_id="ab"[i // 2], time=i % 2)

    edit(tmp_path, two_cameras)
    scene = read_scene(tmp_path)
    assert [(frame.time, frame.camera_id) for frame in scene.train] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert [frame.time_index for frame in scene.train] == [0, 0, 1, 1]


def test_what_the_camera_did_is_read_and_written(tmp_path):
    write_transforms_scene(tmp_path / "scene")
    assert read_scene(tmp_path / "scene").camera_motion == "moving"
    edit(tmp_path / "scene", lambda meta: meta.update(camera_motion="turning"))
    scene = read_scene(tmp_path / "scene")
    assert read_scene(write_transforms(scene, tmp_path / "written")).camera_motion == scene.camera_motion == "turning"


@pytest.mark.parametrize("layout", [write_transforms_scene, write_nvidia_scene, write_llff_scene])
def test_write_transforms_round_trip(tmp_path, layout):
    scene = read_scene(layout(tmp_path / "scene"))
    if layout is write_nvidia_scene:  # its labels are as large as its images here: strict sizes hold
        assert scene.depth_kind == "disparity"
    again = read_scene(write_transforms(scene, tmp_path / "written"))
    assert_same_frames(scene.train, again.train)
    assert (again.label_map, again.depth_kind) == (scene.label_map, scene.depth_kind)
    assert (again.near, again.far, again.depth_unit_scale) == (scene.near, scene.far, scene.depth_unit_scale)


def test_points_and_held_out_frames_round_trip(tmp_path):
    write_transforms_scene(tmp_path / "scene")
    points = np.random.default_rng(0).normal(size=(7, 3))
    write_ply_points(tmp_path / "scene" / "points.ply", points)
    names = [f"images/{i:03d}.png" for i in range(NUM_FRAMES)]
    edit(
        tmp_path / "scene",
        lambda meta: meta.update(ply_file_path="points.ply", train_filenames=names[:3], test_filenames=names[2:]),
    )
    scene = read_scene(tmp_path / "scene")
    again = read_scene(write_transforms(scene, tmp_path / "written"))
    np.testing.assert_array_equal(again.points, points)
    assert_same_frames(scene.train, again.train)
    assert_same_frames(scene.test, again.test)


def test_ascii_ply_with_colours(tmp_path):
    header = ["ply", "format ascii 1.0", "comment hello", "element vertex 2", "property float x", "property float y"]
    header += ["property float z", "property uchar red", "element face 1", "property list uchar int vertex_indices"]
    (tmp_path / "a.ply").write_text("\n".join([*header, "end_header", "1 2 3 255", "4 5 6 0", "3 0 0 1", ""]))
    assert read_ply_points(tmp_path / "a.ply").tolist() == [[1, 2, 3], [4, 5, 6]]


def test_llff_axes_and_focal_length(tmp_path):
    root = write_llff_scene(tmp_path)
    rows = llff_rows()
    # A camera turned a quarter about the vertical: right = -z, up = y, back = x of the world.
    right, up, back = np.array([0, 0, -1.0]), np.array([0, 1.0, 0]), np.array([1.0, 0, 0])
    rows[1, :15] = np.stack([-up, right, back, [1, 2, 3], [24, 32, 40]], axis=-1).ravel()
    np.save(root / "poses_bounds.npy", rows)
    scene = read_scene(root)
    np.testing.assert_array_equal(scene.train[1].c2w[:3], np.stack([right, up, back, [1, 2, 3]], axis=-1))
    assert (scene.train[1].fx, scene.train[1].fy, scene.train[1].cx, scene.train[1].cy) == (20, 20, 8, 6)
    assert (scene.near, scene.far) == (5, 50)
    assert [frame.time for frame in scene.train] == [0, 1, 2, 3]


def test_llff_image_folder(tmp_path):
    root = write_llff_scene(tmp_path)
    shutil.copytree(root / "images_2", root / "images_4")
    assert read_scene(root).train[0].image_path.parent.name == "images_4"
    assert read_scene(root, images="images_2").train[0].image_path.parent.name == "images_2"
    with pytest.raises(SemfieldError, match="images_3"):
        read_scene(root, images="images_3")


def test_nvidia(tmp_path):
    scene = read_scene(write_nvidia_scene(tmp_path / "Cats"))
    assert scene.label_map.dynamic.tolist() == [False, True, False]
    assert scene.depth_kind == "disparity"
    assert [frame.time for frame in scene.train] == [0, 1, 2, 3]
    assert (scene.train[0].flow_bwd_path, scene.train[-1].flow_fwd_path) == (None, None)
    flow, valid = read_flow(scene.train[1].flow_fwd_path)
    assert (flow.dtype, valid.dtype, flow[0, 0].tolist(), valid.sum()) == (np.float32, bool, [1, 0], 16)
    assert scene.test == []


def test_nvidia_labels_for_some_frames_and_nothing_else(tmp_path):
    root = write_nvidia_scene(tmp_path / "Cats")
    (root / "SegmentationClass_train" / "002.png").unlink()
    for folder in ("flow", "disp", "motion_masks"):
        shutil.rmtree(root / folder)
    scene = read_scene(root)
    assert [frame.semantic_path is None for frame in scene.train] == [False, False, True, False]
    assert scene.depth_kind is None


@pytest.mark.parametrize("first", [0, 1])
def test_nvidia_held_out_frames_take_time_and_camera_from_their_names(tmp_path, first):
    root = write_nvidia_scene(tmp_path / "Cats", held_out=True)
    if first == 0:
        for file in sorted(root.glob("multiview_GT*/*/cam*")):
            file.rename(file.with_stem(f"cam{int(file.stem[3:]) - 1:02d}"))
    scene = read_scene(root)
    assert len(scene.test) == NUM_FRAMES**2
    frame = next(f for f in scene.test if (f.time, f.camera_id) == (2, f"cam{3 + first:02d}"))
    np.testing.assert_array_equal(frame.c2w, scene.train[3].c2w)
    assert (frame.time_index, frame.size, frame.semantic_path.parent.name) == (2, (HEIGHT, WIDTH), "00000002")


def test_a_parent_folder_hints_at_its_scenes(tmp_path):
    write_nvidia_scene(tmp_path / "Cats")
    with pytest.raises(SemfieldError, match=r"did you mean .*Cats"):
        read_scene(tmp_path)


def test_real_scenes(data_root):
    balloon = read_scene(data_root / "semantic_nvidia" / "Balloon1")
    assert (len(balloon.train), balloon.train[0].size, balloon.depth_kind) == (12, (270, 480), "disparity")
    assert balloon.label_map.names == ["background", "person", "balloon"]
    camvid = read_scene(data_root / "camvid_street")
    assert (len(camvid.train), len(camvid.label_map), camvid.label_map.ignore_index) == (60, 11, 11)
    assert camvid.points.shape == (4950, 3)
    assert len(read_scene(data_root / "llff" / "fern").train) == 20
    assert read_scene(data_root / "llff" / "mold_gold_cape").train[0].object_mask_path is not None
    assert len(read_scene(data_root / "dtu_scan65").train) == 49


def test_poses_agree_with_optical_flow_on_real_video(data_root):
    """Static pixels move along epipolar lines: wrong axes, focal length or frame order would show at once."""
    frames = read_scene(data_root / "semantic_nvidia" / "Balloon1").train
    a, b = frames[3], frames[4]
    flow, valid = read_flow(a.flow_fwd_path)
    from semfield_ns.io import read_image

    y, x = np.nonzero(valid & (np.array(read_image(a.dynamic_mask_path)) == 0))
    start = np.stack([x + 0.5, y + 0.5, np.ones(len(x))], axis=-1)
    end = start + np.pad(flow[y, x], ((0, 0), (0, 1)))
    to_opencv = np.diag([1.0, -1.0, -1.0, 1.0])
    motion = np.linalg.inv(b.c2w @ to_opencv) @ a.c2w @ to_opencv
    tx, ty, tz = motion[:3, 3]
    unproject = np.linalg.inv([[a.fx, 0, a.cx], [0, a.fy, a.cy], [0, 0, 1]])
    cross = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]])
    lines = start @ (unproject.T @ cross @ motion[:3, :3] @ unproject).T
    distance = np.abs((end * lines).sum(-1)) / np.linalg.norm(lines[:, :2], axis=-1)
    assert np.median(distance) < 0.5
    assert np.median(np.linalg.norm(flow[y, x], axis=-1)) > 5
