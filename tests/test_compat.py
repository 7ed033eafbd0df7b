"""Errors end with one sentence, checkpoints load, and LPIPS is never in the way."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semfield_ns.cli.one_scene import read_run
from semfield_ns.compat import commands, lpips, runs, sentences, viser
from semfield_ns.errors import SemfieldError


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


def test_a_semfield_error_ends_with_its_sentence_and_exit_code_1():
    code = "import semfield_ns; from semfield_ns.errors import SemfieldError as E; raise E('Frame 3 is bad: fix it.')"
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "Frame 3 is bad: fix it.\n")
    result = run_python(code, SEMFIELD_TRACEBACK="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_other_errors_keep_their_traceback():
    result = run_python("import semfield_ns; raise ValueError('other')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: other" in result.stderr


def test_warnings_about_nerfstudio_are_not_shown():
    result = run_python("import semfield_ns, nerfstudio.cameras.cameras")
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, semfield_ns; print([m for m in ('torch', 'numpy', 'nerfstudio', 'cv2') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


class FailingDataset(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise SemfieldError("Frame 7 of a.png is bad: fix it.")


def test_errors_of_data_loader_workers_lose_the_worker_s_traceback():
    with pytest.raises(SemfieldError) as caught:
        next(iter(torch.utils.data.DataLoader(FailingDataset(), num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert sentences.error_sentence(caught.value) == "Frame 7 of a.png is bad: fix it."


def spawned(rank: int) -> None:
    raise SemfieldError("Frame 7 of a.png is bad: fix it.")


@pytest.mark.slow
def test_errors_of_spawned_processes_lose_the_worker_s_traceback():
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as caught:
        torch.multiprocessing.spawn(spawned, nprocs=1)
    assert sentences.error_sentence(caught.value) == "Frame 7 of a.png is bad: fix it."


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True)])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers_are_read_under_old_and_new_names(tmp_path: Path, number: np.generic, module: str):
    runs.allow_nerfstudio_checkpoints()
    path = tmp_path / "numbers.ckpt"
    rename_in_pickle(path, {"lr": number}, module)
    assert torch.load(path, weights_only=True)["lr"] == number


def test_without_our_list_torch_refuses_such_checkpoints(tmp_path: Path):
    path = tmp_path / "numbers.ckpt"
    torch.save({"lr": np.float64(0.5)}, path)
    code = f"import torch; torch.load({str(path)!r}, weights_only=True)"
    assert "UnpicklingError" in run_python(code).stderr


def test_python_objects_stay_forbidden(tmp_path: Path):
    runs.allow_nerfstudio_checkpoints()
    path = tmp_path / "objects.ckpt"
    torch.save({"array": np.array([object()], dtype=object)}, path)
    with pytest.raises(Exception, match="Weights only"):
        torch.load(path, weights_only=True)


def rename_in_pickle(path: Path, value: object, module: str) -> None:
    """Save as torch does, with numpy's module named as another version of numpy names it."""
    torch.save(value, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        content = content.replace(b"c" + name + b"\n", b"c" + module.encode() + b"\n")
    path.write_bytes(content)


@pytest.fixture
def fresh_lpips():
    lpips.lazy_lpips.cache_clear()
    yield
    lpips.lazy_lpips.cache_clear()


def test_lpips_without_weights_is_none_and_said_once(fresh_lpips, monkeypatch, caplog):
    def no_weights(**_):
        raise OSError("no network")

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", no_weights)
    with caplog.at_level(logging.WARNING):
        assert lpips.lazy_lpips() is None
        assert lpips.lazy_lpips() is None
    assert len([record for record in caplog.records if "LPIPS" in record.message]) == 1


def test_lpips_is_a_plain_function_outside_the_state_dict(fresh_lpips, monkeypatch):
    class Metric(torch.nn.Module):
        def __init__(self, normalize):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, prediction, truth):
            assert float(prediction.max()) <= 1.0
            return (prediction - truth).abs().mean() * self.weight

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", Metric)
    owner = torch.nn.Module()
    owner.lpips = lpips.lazy_lpips()
    assert owner.state_dict() == {} and list(owner.parameters()) == []
    assert float(owner.lpips(2 * torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))) == 1.0


