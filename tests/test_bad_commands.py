"""Whatever is wrong with a command line and the files that it names, the user reads one sentence: all commands.

Commands run in this process, as their entry points do. Those of Nerfstudio get a run without training: a config.yml of
the smallest scene, and checkpoints that are damaged or missing.
"""

import json
import pickle
import sys
import warnings
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from semfield_ns import cli
from semfield_ns.compat.commands import open_run_folders
from semfield_ns.compat.sentences import error_sentence
from semfield_ns.method_configs.semantic_flow_splat import semantic_flow_splat_tiny
from semfield_ns.scenes.formats.ply import write_ply
from semfield_ns.sessions.session import FORMAT, VERSION
from tests.export.surface_splats import splat_vertices
from tests.scenes.helpers import write_transforms_scene
from tests.test_compat import Ours

pytestmark = [pytest.mark.bad_input, pytest.mark.filterwarnings("ignore")]

SCRIPTS = {"train": "train", "eval": "eval", "render": "render", "export": "exporter", "viewer": "viewer.run_viewer"}
CAMERA = {"camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], "fov": 50, "aspect": 1}
PATH = {"camera_type": "perspective", "render_height": 12, "render_width": 16, "fps": 24, "seconds": 1}
TRAIN = "ns-train semantic-flow-splat-tiny --vis tensorboard --output-dir new --data"
RENDER = "ns-render camera-path --load-config run --output-path new/v.mp4 --camera-path-filename"
OURS = {
    "process": "semfield process {} --output-dir new",
    "track": "semfield track {} --labels mask.png --output-dir new",
    "view": "semfield view {}",
    "segment": "semfield segment --load-config {} --session session.json --output-dir new",
    "objects": "semfield objects --load-config {} --output-dir new",
    "edit": "semfield edit --load-config {} --edits edits.yml --output-dir new",
    "export": "semfield export --load-config {} --output-dir new",
    "evaluate": "semfield evaluate --load-config {} --output-dir new",
    "camera-path": "semfield camera-path --load-config {} --output new/path.json",
    "attach": "semfield attach --load-config {} --data scene --output-dir new",
    "import-checkpoint": "semfield import-checkpoint {} --kind gsn --output-dir new",
    "export-checkpoint": "semfield export-checkpoint --load-config {} --output new/c.pth",
    "ns-eval": "ns-eval --load-config {} --output-path new/m.json",
    "ns-render": "ns-render dataset --load-config {} --output-path new",
    "ns-export": "ns-export pointcloud --load-config {} --output-dir new",
    "ns-viewer": "ns-viewer --load-config {}",
}
RUNS = [name for name in OURS if name not in ("process", "track", "import-checkpoint")]
NO_RUN = {
    "none": "none does not exist: give the folder of a trained run",
    "empty": "There is no run in empty: give the folder of a trained run",
    "words.yml": "words.yml cannot be read as the config.yml of a run",
    "half.yml": "half.yml cannot be read as the config.yml of a run",
    "nothing.yml": "nothing.yml cannot be read as the config.yml of a run",
}

CASES = {
    **{(f"{name}: {bad}"): (OURS[name].format(bad), told) for name in RUNS for bad, told in NO_RUN.items()},
    # --- videos and pictures
    "a video that is not there": ("semfield process none.mp4 --output-dir new", "none.mp4 does not exist"),
    "a video that is text": ("semfield process text.mp4 --output-dir new", "text.mp4 cannot be read as a video"),
    "a video of nothing": ("semfield process nothing.mp4 --output-dir new", "nothing.mp4 cannot be read as a video"),
    "a folder of nothing": ("semfield process empty --output-dir new", "empty holds no images"),
    "one picture": ("semfield process mask.png --output-dir new", "mask.png is one picture"),
    "too few frames": ("semfield process scene/images --output-dir new --num-frames 2", "--num-frames must be"),
    "beyond the end": ("semfield process scene/images --output-dir new --start 99", "no frames between 99 and inf"),
    "output is a file": ("semfield process scene/images --output-dir text.txt", "text.txt is a file: choose another"),
    "output is the input": ("semfield process scene/images --output-dir scene/images", "choose another folder"),
    "labels are not there": ("semfield process scene/images --output-dir new --labels none", "none does not exist"),
    "poses are not there": ("semfield process scene/images --output-dir new --poses none", "none does not exist"),
    "frame names": ("semfield process scene/images --output-dir new --frame-names some", "invalid choice 'some'"),
    "no video to track": ("semfield track none.mp4 --labels mask.png --output-dir new", "none.mp4 does not exist"),
    "no labels to track": ("semfield track scene/images --labels none --output-dir new", "labels none do not exist"),
    # --- runs
    "a run without checkpoints": ("semfield export --load-config run --output-dir new", "put that folder beside"),
    "evaluated without checkpoints": ("ns-eval --load-config run", "put that folder beside"),
    "damaged checkpoint": ("ns-eval --load-config damaged", "it is damaged or incomplete; delete it"),
    "checkpoint of nothing": ("ns-eval --load-config hollow", "it is damaged or incomplete; delete it"),
    "checkpoint of others": ("ns-eval --load-config foreign", "is not a checkpoint of Nerfstudio"),
    "folder without checkpoints": ("ns-eval --load-config vacant", "There is no checkpoint in"),
    # --- files beside runs
    "session of no session": (OURS["segment"].replace("session.json", "list.json").format("run"), "not a session"),
    "session of half": ("semfield segment --load-config run --output-dir new --session half.json", "is not valid JSON"),
    "no session": ("semfield segment --load-config run --output-dir new --session none.json", "none.json is missing"),
    "no edits": ("semfield edit --load-config run --edits none.yml --output-dir new", "edits none.yml cannot be read"),
    "edits of half": ("semfield edit --load-config run --edits half.yml --output-dir new", "it is not JSON or YAML"),
    "edits of words": ("semfield edit --load-config run --edits words.yml --output-dir new", "is not a list of edits"),
    "edits in a folder": ("semfield edit --load-config run --edits empty --output-dir new", "empty cannot be read"),
    "nothing to export": ("semfield export --output-dir new", "There is nothing to export from"),
    "no masks": ("semfield export --segmentation empty --output-dir new", "empty holds no segmentation.json"),
    "moment": ("semfield export --load-config run --output-dir new --at 7", "--at must be from 0 to 1"),
    "scale": ("semfield export --load-config run --output-dir new --scale 0", "--scale must be above 0"),
    "views": ("semfield export --load-config run --output-dir new --views x", "invalid choice 'x'"),
    "cameras of half": ("semfield export --load-config run --output-dir new --camera-path half.json", "not valid JSON"),
    "cameras of a list": ("semfield export --load-config run --output-dir new --camera-path list.json", "no cameras"),
    "seconds": ("semfield camera-path --load-config run --output new/p.json --seconds 0", "seconds and fps above 0"),
    "place": ("semfield camera-path --load-config run --output new/p.json --at 2", "is a place in the video from 0"),
    "path in a folder": ("semfield camera-path --load-config run --output empty", "empty is a folder: give a file"),
    "run of another method": (OURS["export-checkpoint"].format("run"), "run/config.yml is not a run of gsn"),
    "attached run of another method": (OURS["attach"].format("run"), "run/config.yml is not a run of gsn"),
    "nothing to attach": ("semfield attach --output-dir new", "give --data, the folder of a scene, or --splat"),
    "no splat": ("semfield attach --splat none.ply --output-dir new", "none.ply"),
    "a splat of text": ("semfield attach --splat text.txt --output-dir new", "cannot read text.txt"),
    "no teacher": ("semfield attach --splat splat.ply --teacher none --output-dir new", "There is no teacher 'none'"),
    "no photos of a splat": ("semfield attach --splat splat.ply --data none --output-dir new", "There is no scene"),
    "a splat and weights": ("semfield attach --splat splat.ply --bake --output-dir new", "leave --load-config and"),
    "no official weights": (OURS["import-checkpoint"].format("none.pth"), "none.pth"),
    "weights of text": (OURS["import-checkpoint"].format("text.txt"), "text.txt"),
    # --- synthetic scenes
    "frames of a scene": ("semfield synthetic demo --output-dir new --num-frames 1", "has 2 to 999 frames, not 1"),
    "seed of a scene": ("semfield synthetic demo --output-dir new --seed -1", "is 0 or more, not -1"),
    "name of a scene": ("semfield synthetic none --output-dir new", "invalid choice 'none'"),
    "folder of a scene": ("semfield synthetic demo --output-dir empty/../scene", "choose another folder"),
    "scene of the demo": ("semfield demo --output-dir new --scene none", "no synthetic scene 'none'"),
    "method of the demo": ("semfield demo --output-dir new --method none", "There is no method 'none'"),
    "size of the demo": ("semfield demo --output-dir new --width 1", "is empty: give a larger size"),
    "folder of the demo": ("semfield demo --output-dir text.txt", "text.txt is a file"),
    # --- training
    "no scene": (f"{TRAIN} none", "none"),
    "empty scene": (f"{TRAIN} empty", "empty holds no scene"),
    "scene of text": (f"{TRAIN} text.txt", "There is no scene at text.txt"),
    "scene of a video": (f"{TRAIN} text.mp4", "text.mp4 is a video: make a scene of it with semfield process"),
    "no cuda": (f"{TRAIN} scene --machine.device-type cuda", "No NVIDIA GPU was found: add --machine.device-type cpu"),
    "no mps": (f"{TRAIN} scene --machine.device-type mps", "The device mps (of Macs) is not there"),
    "no such device": (f"{TRAIN} scene --machine.device-type tpu", "invalid choice 'tpu'"),
    "no checkpoint": (f"{TRAIN} scene --load-checkpoint none/step-000000001.ckpt", "There is no checkpoint none"),
    "mistyped checkpoint": (f"{TRAIN} scene --load-checkpoint foriegn/c.ckpt", "There is no checkpoint foriegn"),
    "folder for a checkpoint": (f"{TRAIN} scene --load-checkpoint damaged", "damaged is a folder: give a checkpoint"),
    "text for a checkpoint": (f"{TRAIN} scene --load-checkpoint text.txt", "text.txt is not a checkpoint"),
    "config for a checkpoint": (f"{TRAIN} scene --load-checkpoint run/config.yml", "config.yml is not a checkpoint"),
    "foreign checkpoint": (
        f"{TRAIN} scene --load-checkpoint foreign/nerfstudio_models/step-000000001.ckpt",
        "is not a checkpoint of Nerfstudio",
    ),
    "pickled checkpoint": (f"{TRAIN} scene --load-checkpoint pickle.ckpt", "Cannot read the checkpoint pickle.ckpt"),
    "no folder of checkpoints": (f"{TRAIN} scene --load-dir none", "There is no folder none of checkpoints"),
    "empty folder of checkpoints": (f"{TRAIN} scene --load-dir empty", "There is no checkpoint in empty"),
    "run for its checkpoints": (f"{TRAIN} scene --load-dir damaged", "give damaged/nerfstudio_models"),
    "file for a folder": (f"{TRAIN} scene --load-dir pickle.ckpt", "pickle.ckpt is a file: give the folder"),
    "schedule": (f"{TRAIN} scene --pipeline.datamanager.dataparser.labels some", '"some" is not understood'),
    "output of a training": (f"{TRAIN} scene --output-dir text.txt", "text.txt"),
    # --- rendering
    "no path": (f"{RENDER} none.json", "none.json is not a camera path"),
    "path of half": (f"{RENDER} half.json", "half.json is not a camera path"),
    "path of a list": (f"{RENDER} list.json", "list.json is not a camera path"),
    "path without cameras": (f"{RENDER} no_cameras.json", "no_cameras.json has no cameras"),
    "path of half a matrix": (f"{RENDER} half_matrix.json", "half_matrix.json"),
    "path in a folder of nothing": (f"{RENDER} empty", "empty is not a camera path"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the files that the command lines name."""
    folder = tmp_path_factory.mktemp("bad")
    write_transforms_scene(folder / "scene")
    write_files(folder)
    return folder


def write_files(folder: Path) -> None:
    (folder / "empty").mkdir()
    for name, content in {
        **dict.fromkeys(["text.txt", "text.mp4"], "some words"),
        **dict.fromkeys(["nothing.mp4", "nothing.yml"], ""),
        "words.yml": "a: 1\n",
        "half.yml": "a: [1",
        "edits.yml": "- {kind: remove}\n",
        "half.json": "{",
        "session.json": json.dumps({"format": FORMAT, "version": VERSION, "actions": []}),
        "list.json": "[]",
        "no_cameras.json": json.dumps(PATH | {"camera_path": []}),
        "half_matrix.json": json.dumps(PATH | {"camera_path": [CAMERA | {"camera_to_world": [1, 2]}]}),
    }.items():
        (folder / name).write_text(content)
    write_ply(folder / "splat.ply", splat_vertices(np.zeros((2, 3)), np.random.default_rng(0)))
    (folder / "pickle.ckpt").write_bytes(pickle.dumps({"pipeline": Path("x")}))
    (folder / "mask.png").write_bytes((folder / "scene" / "labels" / "001.png").read_bytes())
    for run in ("run", "damaged", "hollow", "foreign", "vacant"):
        config = deepcopy(semantic_flow_splat_tiny.config)
        config.pipeline.datamanager.data = config.pipeline.datamanager.dataparser.data = Path("scene")
        config.output_dir, config.experiment_name, config.timestamp = Path("old"), "scene", "run"
        checkpoints = folder / run / "nerfstudio_models"
        checkpoints.parent.mkdir()
        (folder / run / "config.yml").write_text(yaml.dump(config))
        if run != "run":
            checkpoints.mkdir()
    checkpoint = "nerfstudio_models/step-000000001.ckpt"
    torch.save({"weights": torch.zeros(9)}, folder / "foreign" / checkpoint)
    (folder / "damaged" / checkpoint).write_bytes((folder / "foreign" / checkpoint).read_bytes()[:300])
    (folder / "hollow" / checkpoint).write_bytes(b"")


def said(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that cannot do its work says at the end: its sentence, or that of its option parser."""
    program, *arguments = sys.argv = command.split()
    try:
        if program == "semfield":
            cli.main(arguments)
        else:
            open_run_folders(sys.argv)
            import_module(f"nerfstudio.scripts.{SCRIPTS[program.removeprefix('ns-')]}").entrypoint()
    except SystemExit as stop:
        assert stop.code == 2
        return " ".join(capsys.readouterr().err.replace("│", " ").split())
    except Exception as error:
        sentence = error_sentence(error, error.__traceback__)
        if sentence is None:
            raise
        assert "\n" not in sentence and "Error" not in sentence
        return sentence
    raise AssertionError(f"{command} did not fail")


@pytest.mark.parametrize("name", CASES)
def test_a_bad_command_line_is_answered_by_one_sentence(place, name, monkeypatch, capsys):
    command, told = CASES[name]
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("SEMFIELD_CACHE", str(place / "cache"))
    if command.startswith(RENDER):  # a run is opened before its camera path
        monkeypatch.setattr("nerfstudio.scripts.render.eval_setup", lambda *_, **__: (None, Ours(), None, None))
    with warnings.catch_warnings():
        sentence = said(command, capsys)
    assert told in sentence, sentence


def test_each_command_is_in_the_table():
    programs = {" ".join(command.split()[: 1 + command.startswith("semfield")]) for command, _ in CASES.values()}
    assert programs == {f"semfield {name}" for name in cli.names()} | {f"ns-{name}" for name in SCRIPTS}
