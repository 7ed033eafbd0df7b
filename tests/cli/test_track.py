"""`semfield track`, from a folder or a video and a mask to labels of all frames."""

import json

import numpy as np
import pytest
from PIL import Image

from semfield_ns.cli import main
from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_image
from semfield_ns.metrics.instances import region_similarity
from tests.tracking.test_tracking import DISKS, moving_disks


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A folder of frames, and the ids of the two disks in them."""
    folder = tmp_path_factory.mktemp("video")
    frames, truth = moving_disks(6, DISKS)
    for number, rgb in enumerate(frames):
        Image.fromarray(rgb).save(folder / f"shot_{number + 1:02d}.png")
    return folder, truth


def run(video, labels, output):
    main(["track", str(video), "--labels", str(labels), "--output-dir", str(output), "--teacher", "classical"])


def test_a_mask_of_the_first_frame_is_followed_and_can_be_corrected(video, tmp_path, capsys):
    folder, truth = video
    mask = tmp_path / "mask.png"
    Image.fromarray(truth[0].astype(np.uint8)).save(mask)
    run(folder, mask, tmp_path / "out")
    names = [f"shot_{number + 1:02d}" for number in range(6)]
    for number, name in enumerate(names):
        image = read_image(tmp_path / "out" / "labels" / f"{name}.png")
        assert image.mode == "P", "programs that show it show colours"
        assert all(region_similarity(np.array(image) == i, truth[number] == i) > 0.8 for i in (1, 2))
    trust = json.loads((tmp_path / "out" / "tracking.json").read_text())
    assert trust["given"] == names[:1] and list(trust["certainty"]) == names[1:]
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 1000
    assert "overlay.mp4" in capsys.readouterr().out
    # What was written is read again, with a frame more.
    corrected = tmp_path / "corrected"
    corrected.mkdir()
    for name in (names[0], names[5], "classes"):
        file = next((tmp_path / "out" / "labels").glob(f"{name}.*"))
        (corrected / file.name).write_bytes(file.read_bytes())
    run(folder, corrected, tmp_path / "again")
    trust = json.loads((tmp_path / "again" / "tracking.json").read_text())
    assert trust["given"] == [names[0], names[5]] and trust["agreement"][names[5]] > 0.8


def test_a_white_mask_with_soft_edges_is_one_object(video, tmp_path):
    folder, truth = video
    soft = np.where(truth[0] == 1, 255, 0).astype(np.uint8)
    soft[::7, ::5] = np.maximum(soft[::7, ::5], 90)
    Image.fromarray(np.stack([soft] * 3, -1)).save(tmp_path / "white.png")
    run(folder, tmp_path / "white.png", tmp_path / "out")
    classes = json.loads((tmp_path / "out" / "labels" / "classes.json").read_text())["classes"]
    assert len(classes) == 2
    last = np.array(read_image(tmp_path / "out" / "labels" / "shot_06.png"))
    assert region_similarity(last == 1, truth[5] == 1) > 0.8


@pytest.mark.parametrize("kind", ["absent", "empty", "colours", "other shape", "own output"])
def test_labels_that_cannot_be_followed_are_refused(video, tmp_path, kind):
    folder, truth = video
    mask, output = tmp_path / "mask.png", tmp_path / "out"
    ids = truth[0].astype(np.uint8)
    if kind == "empty":
        Image.fromarray(0 * ids).save(mask)
    elif kind == "colours":
        Image.fromarray(np.stack([ids, 9 * ids, 0 * ids], -1)).save(mask)
    elif kind == "other shape":
        Image.fromarray(ids[:20]).save(mask)
    elif kind == "own output":
        mask = output / "labels"
        mask.mkdir(parents=True)
    said = {
        "absent": "do not exist",
        "empty": "shows no object",
        "colours": "in colours",
        "other shape": "has another shape",
        "own output": "choose another --output-dir",
    }[kind]
    with pytest.raises(SemfieldError, match=said):
        run(folder, mask, output)
