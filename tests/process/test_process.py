"""A video to a scene with one command; what is finished is not done again."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from semfield_ns.cli.process import digest, process
from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_image, write_png
from semfield_ns.process.flow import flow_file
from semfield_ns.process.given_poses import import_poses
from semfield_ns.process.names import FrameNames
from semfield_ns.process.plan import Work
from semfield_ns.process.registration import Registration
from semfield_ns.process.structure import Rig, register
from semfield_ns.scenes.formats.transforms import read_transforms
from tests.process.helpers import turning, walk, write_video

FRAMES = [FrameNames(n, 2 * n, "") for n in range(5)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(video, folder) of a processed walk."""
    pytest.importorskip("pycolmap")
    folder = tmp_path_factory.mktemp("process")
    video = write_video(folder / "walk.mp4", walk(10, turn=0.02))
    process(video, folder / "scene", models="classical", threads=1)
    return video, folder / "scene"


@pytest.mark.slow
def test_the_scene_is_whole_and_right(scene):
    _, folder = scene
    read = read_transforms(folder / "transforms.json")
    assert len(read.train) == 10 and read.depth_kind == "metric" and len(read.points) > 50
    x = np.array([frame.c2w[:3, 3] for frame in read.train])
    steps = np.diff(x, axis=0)
    # Even steps along a line, up to scale and turn.
    assert np.linalg.norm(steps - steps.mean(0), axis=-1).max() < 0.1 * np.linalg.norm(steps.mean(0))
    assert abs(read.train[0].fx / 220 - 1) < 0.05
    figures = json.loads((folder / ".process" / "masks.json").read_text())
    assert figures["epipolar_error_px"] < 0.3
    assert Registration.load(folder / ".process" / "refined.npz").figures["focal_certain"]


@pytest.mark.slow
def test_followed_corners_make_the_path_more_exact(scene):
    _, folder = scene
    rough, refined = (Registration.load(folder / ".process" / f"{name}.npz") for name in ("poses", "refined"))

    def error(found: Registration) -> float:
        """Of the turns from frame to frame, degrees; the camera of the walk turns by 0.02 radians each time."""
        turns = [np.linalg.inv(found.poses[i][:3, :3]) @ found.poses[i + 1][:3, :3] for i in range(9)]
        angles = [np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)) for turn in turns]
        return float(np.degrees(np.abs(np.array(angles) - 0.02)).max())

    assert len(refined.points) > 2 * len(rough.points)
    assert error(refined) < 0.05 and error(refined) < error(rough)


@pytest.mark.slow
def test_the_disc_is_masked_and_the_board_is_not(scene):
    _, folder = scene
    work = Work(SimpleNamespace(output_dir=folder))
    i = 5
    disc = np.zeros((180, 240), np.uint8)
    import cv2

    cv2.circle(disc, (190 - 2 * i, 140 - 9 * i), 20, 1, -1)
    mask = work.mask(i)
    assert (mask & (disc > 0)).sum() / (mask | (disc > 0)).sum() > 0.5


@pytest.mark.slow
def test_the_report_shows_every_step(scene):
    _, folder = scene
    page = (folder / "report" / "index.html").read_text()
    for name in ("frames", "masks", "flow", "depth", "cameras"):
        assert f'src="{name}.png"' in page and (folder / "report" / f"{name}.png").is_file()
    for text in ("pycolmap", "Apache-2.0", "epipolar_error_px", "Dense inverse search"):
        assert text in page


@pytest.mark.slow
def test_a_second_run_does_nothing_and_a_lost_step_is_made_again(scene, capsys):
    video, folder = scene
    process(video, folder, models="classical", threads=1)
    printed = capsys.readouterr().out
    assert printed.count("done before") == 12 and str(folder / "annotate" / "README.txt") in printed
    (folder / "transforms.json").unlink()
    process(video, folder, models="classical", threads=1)
    assert capsys.readouterr().out.count("done before") == 11
    assert (folder / "transforms.json").is_file()


@pytest.mark.slow
def test_labels_come_late_and_complete_what_moves(scene, tmp_path, capsys):
    video, folder = scene
    half = np.zeros((180, 240), np.uint8)
    half[:, 120:] = 1  # a thing of which the moving disc is a small part
    still = half[:, ::-1].copy()
    write_png(tmp_path / "labels" / "0003.png", half)
    write_png(tmp_path / "labels" / "0006.png", still)
    classes = [{"id": 0, "name": "wall", "color": [0, 0, 0]}]
    classes.append({"id": 1, "name": "crane", "color": [255, 0, 0], "dynamic": True})
    (tmp_path / "labels" / "classes.json").write_text(json.dumps({"classes": classes}))
    process(video, folder, models="classical", threads=1, labels=tmp_path / "labels")
    assert capsys.readouterr().out.count("done before") == 8  # up to depth
    read = read_transforms(folder / "transforms.json")
    assert [i for i, frame in enumerate(read.train) if frame.semantic_path] == [3, 6]
    masks = [np.array(read_image(frame.dynamic_mask_path)) > 0 for frame in read.train]
    assert not masks[6][:, :100].any()  # labelled as what may move, and stands still


