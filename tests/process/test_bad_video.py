"""Whatever is wrong with a video, the user reads one sentence, and the next run does not take half for whole."""

import errno
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from semfield_ns.cli.process import process
from semfield_ns.errors import SemfieldError
from semfield_ns.process.frames import open_source, survey, write_frames
from semfield_ns.process.structure import Rig, register
from semfield_ns.scenes.formats import read_scene
from tests.process.helpers import sliding, texture, walk, write_video


def run(source, folder, **options):
    process(source, folder, models="classical", threads=1, **options)


def fails(source, folder, match, **options):
    with pytest.raises(SemfieldError, match=match) as failure:
        run(source, folder, **options)
    assert len(str(failure.value).splitlines()) == 1
    assert not (folder / "transforms.json").exists()


@pytest.mark.parametrize(("turn", "kind"), [(0.0, "still"), (0.05, "turning")])
def test_a_camera_without_a_path_gives_a_scene_of_one_place(tmp_path, turn, kind):
    video = write_video(tmp_path / "a.mp4", walk(6, step=0.0, turn=turn, moving=False))
    run(video, tmp_path / "out")
    scene = read_scene(tmp_path / "out")
    assert scene.camera_motion == kind and scene.depth_kind is None
    places = np.stack([frame.c2w[:3, 3] for frame in scene.train])
    assert len(places) == 6 and np.ptp(places, axis=0).max() < 1e-9, "no path is invented"


@pytest.mark.bad_input
def test_pictures_that_have_nothing_in_common(tmp_path):
    pytest.importorskip("pycolmap")
    (tmp_path / "in").mkdir()
    names = [f"{i}.png" for i in range(5)]
    for i, name in enumerate(names):
        Image.fromarray(texture(10 + i, 120, 160)).save(tmp_path / "in" / name)
    with pytest.raises(SemfieldError, match=r"0 of 5 frames could be registered.*--num-frames.*--focal.*--poses"):
        register(tmp_path / "in", names, None, tmp_path / "work", Rig())


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_video(tmp_path, value):
    video = write_video(tmp_path / "a.mp4", [np.full((48, 64, 3), value, np.uint8)] * 6)
    fails(video, tmp_path / "out", r"0 frames to use \(6 of 6 are black or without any contrast\)")


@pytest.mark.bad_input
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_broken_file(tmp_path, damage):
    video = write_video(tmp_path / "a.mp4", sliding(6))
    content = video.read_bytes()
    video.write_bytes(
        {"empty": b"", "noise": np.random.default_rng(0).bytes(5000), "cut": content[: len(content) // 2]}[damage]
    )
    fails(video, tmp_path / "out", r"a\.mp4 cannot be read as a video .*convert it with ffmpeg")


@pytest.mark.bad_input
def test_noise_that_looks_like_sound(tmp_path):
    """A few in a thousand files of noise are taken for sound, which has no pictures."""
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(289).bytes(5000))
    fails(tmp_path / "a.mp4", tmp_path / "out", r"a\.mp4 has no picture track")


@pytest.mark.bad_input
def test_a_file_without_pictures(tmp_path):
    (tmp_path / "a.mp4").write_text("hello")
    fails(tmp_path / "a.mp4", tmp_path / "out", "cannot be read as a video")
    fails(tmp_path / "absent.mp4", tmp_path / "out", "does not exist")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", tmp_path / "out", "holds no images")


@pytest.mark.bad_input
def test_two_frames(tmp_path):
    fails(write_video(tmp_path / "a.mp4", sliding(2)), tmp_path / "out", r"has 2 frames to use .*at least 4 are needed")


@pytest.mark.bad_input
def test_images_of_several_sizes(tmp_path):
    for i in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(texture(0, 100 + (i == 3), 120)).save(tmp_path / "in" / f"{i}.png")
    fails(tmp_path / "in", tmp_path / "out", r"3\.png is 120x101 pixels, 0\.png 120x100")


@pytest.mark.bad_input
def test_a_cut_image_of_a_folder(tmp_path):
    for i, picture in enumerate(sliding(5)):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "in" / f"{i}.png")
    broken = tmp_path / "in" / "2.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    fails(tmp_path / "in", tmp_path / "out", r"cannot read .*2\.png")


def test_no_space_left_and_then_some(tmp_path, monkeypatch):
    video, folder = write_video(tmp_path / "a.mp4", sliding(6)), tmp_path / "out"
    replace = os.replace

    def full(source, target):
        if str(target).endswith("0003.png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    fails(video, folder, r"Cannot write .*0003\.png \(No space left on device\): free some space")
    assert not (folder / ".process" / "frames.json").exists()
    monkeypatch.setattr(os, "replace", replace)
    picked = write_frames(open_source(video), folder / "images", 20, 960)
    assert len(picked.frames) == 6
    assert len(list((folder / "images").iterdir())) == 6  # no temporary file is left either


@pytest.mark.bad_input
def test_no_space_for_structure_from_motion(tmp_path, monkeypatch):
    pytest.importorskip("pycolmap")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 2**20))
    with pytest.raises(SemfieldError, match=r"has 1 MiB left, and structure from motion of 5 frames may need 20: free"):
        register(tmp_path, [f"{i}.png" for i in range(5)], None, tmp_path / "work", Rig())


@pytest.mark.bad_input
def test_a_folder_with_something_else_is_not_written_to(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    fails(
        write_video(tmp_path / "a.mp4", sliding(5)), tmp_path / "out", "is not empty and was not made by this command"
    )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_frames": 2}, "--num-frames must be at least 4"),
        ({"focal": -1.0}, "--focal must be a length in pixels"),
        ({"start": 3.0, "end": 1.0}, "--end 1 must be later than --start 3"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    fails(tmp_path, tmp_path / "out", message, **options)


@pytest.mark.slow
def test_ten_thousand_frames(tmp_path):
    wide = texture(0, 48, 400)
    source = open_source(write_video(tmp_path / "a.mp4", [wide[:, i % 300 : i % 300 + 64] for i in range(10_000)]))
    assert source.count == 10_000
    assert 4 * 50 <= len(survey(source, 50)) <= 9 * 50
    assert len(write_frames(source, tmp_path / "images", 50, 960).frames) == 50


@pytest.mark.slow
def test_eight_thousand_pixels(tmp_path):
    big = texture(0, 4320, 7800)
    video = write_video(tmp_path / "a.mp4", [big[:, 20 * i : 20 * i + 7680] for i in range(4)])
    picked = write_frames(open_source(video), tmp_path / "images", 10, 960)
    assert picked.size == (960, 540) and len(picked.frames) == 4