class Ours:
    """Stands for a pipeline of this package."""

    __module__ = "semfield_ns.pipeline"


class Theirs:
    pass


def eval_load_checkpoint(config, pipeline):
    load_path = config
    return torch.load(load_path, map_location="cpu"), load_path


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str):
    path = tmp_path / "step-000000001.ckpt"
    torch.save({"step": 1, "weights": torch.zeros(1000)}, path)
    content = {"truncated": path.read_bytes()[:500], "text": b"hello", "empty": b""}[damage]
    path.write_bytes(content)
    sentence = sentence_of(eval_load_checkpoint, path, Ours())
    assert sentence is not None and str(path) in sentence and "damaged" in sentence
    assert sentence_of(eval_load_checkpoint, path, Theirs()) is None


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    sentence = sentence_of(eval_load_checkpoint, tmp_path / "none.ckpt", Ours())
    assert sentence is not None and "none.ckpt" in sentence and "no checkpoint" in sentence


def test_a_missing_checkpoint_to_adapt_is_named(tmp_path: Path):
    from semfield_ns.semantic_flow.trainer import SemanticFlowTrainer

    trainer = object.__new__(SemanticFlowTrainer)
    for pipeline, sentence in ((Ours(), f"There is no checkpoint {tmp_path / 'none.ckpt'}"), (Theirs(), "None")):
        trainer.config = SimpleNamespace(pipeline=pipeline, load_checkpoint=tmp_path / "none.ckpt")
        assert str(sentence_of(trainer._read_checkpoint, tmp_path / "none.ckpt")).startswith(sentence)


@pytest.mark.parametrize("text", ["[{kind: remove}]", "a: [", "!!python/object:no_such_module.X {}"])
def test_what_is_no_config_is_named(tmp_path: Path, text: str):
    from nerfstudio.utils.eval_utils import eval_setup

    missing = tmp_path / "none.yml"
    told = f"{missing} does not exist: give the folder of a trained run, or its config.yml."
    assert sentence_of(eval_setup, missing) == told
    assert str(sentence_of(eval_setup, tmp_path)).startswith(f"There is no run in {tmp_path}: ")
    path = tmp_path / "config.yml"
    path.write_text(text)
    assert sentence_of(eval_setup, tmp_path) == f"{tmp_path} is a folder: give the config.yml of the run, {path}."
    for read in (eval_setup, read_run):
        assert str(sentence_of(read, path)).startswith(f"{path} cannot be read as the config.yml of a run: ")


def test_errors_of_a_run_that_was_read_are_its_own():
    def eval_setup(config_path, config):
        config.pipeline.setup()

    assert sentence_of(eval_setup, Path("config.yml"), SimpleNamespace(pipeline=Theirs())) is None


@pytest.mark.parametrize("text", [None, "- no JSON", "[1]", '{"frames": []}', '{"seconds": 1, "camera_path": [{}]}'])
def test_what_is_no_camera_path_is_named(tmp_path: Path, monkeypatch, ffmpeg, text: str | None):
    from nerfstudio.scripts import render

    path = tmp_path / "transforms.json"
    if text is not None:
        path.write_text(text)
    command = render.RenderCameraPath(load_config=tmp_path / "config.yml", camera_path_filename=path)
    for pipeline, sentence in ((Ours(), f"{path} is not a camera path: make one in the viewer"), (Theirs(), "None")):
        found = (None, pipeline, None, None)
        monkeypatch.setattr(render, "eval_setup", lambda *_, found=found, **__: found)
        assert str(sentence_of(command.main)).startswith(sentence)


def test_errors_of_rendering_are_their_own(tmp_path: Path, monkeypatch, ffmpeg):
    from nerfstudio.scripts import render

    def _render_trajectory_video(*_, **__):
        raise ValueError("of the renderer")

    path = tmp_path / "path.json"
    camera = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50, "aspect": 1}
    path.write_text(json.dumps({"seconds": 1, "render_height": 8, "render_width": 8, "camera_path": [camera]}))
    monkeypatch.setattr(render, "eval_setup", lambda *_, **__: (None, Ours(), None, None))
    monkeypatch.setattr(render, "_render_trajectory_video", _render_trajectory_video)
    command = render.RenderCameraPath(load_config=tmp_path / "config.yml", camera_path_filename=path)
    assert sentence_of(command.main) is None