@pytest.mark.slow
def test_poses_can_be_brought_along(scene, tmp_path):
    _, folder = scene
    given = Registration.load(folder / ".process" / "refined.npz")
    names = [FrameNames(n, n, "") for n in range(10)]
    for source in (folder / "transforms.json", folder / ".process" / "colmap" / "final"):
        found = import_poses(source, names, (120, 90), 10)
        assert sorted(found.poses) == list(range(10))
        assert np.allclose(found.poses[3], given.poses[3], atol=1e-6)
        assert found.cameras[3].fx == pytest.approx(given.cameras[3].fx / 2, rel=1e-6)


@pytest.mark.slow
def test_motion_masks_can_be_brought_along(scene, tmp_path):
    video, done = scene
    folder, masks = tmp_path / "scene", tmp_path / "masks"
    shutil.copytree(done, folder)
    marked = np.zeros((90, 120), np.uint8)  # half the size of the frames
    marked[:30, :40] = 255
    for number in range(9):
        write_png(masks / f"{number:04d}.png", marked)
    with pytest.raises(SemfieldError, match=r"has no mask 0009\.png"):
        process(video, folder, models="classical", threads=1, masks=masks)
    write_png(masks / "0009.png", marked)
    write_png(masks / "copy" / "0009.png", marked)
    with pytest.raises(SemfieldError, match=r"0009\.png and .*copy/0009\.png both seem to be of frame 0009"):
        process(video, folder, models="classical", threads=1, masks=masks)
    shutil.rmtree(masks / "copy")
    process(video, folder, models="classical", threads=1, masks=masks)
    frame = read_transforms(folder / "transforms.json").train[3]
    moving = np.asarray(read_image(frame.dynamic_mask_path)) > 0
    assert moving[:58, :78].all() and not moving[64:, :].any() and not moving[:, 84:].any()


@pytest.mark.slow
def test_the_result_of_ns_process_data_is_taken_as_it_is(scene, tmp_path):
    from nerfstudio.process_data.colmap_utils import colmap_to_json

    _, folder = scene
    shutil.copytree(folder / "images", tmp_path / "theirs" / "images")
    colmap_to_json(folder / ".process" / "colmap" / "final", tmp_path / "theirs")
    process(tmp_path / "theirs", tmp_path / "ours", models="classical", threads=1)
    read = read_transforms(tmp_path / "ours" / "transforms.json")
    theirs = read_transforms(tmp_path / "theirs" / "transforms.json")
    assert len(read.train) == 10 and len(read.points) == len(theirs.points) and read.depth_kind == "metric"
    assert np.allclose([f.c2w for f in read.train], [f.c2w for f in theirs.train])
    assert read.train[3].dynamic_mask_path and read.train[3].flow_fwd_path


@pytest.mark.slow
def test_a_camera_that_turns_makes_a_scene_of_one_place(tmp_path, capsys):
    video, folder = write_video(tmp_path / "turn.mp4", turning(10, 0.012)), tmp_path / "scene"
    process(video, folder, models="classical", threads=1)
    read = read_transforms(folder / "transforms.json")
    assert read.camera_motion == "turning" and read.depth_kind is None and read.points is None
    assert all(np.allclose(frame.c2w[:3, 3], 0) and frame.depth_path is None for frame in read.train)
    assert len(read.train) == 10 and all(frame.dynamic_mask_path for frame in read.train)
    for text in (capsys.readouterr().out, (folder / "report" / "index.html").read_text()):
        assert "The camera only turned. Depth and other viewpoints are not known" in text


