"""`semfield segment` on a run of semantic-flow: the same masks as in the program, and runs that show them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semfield_ns.cli import main
from semfield_ns.errors import SemfieldError
from semfield_ns.sessions.masks import open_run, scene_views, write_masks
from tests.runs import run_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def masks(trained_run: Path, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A session drawn and exported in this process; its folder, and the outputs of the model for one view."""
    folder = tmp_path_factory.mktemp("masks")
    _, pipeline = open_run(trained_run)
    session = pipeline.segmenter.session
    views = scene_views(pipeline, "train")
    ball = session.add_object("thing", (10, 200, 30))
    session.add_stroke(ball, views[2].camera, [(30.0, 20.0), (36.0, 28.0)])
    session.add_stroke(ball, views[2].camera, [(4.0, 4.0), (50.0, 6.0)], positive=False)
    session.save(folder / "session.json")
    write_masks(pipeline.segmenter, views[:3], folder / "here")
    return folder, pipeline.model.get_outputs_for_camera(views[2].camera.cameras())


@pytest.fixture(scope="module")
def replayed(trained_run: Path, masks) -> Path:
    """The same session, repeated by the command."""
    folder = masks[0]
    run_command(
        [
            *("semfield", "segment", "--load-config", str(trained_run), "--session", str(folder / "session.json")),
            *("--output-dir", str(folder / "there"), "--views", "train"),
        ]
    )
    return folder / "there"


def test_the_command_repeats_a_session_bit_for_bit(masks, replayed: Path):
    files = sorted((masks[0] / "here").rglob("*.png"))
    assert len(files) == 6
    for file in files:
        again = replayed / file.relative_to(masks[0] / "here")
        assert again.read_bytes() == file.read_bytes(), file.name
    manifest = json.loads((replayed / "segmentation.json").read_text())
    assert len(manifest["views"]) == 8
    assert all(Path(entry["image"]).is_file() for entry in manifest["views"])


def test_the_run_that_it_writes_renders_the_session(masks, replayed: Path, tmp_path: Path):
    outputs = masks[1]
    _, pipeline = open_run(replayed / "config.yml")
    camera = scene_views(pipeline, "train")[2].camera.cameras()
    again = pipeline.model.get_outputs_for_camera(camera)
    assert outputs["segmentation"].any()
    for name in ("similarity", "segmentation", "segmentation_overlay"):
        assert torch.equal(again[name], outputs[name])
    run_command(
        [
            *("ns-render", "dataset", "--load-config", str(replayed / "config.yml"), "--output-path", str(tmp_path)),
            *("--rendered-output-names", "segmentation_overlay", "--split", "train", "--image-format", "png"),
        ]
    )
    (first, *_), count = sorted(tmp_path.rglob("*.png")), len(list(tmp_path.rglob("*.png")))
    assert count == 8
    assert np.asarray(Image.open(first)).shape[2] == 3


def test_a_camera_path_gives_one_mask_a_camera(trained_run: Path, masks, tmp_path: Path, capsys):
    path = tmp_path / "path.json"
    main(["camera-path", "--load-config", str(trained_run), "--output", str(path), "--seconds", "1", "--fps", "3"])
    arguments = ["segment", "--load-config", str(trained_run), "--session", str(masks[0] / "session.json")]
    main([*arguments, "--output-dir", str(tmp_path / "out"), "--camera-path", str(path), "--scale", "0.5"])
    found = sorted((tmp_path / "out" / "masks").iterdir())
    assert [file.name for file in found] == ["00000.png", "00001.png", "00002.png"]
    assert Image.open(found[0]).size == (32, 24)
    assert "3 masks of 1 object to" in capsys.readouterr().out


def test_what_cannot_be_done_is_said_in_one_sentence(trained_run: Path, masks, tmp_path: Path):
    session = masks[0] / "session.json"
    arguments = ["segment", "--output-dir", str(tmp_path / "out")]
    with pytest.raises(SemfieldError, match="does not exist: give the folder of a trained run"):
        main([*arguments, "--load-config", str(tmp_path / "no.yml"), "--session", str(session)])
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(SemfieldError, match="is not a session file"):
        main([*arguments, "--load-config", str(trained_run), "--session", str(tmp_path / "bad.json")])
    with pytest.raises(SemfieldError, match="not a camera path"):
        path = ["--camera-path", str(session)]
        main([*arguments, "--load-config", str(trained_run), "--session", str(session), *path])
    with pytest.raises(SemfieldError, match="scale"):
        main([*arguments, "--load-config", str(trained_run), "--session", str(session), "--scale", "0"])