def train_loop(config):
    raise RuntimeError("Found no NVIDIA driver on your system. Please check that ...")


def test_a_missing_gpu_is_said_with_what_to_do():
    assert "--machine.device-type cpu" in str(sentence_of(train_loop, SimpleNamespace(pipeline=Ours())))
    assert sentence_of(train_loop, SimpleNamespace(pipeline=Theirs())) is None


def test_missing_gpus_are_said_before_processes_start(monkeypatch):
    from torch import multiprocessing as processes

    started = []
    monkeypatch.setattr(processes, "spawn", lambda function, args=(), **settings: started.append(args))
    commands.check_devices()
    machine = SimpleNamespace(num_devices=99)
    with pytest.raises(SemfieldError, match="num-devices 99"):
        processes.spawn(train_loop, nprocs=99, args=(SimpleNamespace(pipeline=Ours(), machine=machine),))
    processes.spawn(train_loop, nprocs=99, args=(SimpleNamespace(pipeline=Theirs(), machine=machine),))
    assert len(started) == 1


def sentence_of(function, *args) -> str | None:
    with pytest.raises(Exception) as caught:
        function(*args)
    return sentences.error_sentence(caught.value, caught.value.__traceback__)


def test_viser_gives_its_lock_back_when_a_block_raises():
    from viser.infra import WebsockMessageHandler

    viser.repair_viser()
    handler: Any = SimpleNamespace(_atomic_lock=threading.Lock(), _locked_thread_id=-1)
    with pytest.raises(ZeroDivisionError), WebsockMessageHandler.atomic(handler), WebsockMessageHandler.atomic(handler):
        raise ZeroDivisionError
    assert handler._locked_thread_id == -1 and not handler._atomic_lock.locked()


def test_viser_opens_the_archive_of_its_icons_once(monkeypatch: pytest.MonkeyPatch):
    from viser import _gui_api, _gui_handles, _icons

    icons = ("eye", "camera", "settings")
    viser.repair_viser()
    expected = [_icons.svg_from_icon(name) for name in icons]
    opened, plain = [], tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda path: opened.append(path) or plain(path))
    found = [module.svg_from_icon(name) for module in (_gui_api, _gui_handles) for name in icons]
    assert found == 2 * expected and len(opened) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("place", ["model", "training"])
def test_ns_train_ends_with_the_sentence(tmp_path: Path, place: str):
    from tests.tiny_method import write_tiny_scene

    scene = write_tiny_scene(tmp_path / "scene")
    here = Path(__file__).parent
    result = subprocess.run(
        [Path(sys.executable).with_name("ns-train"), "tiny-test", "--data", scene, "--output-dir", tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(here),
            "NERFSTUDIO_METHOD_CONFIGS": "tiny-test=tiny_method:tiny_test",
            "TINY_FAIL": place,
        },
        timeout=300,
    )
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith(f"The {place} of the tiny method failed: unset TINY_FAIL.")
    assert "Traceback" not in result.stderr + result.stdout


def test_progress_bars_print_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys):
    from rich.console import Console
    from rich.progress import Progress, track

    monkeypatch.setattr(commands, "LINE_SECONDS", 0.05)
    for name in ("start", "stop"):
        monkeypatch.setattr(Progress, name, getattr(Progress, name))
    commands.progress_in_logs.__wrapped__()
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        for step in track(range(4), description="[red]Frames", console=console):
            time.sleep(0.2 * (step == 2))
        told = capsys.readouterr().out
        assert bool(re.search(r"^      Frames: 50%, 0 s$", told, re.MULTILINE)) != terminal
    threads = [thread for thread in threading.enumerate() if "_tell_progress" in thread.name]
    time.sleep(0.2)
    assert not any(thread.is_alive() for thread in threads)
