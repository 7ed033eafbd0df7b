"""A run is opened by its folder, in all commands."""

import os
import subprocess
from pathlib import Path

import pytest

from semfield_ns.cli import command, names
from semfield_ns.cli.options import RUNS, prepared
from semfield_ns.compat.commands import open_run_folders
from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import run_config
from tests.runs import COMMANDS, run_command


def make_run(folder: Path, seconds: int = 0) -> Path:
    folder.mkdir(parents=True)
    config = folder / "config.yml"
    config.write_text("!!python/object:nerfstudio.engine.trainer.TrainerConfig\n")
    os.utime(config, (1e9 + seconds, 1e9 + seconds))
    return config


def test_a_file_is_itself_and_a_folder_the_only_run_below_it(tmp_path):
    config = make_run(tmp_path / "scene" / "method" / "time")
    (config.parent / "nerfstudio_models").mkdir()
    for run in (config, config.parent, config.parents[1], tmp_path):
        assert run_config(run) == config
    (tmp_path / "scene.yml").write_text("any name will do")
    assert run_config(tmp_path / "scene.yml") == tmp_path / "scene.yml"


def test_the_run_of_a_folder_itself_comes_before_those_below(tmp_path):
    config = make_run(tmp_path / "run")
    make_run(tmp_path / "run" / "edited")
    make_run(tmp_path / ".steps")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yml").write_text("a: 1\n")
    assert run_config(tmp_path / "run") == run_config(tmp_path) == config


def test_several_runs_are_listed_newest_first(tmp_path):
    for seconds in (5, 1, 9):
        make_run(tmp_path / f"run{seconds}", seconds)
    with pytest.raises(SemfieldError) as error:
        run_config(tmp_path)
    first, *listed = str(error.value).splitlines()
    assert first == f"There are 3 runs in {tmp_path}: give one of them, newest first:"
    assert listed == [f"  {tmp_path / name}" for name in ("run9", "run5", "run1")]
    for seconds in range(10, 20):
        make_run(tmp_path / f"run{seconds}", seconds)
    with pytest.raises(SemfieldError, match=r"There are 13 runs [\s\S]*run19\n[\s\S]*run10\n  and 3 more$"):
        run_config(tmp_path)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(SemfieldError, match=f"^There is no run in {tmp_path}"):
        run_config(tmp_path)
    with pytest.raises(SemfieldError, match=f"^{tmp_path / 'none'} does not exist"):
        run_config(tmp_path / "none")


def test_every_command_with_a_run_takes_a_folder(tmp_path):
    """No command has another name for it."""
    config = make_run(tmp_path / "run")
    seen = []

    def made(load_config: Path | None = None, run: Path | None = None, output_dir: Path = tmp_path) -> None:
        seen.append((load_config, run))

    prepared(made)(load_config=tmp_path)
    prepared(made)(run=tmp_path, output_dir=tmp_path / "out")
    assert seen == [(config, None), (None, config)]
    takers = [name for name in names() if set(RUNS) & set(prepared(command(name)).__annotations__)]
    assert set(names()) - set(takers) == {"demo", "synthetic", "process", "track", "import-checkpoint"}


@pytest.mark.parametrize("name", ["--load-config", "--load_config"])
def test_commands_of_nerfstudio_are_given_the_file(tmp_path, monkeypatch, name):
    config = make_run(tmp_path / "run")
    monkeypatch.chdir(config.parent)  # which is not what an option without a value means
    arguments = ["ns-eval", name, str(tmp_path), "--output-path", str(tmp_path), f"{name}={tmp_path}", name]
    open_run_folders(arguments)
    assert arguments == ["ns-eval", name, str(config), "--output-path", str(tmp_path), f"{name}={config}", name]
    make_run(tmp_path / "other")
    unclear = ["ns-eval", name, str(tmp_path)]
    open_run_folders(unclear)
    assert unclear == ["ns-eval", name, str(tmp_path)]


@pytest.mark.slow
def test_a_folder_on_the_command_line(trained_run, tmp_path):
    folder, path = trained_run.parents[1], tmp_path / "path.json"
    run_command(["semfield", "camera-path", "--load-config", str(folder), "--output", str(path), "--seconds", "0.1"])
    assert path.is_file()


@pytest.mark.slow
def test_nerfstudio_reads_the_run_of_a_folder_or_says_which_there_are(tmp_path):
    def told() -> str:
        command = [COMMANDS / "ns-eval", "--load-config", tmp_path, "--output-path", tmp_path / "out.json"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        return result.stderr.strip()

    config = make_run(tmp_path / "a")
    config.write_text("!!python/object:no_such_module.X {}")
    assert f"{config} cannot be read as the config.yml of a run" in told()
    make_run(tmp_path / "b")
    assert f"There are 2 runs in {tmp_path}: give one of them" in told()