def test_held_out_views_of_other_cameras_are_not_taken_for_frames(tmp_path):
    frames = []
    for name, x in (("000", 0.0), ("002", 1.0), ("004", 2.0), ("006", 3.0), ("held_03_002", 9.0), ("008", 4.0)):
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((6, 8, 3), np.uint8))
        c2w = np.eye(4)
        c2w[0, 3] = x
        frames.append({"file_path": f"images/{name}.png", "transform_matrix": c2w.tolist(), "time": float(name[-3:])})
    frames[4]["camera_id"] = "other"
    scene = {"fl_x": 8, "fl_y": 8, "cx": 4, "cy": 3, "w": 8, "h": 6, "near": 1, "far": 9, "frames": frames}
    held = {
        "train_filenames": [f["file_path"] for f in frames[:4]],
        "test_filenames": [f["file_path"] for f in frames[4:]],
    }
    (tmp_path / "transforms.json").write_text(json.dumps(scene | held))
    found = import_poses(tmp_path, FRAMES, (8, 6), 10)
    assert {number: c2w[0, 3] for number, c2w in found.poses.items()} == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    (tmp_path / "transforms.json").write_text(json.dumps(scene))
    with pytest.raises(SemfieldError, match="has poses for 0 of the 5 picked frames"):
        import_poses(tmp_path, FRAMES, (8, 6), 10)


def test_poses_of_arrays(tmp_path):
    c2w = np.tile(np.eye(4), (5, 1, 1))
    c2w[:, 0, 3] = np.arange(5)
    np.savez(tmp_path / "a.npz", cam_c2w=c2w, intrinsic=np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]))
    found = import_poses(tmp_path / "a.npz", FRAMES, (128, 96), 9)
    assert found.cameras[0].fx == 100 and found.poses[4][0, 3] == 4
    assert np.allclose(found.poses[0][:3, :3], np.diag([1, -1, -1]))  # OpenCV axes become OpenGL ones


@pytest.mark.slow
def test_a_camera_that_does_not_turn_does_not_tell_its_focal_length(tmp_path):
    pytest.importorskip("pycolmap")
    names = [f"{i:04d}.png" for i in range(6)]
    for name, picture in zip(names, walk(6, moving=False), strict=True):
        write_png(tmp_path / "images" / name, picture)
    figures = register(tmp_path / "images", names, None, tmp_path / "work", Rig()).figures
    assert figures["focal_certain"] is False and figures["focal_px"] == pytest.approx(0.85 * 240)


def test_poses_of_vggt(tmp_path):
    w2c = np.tile(np.eye(4)[:3], (5, 1, 1))
    w2c[:, 0, 3] = -np.arange(5)
    intrinsic = np.tile([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], (5, 1, 1))
    np.savez(tmp_path / "a.npz", extrinsic=w2c, intrinsic=intrinsic, depth=np.ones((5, 48, 64, 1)))
    found = import_poses(tmp_path / "a.npz", FRAMES, (128, 96), 9)
    assert found.cameras[0].fx == 100 and found.poses[4][0, 3] == 4
    assert np.allclose(found.poses[0][:3, :3], np.diag([1, -1, -1]))
    np.savez(tmp_path / "b.npz", extrinsic=w2c, intrinsic=np.eye(3))
    with pytest.raises(ValueError, match=r"needs extrinsic .* as VGGT writes them"):
        import_poses(tmp_path / "b.npz", FRAMES, (128, 96), 9)


def test_poses_of_vipe(tmp_path):
    for kind, data in (("pose", np.tile(np.eye(4), (10, 1, 1))), ("intrinsics", np.tile([50.0, 50, 32, 24], (10, 1)))):
        (tmp_path / kind).mkdir()
        np.savez(tmp_path / kind / "video.npz", data=data, inds=np.arange(10))
    assert sorted(import_poses(tmp_path, FRAMES, (64, 48), 10).poses) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"cam_c2w": np.zeros((5, 4, 4))}, "needs cam_c2w"),
        (
            {"cam_c2w": np.tile(np.eye(4), (3, 1, 1)), "intrinsic": np.eye(3)},
            "has 3 poses, but 5 frames were picked of 9",
        ),
    ],
)
def test_poses_that_do_not_fit(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        import_poses(tmp_path / "a.npz", FRAMES, (64, 48), 9)
    with pytest.raises(ValueError, match="do not exist"):
        import_poses(tmp_path / "b.npz", FRAMES, (64, 48), 9)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="has no poses in a known format"):
        import_poses(tmp_path / "folder", FRAMES, (64, 48), 9)


def test_another_file_has_another_digest(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1" * 3_000_000)
    before = digest(tmp_path / "a")
    assert before == digest(tmp_path / "a") and digest(None) is None
    (tmp_path / "a" / "x").write_bytes(b"1" * 2_999_999 + b"2")
    assert digest(tmp_path / "a") != before


def test_files_of_flow_name_both_frames(tmp_path):
    assert flow_file(tmp_path, 3, 12).name == "0003_0012.npz" and shutil
