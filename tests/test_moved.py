"""Runs that were moved, paths that are mistyped, machines that lack something, Ctrl-C: one sentence, or it works."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from semfield_ns.compat import commands, runs
from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import checkpoint_folder, find_scene
from tests.test_compat import Ours, Theirs, sentence_of


def settings(data):
    return SimpleNamespace(pipeline=SimpleNamespace(datamanager=SimpleNamespace(data=data, dataparser=None)))


def test_checkpoints_are_looked_for_beside_the_config(tmp_path):
    config, named = tmp_path / "new" / "config.yml", tmp_path / "old" / "nerfstudio_models"
    with pytest.raises(SemfieldError, match=r"neither in .*old.* nor in .*new.*: put that folder beside"):
        checkpoint_folder(named, config)
    (config.parent / "nerfstudio_models").mkdir(parents=True)
    assert checkpoint_folder(named, config) == config.parent / "nerfstudio_models"
    named.mkdir(parents=True)
    assert checkpoint_folder(named, config) == named


def test_scenes_are_looked_for_from_the_config(tmp_path):
    config = tmp_path / "project" / "outputs" / "run" / "config.yml"
    (tmp_path / "project" / "scenes" / "demo").mkdir(parents=True)
    found = settings(Path("scenes/demo"))
    find_scene(found, config)
    assert found.pipeline.datamanager.data == tmp_path / "project" / "scenes" / "demo"
    for lost in (Path("scenes/other"), tmp_path / "gone"):
        with pytest.raises(
            SemfieldError, match=rf'{lost.name} of the run .* is not there .*as "data" in .*config\.yml'
        ):
            find_scene(settings(lost), config)
    find_scene(settings(None), config)


def test_a_folder_that_the_run_is_in_is_not_its_scene(tmp_path):
    config = tmp_path / "outputs" / "demo" / "method" / "time" / "config.yml"
    config.parent.mkdir(parents=True)
    (tmp_path / "demo").mkdir()
    found = settings(Path("demo"))
    find_scene(found, config)
    assert found.pipeline.datamanager.data == tmp_path / "demo"


def test_a_run_of_a_method_that_is_not_installed(tmp_path):
    def eval_setup(config_path, config):
        return {}[config]

    told = sentence_of(eval_setup, tmp_path / "config.yml", "unicorn")
    assert told == f"{tmp_path / 'config.yml'} is of the method 'unicorn', which is not installed: install its package."


def _load_checkpoint(config, pipeline):
    """As Nerfstudio's trainer does it."""
    import torch

    if config.load_dir is not None:
        steps = sorted(int(x[x.find("-") + 1 : x.find(".")]) for x in os.listdir(config.load_dir))
        return steps[-1]
    load_checkpoint = config.load_checkpoint
    assert load_checkpoint.exists()
    return torch.load(load_checkpoint, map_location="cpu")


@pytest.mark.parametrize(
    "option, path, told",
    [
        (
            "load_dir",
            "nerfstudio_model",
            "There is no folder .*nerfstudio_model of checkpoints: did you mean .*_models",
        ),
        ("load_dir", "elsewhere", "There is no folder .*elsewhere of checkpoints"),
        ("load_dir", "nerfstudio_models/step-000000002.ckpt", "is a file: give the folder that it is in as --load-dir"),
        ("load_dir", ".", "There is no checkpoint in .*: give .*nerfstudio_models"),
        ("load_dir", "empty", "There is no checkpoint in .*empty: train until"),
        ("load_checkpoint", "nerfstudio_models", "is a folder: give a checkpoint in it, such as .*step-000000002.ckpt"),
        ("load_checkpoint", "empty", "is a folder: give a checkpoint, which is a .ckpt file"),
        ("load_checkpoint", "nerfstudio_models/step-00000002.ckpt", "did you mean .*step-000000002.ckpt"),
    ],
)
def test_wrong_paths_of_checkpoints(tmp_path, option, path, told):
    (tmp_path / "nerfstudio_models").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "nerfstudio_models" / "step-000000002.ckpt").write_bytes(b"damaged")
    config = SimpleNamespace(load_dir=None, load_checkpoint=None)
    setattr(config, option, tmp_path / path)
    sentence = sentence_of(_load_checkpoint, config, Ours())
    assert sentence is not None and re.search(told, sentence) and "delete" not in sentence
    assert sentence_of(_load_checkpoint, config, Theirs()) is None


def test_a_camera_path_without_cameras(tmp_path, monkeypatch, ffmpeg):
    from nerfstudio.scripts import render

    from semfield_ns.cli.segment import path_views

    path = tmp_path / "path.json"
    sizes = '"camera_type": "perspective", "render_height": 6, "render_width": 8, "seconds": 0'
    path.write_text(f'{{{sizes}, "camera_path": []}}')
    with pytest.raises(SemfieldError, match="is not a camera path, or has no cameras"):
        path_views(path)
    monkeypatch.setattr(render, "eval_setup", lambda *_, **__: (None, Ours(), None, None))
    command = render.RenderCameraPath(load_config=tmp_path / "config.yml", camera_path_filename=path)
    assert f"{path} has no cameras" in str(sentence_of(command.main))


def train_loop(config):
    raise RuntimeError("PyTorch is not linked with support for mps devices")


def test_a_mac_without_its_device():
    assert "--machine.device-type cpu" in str(sentence_of(train_loop, SimpleNamespace(pipeline=Ours())))


def test_there_is_an_ffmpeg_where_the_path_has_none(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        monkeypatch.setenv("PATH", str(tmp_path))
        commands.provide_ffmpeg()
        found = shutil.which("ffmpeg")
        assert found is not None and Path(found).parent == tmp_path / "cache" / "bin"
    told = subprocess.run([found, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True).stdout
    assert "libx264" in told
    monkeypatch.setattr(commands.shutil, "which", lambda name: "/usr/bin/ffmpeg")
    before = os.environ["PATH"]
    commands.provide_ffmpeg()
    assert os.environ["PATH"] == before


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("program", ["ns-train", "ns-viewer"])
def test_ctrl_c_is_one_line_and_130(program):
    code = (
        f"import sys; sys.argv = ['/bin/{program}', '--vis', 'x']; import semfield_ns, time\n"
        "print('ready', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('traceback of Nerfstudio')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "\nStopped.\n")


@pytest.mark.parametrize("seconds, saved", [(0.0, [7]), (1e9, [])])
def test_a_stopped_training_is_saved_when_it_was_long(tmp_path, monkeypatch, capsys, seconds, saved):
    from nerfstudio.engine.trainer import Trainer

    def train(self):
        self.step = 7
        time.sleep(0.01)
        raise commands.Interrupted(130)

    monkeypatch.setattr(Trainer, "train", train)
    monkeypatch.setattr(runs, "WORTH_SAVING_SECONDS", seconds)
    runs.save_when_stopped.__wrapped__()
    trainer = object.__new__(Trainer)
    trainer.pipeline, trainer.checkpoint_dir = Ours(), tmp_path
    steps = []
    trainer.save_checkpoint = steps.append
    with pytest.raises(SystemExit) as caught:
        trainer.train()
    assert caught.value.code == 130 and steps == saved
    assert ("To go on: --load-dir" in capsys.readouterr().err) == bool(saved)
