"""Pictures without times are in the order of the numbers in their names, for each camera; never in that of a list."""

import shutil

import numpy as np
import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.order import cameras_by_name, times_by_name
from tests.scenes.helpers import edit, write_llff_scene, write_transforms_scene
from tests.scenes.test_colmap import write_colmap


def renamed(root, names, cameras=None, **values):
    """The frames of a scene without times and flow, under other names, listed in disorder."""

    def change(meta):
        for frame, name in zip(meta["frames"], names, strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(root / frame["file_path"], root / name)
            frame["file_path"] = name
            for key in ("time", "flow_fwd_path", "flow_bwd_path"):
                frame.pop(key, None)
            frame.update(values)
        for frame, camera in zip(meta["frames"], cameras or (), strict=bool(cameras)):
            frame["camera_id"] = camera
        meta["frames"] = [meta["frames"][i] for i in (2, 0, 3, 1)]

    edit(root, change)
    return read_scene(root)


def order(scene):
    return [(frame.image_path.parent.name, frame.image_path.name, frame.time) for frame in scene.train]


def test_lists_in_disorder(tmp_path):
    root = write_transforms_scene(tmp_path)
    scene = renamed(root, [f"images/shot{n}.png" for n in (8, 9, 10, 11)])
    assert order(scene) == [("images", f"shot{n}.png", float(n - 8)) for n in (8, 9, 10, 11)]
    assert [frame.c2w[0, 3] for frame in scene.train] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_time_stamps_are_times(tmp_path):
    root = write_transforms_scene(tmp_path)
    edit(root, lambda meta: [f.update(timestamp=1e9 + f.pop("time")) for f in meta["frames"]])
    assert [frame.time - 1e9 for frame in read_scene(root).train] == [10, 12, 14, 16]


def test_folders_with_the_same_names_are_cameras(tmp_path):
    scene = renamed(
        write_transforms_scene(tmp_path), [f"{cam}/images/{n}.png" for cam in ("left", "right") for n in (9, 10)]
    )
    assert [(f.camera_id, f.image_path.name, f.time) for f in scene.train] == [
        ("left/images", "9.png", 0),
        ("right/images", "9.png", 0),
        ("left/images", "10.png", 1),
        ("right/images", "10.png", 1),
    ]


def test_cameras_without_times(tmp_path):
    scene = renamed(
        write_transforms_scene(tmp_path / "a"), ["a9.png", "a10.png", "b7.png", "b8.png"], ["a", "a", "b", "b"]
    )
    assert [(f.image_path.name, f.time) for f in scene.train] == [
        ("a9.png", 0),
        ("b7.png", 0),
        ("a10.png", 1),
        ("b8.png", 1),
    ]
    with pytest.raises(SemfieldError, match=r'2 cameras have no times.*give each frame a "time"'):
        renamed(write_transforms_scene(tmp_path / "b"), ["1.png", "2.png", "3.png", "4.png"], ["a", "b", "b", "b"])


def test_cameras_are_told_apart_by_few_folders():
    assert cameras_by_name(["cam0/1.png", "cam1/1.png"]) == ["cam0", "cam1"]
    assert cameras_by_name(["a/images/1.png", "b/images/1.png"]) == ["a/images", "b/images"]
    assert cameras_by_name(["train/1.png", "test/2.png"]) == ["0", "0"]
    assert cameras_by_name([f"cam{c}_{n}.png" for c in (1, 2) for n in (9, 10)]) == ["cam1"] * 2 + ["cam2"] * 2
    assert cameras_by_name([f"a/{n}_{side}.png" for n in (1, 2) for side in ("Left", "right")]) == ["Left", "right"] * 2
    assert cameras_by_name(["view1.png", "view2.png", "view3.png"]) == ["0"] * 3
    assert times_by_name([f"cam{c}_{n}.png" for c in (1, 2) for n in (9, 10)], ["1", "1", "2", "2"], "x") == [
        0,
        1,
        0,
        1,
    ]
    assert times_by_name(["c1/2.png", "c1/10.png", "c2/10.png"], ["1", "1", "2"], "x") == [0, 1, 1]


def test_rows_of_llff_are_in_the_order_of_letters_and_times_in_that_of_numbers(tmp_path):
    root = write_llff_scene(tmp_path)
    folder = next(iter(root.glob("images*")))
    files = sorted(folder.iterdir())
    before = [frame.c2w[0, 3] for frame in read_scene(root).train]
    for file, n in zip(files, (10, 11, 8, 9), strict=True):  # as letters go
        file.rename(file.with_name(f"im{n}{file.suffix}"))
    scene = read_scene(root)
    assert [frame.image_path.stem for frame in scene.train] == ["im8", "im9", "im10", "im11"]
    assert [frame.c2w[0, 3] for frame in scene.train] == pytest.approx([before[i] for i in (2, 3, 0, 1)])


def test_the_largest_of_several_colmap_models_in_natural_order(tmp_path, caplog):
    write_colmap(tmp_path, names=("img 10.png", "img 2.png", "img 1.png"), suffix=".txt")
    small = tmp_path / "sparse" / "0"
    shutil.move(small, tmp_path / "sparse" / "1")
    shutil.copytree(tmp_path / "sparse" / "1", small)
    lines = (small / "images.txt").read_text().splitlines()
    (small / "images.txt").write_text("\n".join(lines[:-2]) + "\n")
    with caplog.at_level("INFO", "semfield"):
        scene = read_scene(tmp_path)
    assert [frame.image_path.name for frame in scene.train] == ["img 1.png", "img 2.png", "img 10.png"]
    assert "2 COLMAP models; the largest is used" in caplog.text
    assert np.isfinite(scene.train[1].c2w).all()


def test_digits_that_are_no_numbers_do_not_stop_the_reading():
    names = ["m².png", "m10.png", "m٣.png", "m2.png"]
    times = times_by_name(names, ["0"] * 4, "scene")
    assert sorted(times) == [0, 1, 2, 3] and times[3] < times[1]
