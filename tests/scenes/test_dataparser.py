import numpy as np
import pytest
import torch

from semfield_ns.scenes.dataparser import SemfieldDataParserConfig, average_pose_inverse
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.formats.ply import write_ply_points
from tests.scenes.helpers import FOCAL, edit, pose, write_llff_scene, write_nvidia_scene, write_transforms_scene


def parse(root, split="train", **fields):
    return SemfieldDataParserConfig(data=root, **fields).setup().get_dataparser_outputs(split)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def labels(outputs):
    return [frame.semantic_path is not None for frame in outputs.metadata["frames"]]


def names(outputs):
    return [path.name for path in outputs.image_filenames]


def test_cameras_times_and_metadata(tmp_path):
    outputs = parse(write_transforms_scene(tmp_path / "s"))
    cameras, metadata = outputs.cameras, outputs.metadata
    assert cameras.shape == (4,)
    assert cameras.times.shape == (4, 1)
    torch.testing.assert_close(cameras.times[:, 0], torch.tensor([0, 1 / 3, 2 / 3, 1]))
    torch.testing.assert_close(metadata["time_table"], cameras.times[:, 0])
    assert (cameras.fx[0].item(), cameras.cx[0].item(), cameras.height[0].item()) == (FOCAL, 8, 12)
    assert metadata["labelled"] == [0, 1, 2, 3]
    assert metadata["label_map"].names == ["ground", "cat", "tree"]
    assert metadata["depth_kind"] == "metric"
    assert metadata["camera_ids"] == ["0"] * 4
    assert outputs.mask_filenames is None
    # All depth is 2.0: it comes to 1/0.9, so positions shrink by 0.5/0.9.
    assert outputs.dataparser_scale == pytest.approx(0.5 / 0.9)
    assert metadata["depth_scale"] == pytest.approx(0.5 / 0.9 * 1e-3)
    assert metadata["near"] == pytest.approx(1 / 0.9)
    torch.testing.assert_close(
        cameras.camera_to_worlds[:, 0, 3], torch.tensor([-0.15, -0.05, 0.05, 0.15]) * 0.5 / 0.9, atol=1e-6, rtol=0
    )


def test_time_slider_is_on(tmp_path):
    assert SemfieldDataParserConfig(data=tmp_path).setup().includes_time


