import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import natural_key
from semfield_ns.process.frames import (
    Candidate,
    blurred,
    decode,
    fitted_size,
    open_source,
    pick,
    survey,
    write_frames,
)
from tests.process.helpers import HEIGHT, WIDTH, sliding, write_video


def candidates(count, motion=0.01, sharpness=1.0):
    return [Candidate(i, i / 30, "", sharpness, 50.0, motion) for i in range(count)]


def test_all_frames_of_a_short_video_are_picked(tmp_path):
    video = write_video(tmp_path / "a.mp4", sliding(6))
    picked = write_frames(open_source(video), tmp_path / "images", 20, 960)
    assert [frame.index for frame in picked.frames] == list(range(6))
    assert picked.size == (WIDTH, HEIGHT)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [f"{i:04d}.png" for i in range(6)]


def test_the_sharpest_of_each_step_is_picked():
    frames = [Candidate(i, i / 30, "", 5.0 if i % 5 == 2 else 1.0, 50.0, 0.01) for i in range(50)]
    assert [frame.index for frame in pick(frames, 10)] == [5 * k + 2 for k in range(10)]


def test_motion_attracts_picks_and_rest_does_not_starve():
    frames = [Candidate(i, i / 30, "", 1.0, 50.0, 0.05 if 50 <= i < 100 else 0.0) for i in range(150)]
    chosen = [frame.index for frame in pick(frames, 30)]
    hurried = sum(50 <= i < 100 for i in chosen)
    assert hurried >= 18 and len(chosen) - hurried >= 8


def test_black_frames_are_left_out(tmp_path):
    pictures = sliding(8)
    pictures[3] = np.zeros_like(pictures[3])
    picked = write_frames(open_source(write_video(tmp_path / "a.mp4", pictures)), tmp_path / "images", 20, 960)
    assert [frame.index for frame in picked.frames] == [0, 1, 2, 4, 5, 6, 7]
    assert any("black" in warning for warning in picked.warnings)


def test_blurred_frames_are_named():
    frames = [Candidate(i, i / 30, "", 0.1 if i == 4 else 1.0, 50.0, 0.01) for i in range(10)]
    assert [frame.index for frame in blurred(frames)] == [4]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotation_tag_is_obeyed(tmp_path, rotation):
    pictures = sliding(5)
    for picture in pictures:
        picture[:20, :20] = [255, 0, 0]  # the corner that tells how it was turned
    video = write_video(tmp_path / "a.mp4", pictures, rotation=rotation)
    source = open_source(video)
    upright = next(decode(source, 960, lambda i, t: True))[3]
    expected = np.rot90(pictures[0], -rotation // 90)
    assert upright.shape == expected.shape and (source.width, source.height) == expected.shape[1::-1]
    assert np.abs(upright.astype(int) - expected).mean() < 12


def test_times_of_a_variable_frame_rate_are_kept(tmp_path):
    times = [0.0, 0.033, 0.066, 0.5, 0.533, 0.566, 1.4, 1.433]
    picked = write_frames(open_source(write_video(tmp_path / "a.mp4", sliding(8), times)), tmp_path / "images", 20, 960)
    assert np.allclose([frame.time for frame in picked.frames], times, atol=2e-3)
    assert any("frame rate varies" in warning for warning in picked.warnings)


def test_start_and_end(tmp_path):
    video = write_video(tmp_path / "a.mp4", sliding(20))
    picked = write_frames(open_source(video), tmp_path / "images", 50, 960, start=0.2, end=0.45)
    assert [frame.index for frame in picked.frames] == list(range(6, 14))
    with pytest.raises(SemfieldError, match=r"no frames between 5 and 6: change --start or --end"):
        survey(open_source(video), 10, 5.0, 6.0)


def test_a_long_video_is_surveyed_in_steps(tmp_path):
    small = sliding(1, size=(64, 48))[0]
    pictures = [np.roll(small, i, axis=1) for i in range(1000)]
    source = open_source(write_video(tmp_path / "a.mp4", pictures))
    found = survey(source, 10)
    assert 60 <= len(found) <= 90
    assert len(write_frames(source, tmp_path / "images", 10, 960).frames) == 10


def test_a_large_picture_is_made_smaller(tmp_path):
    big = sliding(4, 40, size=(1280, 720))
    picked = write_frames(open_source(write_video(tmp_path / "a.mp4", big)), tmp_path / "images", 10, 320)
    assert picked.size == (320, 180)
    assert fitted_size(7680, 4320, 960) == (960, 540) and fitted_size(101, 51, 960) == (100, 52)


def test_a_folder_is_sorted_as_people_count(tmp_path):
    for i, picture in enumerate(sliding(11)):
        Image.fromarray(picture).save(tmp_path / f"frame{i}.png")
    source = open_source(tmp_path)
    assert [path.name for path in source.images] == [f"frame{i}.png" for i in range(11)]
    assert natural_key("frame10.png") > natural_key("frame9.png")


def test_a_photo_on_its_side_is_set_upright(tmp_path):
    for i, picture in enumerate(sliding(4)):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture).save(tmp_path / f"{i}.jpg", exif=exif)
    picked = write_frames(open_source(tmp_path), tmp_path / "out" / "images", 10, 960)
    assert picked.size == (HEIGHT, WIDTH)
    assert [frame.name for frame in picked.frames] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