def test_the_transform_leads_back_to_the_scene(tmp_path):
    root = write_nvidia_scene(tmp_path / "s")
    outputs, scene = parse(root), read_scene(root)
    original = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, "opengl")
    expected = np.stack([frame.c2w[:3] for frame in scene.train])
    torch.testing.assert_close(original, torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


def test_held_out_frames_share_transform_and_times(tmp_path):
    root = write_nvidia_scene(tmp_path / "s", held_out=True)
    train, test = parse(root), parse(root, "test")
    assert len(test.image_filenames) == 16
    assert all(labels(test))
    assert test.dataparser_scale == train.dataparser_scale
    torch.testing.assert_close(test.dataparser_transform, train.dataparser_transform)
    index = test.metadata["camera_ids"].index("cam02")
    torch.testing.assert_close(test.cameras.camera_to_worlds[index], train.cameras.camera_to_worlds[1])
    assert set(test.cameras.times[:, 0].tolist()) == set(train.cameras.times[:, 0].tolist())


def test_hidden_labels_are_not_in_the_training_frames(tmp_path):
    root = write_transforms_scene(tmp_path / "s")
    edit(root, lambda meta: [frame.update(instance_path=frame["semantic_path"]) for frame in meta["frames"]])
    train = parse(root, labels="0,3", dynamic_masks="labelled")
    assert labels(train) == [True, False, False, True]
    assert train.metadata["labelled"] == [0, 3]
    assert [frame.instance_path is not None for frame in train.metadata["frames"]] == [True, False, False, True]
    assert [frame.dynamic_mask_path is not None for frame in train.metadata["frames"]] == [True, False, False, True]
    assert all(frame.dynamic_mask_path for frame in parse(root, labels="0,3").metadata["frames"])
    assert not any(f.dynamic_mask_path for f in parse(root, dynamic_masks="none").metadata["frames"])


def test_evaluation_is_on_the_hidden_frames(tmp_path):
    root = write_transforms_scene(tmp_path / "s")
    for split in ("val", "test"):
        outputs = parse(root, split, labels="0,3")
        assert names(outputs) == ["001.png", "002.png"]
        assert labels(outputs) == [True, True]
        torch.testing.assert_close(outputs.cameras.times[:, 0], torch.tensor([1 / 3, 2 / 3]))
    assert len(parse(root, "val", labels="none").image_filenames) == 4


def test_evaluation_without_hidden_labels_is_on_every_8th_frame(tmp_path):
    assert names(parse(write_transforms_scene(tmp_path / "s"), "val")) == ["000.png"]
    assert names(parse(write_llff_scene(tmp_path / "l"), "test")) == ["000.png"]


def test_kind_of_evaluation_can_be_chosen(tmp_path):
    root = write_nvidia_scene(tmp_path / "s", held_out=True)
    assert len(parse(root, "val", labels="0,1", eval_frames="held-out").image_filenames) == 16
    assert names(parse(root, "val", labels="0,1", eval_frames="unlabelled")) == ["002.png", "003.png"]
    assert names(parse(root, "val", labels="0,1", eval_frames="train")) == ["000.png"]


def test_schedules_count_time_steps_where_cameras_share_them(tmp_path):
    root = write_transforms_scene(tmp_path / "s", flow=False)

    def two_cameras(meta):
        for i, frame in enumerate(meta["frames"]):
            frame.update(camera_id="ab"[i // 2], time=i % 2)

    edit(root, two_cameras)
    assert parse(root, labels="0", estimate_flow=False).metadata["labelled"] == [0, 1]


def test_a_scene_without_semantics(tmp_path):
    outputs = parse(write_llff_scene(tmp_path / "s"))
    assert outputs.metadata["label_map"] is None
    assert outputs.metadata["labelled"] == []
    assert outputs.metadata["near"] == pytest.approx(1 / 0.9)
    assert outputs.metadata["far"] == pytest.approx(10 / 0.9)


def test_scale_from_points_in_view(tmp_path):
    root = write_transforms_scene(tmp_path / "s", depth=False)
    z = np.linspace(4, 8, 101)
    points = np.concatenate([np.stack([0 * z, 0 * z, -z], axis=-1), [[0, 0, 1], [100, 0, -1]]])  # two not in view
    write_ply_points(root / "points.ply", points)
    edit(root, lambda meta: meta.update(ply_file_path="points.ply"))
    outputs = parse(root, estimate_flow=False)
    assert outputs.dataparser_scale == pytest.approx(1 / (0.9 * 4.2), rel=1e-2)
    assert outputs.metadata["near"] == pytest.approx(4.02 * outputs.dataparser_scale, rel=1e-2)
    expected = (points - [0.15, 0, 0]) * outputs.dataparser_scale
    torch.testing.assert_close(outputs.metadata["points"], torch.from_numpy(expected).float())


def test_scale_from_cameras_alone(tmp_path):
    outputs = parse(write_transforms_scene(tmp_path / "s", depth=False), scale_factor=2.0)
    assert outputs.metadata["near"] is None
    assert outputs.cameras.camera_to_worlds[:, :, 3].abs().max().item() == pytest.approx(2.0)


def test_flow_is_estimated_for_training_only(tmp_path, cache):
    root = write_transforms_scene(tmp_path / "s", flow=False)
    parse(root, "val")
    parse(root, estimate_flow=False)
    assert not cache.exists()
    frames = parse(root).metadata["frames"]
    assert [frame.flow_fwd_path is not None for frame in frames] == [True, True, True, False]
    assert len(list((cache / "flow").iterdir())) == 6


def test_average_pose_of_turned_cameras():
    """Two cameras turned left and right by the same angle average to one that looks straight ahead."""
    angle, turned = 0.3, []
    for sign in (-1, 1):
        c, s = np.cos(sign * angle), np.sin(sign * angle)
        c2w = pose(0)
        c2w[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        c2w[:3, 3] = (sign, 2, 3)
        turned.append(c2w)

    class Camera:
        def __init__(self, c2w):
            self.c2w = c2w

    expected = np.eye(4)
    expected[:3, 3] = (0, -2, -3)
    np.testing.assert_allclose(average_pose_inverse([Camera(c2w) for c2w in turned]), expected, atol=1e-12)


def test_parsing_a_real_video_is_quick(data_root):
    from time import process_time  # whatever else the machine does

    start = process_time()
    outputs = parse(data_root / "camvid_street", labels="every-2", estimate_flow=False)
    assert process_time() - start < 1
    assert outputs.metadata["labelled"] == list(range(0, 60, 2))
    assert 0.3 < outputs.metadata["near"] < 1.2
