import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

import semfield_ns
from semfield_ns import cli
from semfield_ns.cli import GROUPS, command, main, names
from semfield_ns.errors import SemfieldError

SEMFIELD = (sys.executable, "-m", "semfield_ns.cli")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SEMFIELD, *arguments], capture_output=True, text=True, timeout=120)


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"semfield {version('semfield-ns')}\n"
    assert semfield_ns.__version__ == version("semfield-ns")


def test_help_starts_without_the_heavy_packages():
    code = (
        "import sys\n"
        "from semfield_ns.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'nerfstudio', 'cv2', 'matplotlib') if name in sys.modules])\n"
    )
    start = time.monotonic()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
    assert time.monotonic() - start < 10  # well under 2 s on a machine that is not busy


def test_a_wrong_setting_is_an_error_of_the_command_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["camera-path", "--kind", "sideways"])
    assert stop.value.code != 0


def test_a_missing_run_is_one_sentence(tmp_path):
    result = run("camera-path", "--load-config", str(tmp_path / "config.yml"), "--output", str(tmp_path / "path.json"))
    assert result.returncode == 1
    assert result.stderr.strip().endswith("does not exist: give the folder of a trained run, or its config.yml.")
    assert "Traceback" not in result.stderr and not (tmp_path / "path.json").exists()


def test_the_command_alone_says_what_to_do_first():
    result = run()
    assert result.returncode == 0 and result.stderr == ""
    for line in ("semfield demo", "semfield process VIDEO --output-dir SCENE", "semfield --help"):
        assert line in result.stdout


def test_the_help_has_a_line_for_each_command_by_group():
    result = run("--help")
    assert result.returncode == 0
    _, *shown = re.split(r"^(\S.*):$", result.stdout, flags=re.MULTILINE)
    listed = [re.findall(r"^  (\S+)  +\S", text, flags=re.MULTILINE) for text in shown[1::2]]
    assert dict(zip(shown[::2], listed, strict=True)) == {title: list(each) for title, each in GROUPS.items()}
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_no_command_is_forgotten():
    """A module with a function of its own name is a command."""
    modules = {path.stem for path in Path(cli.__file__).parent.glob("[!_]*.py")}
    written = {name for name in modules if hasattr(importlib.import_module(f"semfield_ns.cli.{name}"), name)}
    assert written == {name.replace("-", "_") for name in names()}


@pytest.mark.parametrize("name", names())
def test_help_is_plain(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "{None}" not in text and "(default: )" not in text and "(default: None)" not in text
    assert (command(name).__doc__ or "").splitlines()[0] in text


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["proces"], "Unknown command 'proces'. Did you mean 'process'?"),
        (["viewer", "run"], "Unknown command 'viewer'. Did you mean 'view'?"),
        (["train"], "Unknown command 'train'. Nerfstudio's ns-train does this: ns-train --help."),
        (["xyzzy"], "Unknown command 'xyzzy'. See semfield --help."),
        (["--load-config", "run"], "Unknown option '--load-config': a command comes first, see semfield --help."),
    ],
)
def test_a_wrong_command_is_said_with_what_was_meant(arguments, told):
    result = run(*arguments)
    assert (result.returncode, result.stdout, result.stderr.strip()) == (2, "", told)


def test_a_wrong_option_is_said_with_what_was_meant(tmp_path):
    result = run("synthetic", "demo", "--output-dir", str(tmp_path / "scene"), "--num-frame", "3")
    assert result.returncode == 2 and not (tmp_path / "scene").exists()
    assert "--num-frame" in result.stderr and re.search(r"Perhaps you meant:[^-]*--num-frames ", result.stderr)


def interrupted(arguments: Sequence[str], begun: Callable[[], bool]) -> tuple[int, str]:
    """Exit code and stderr of a command that gets Ctrl-C once it is at work."""
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts commands in the background tells them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 60
        while not begun():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        process.wait()
    return process.returncode, errors


def test_ctrl_c_is_one_line_and_ends_the_work(tmp_path):
    arguments = [*SEMFIELD, "synthetic", "demo", "--output-dir", str(tmp_path / "scene"), "--num-frames", "999"]
    code, errors = interrupted(arguments, lambda: any(tmp_path.iterdir()))
    assert (code, errors.strip()) == (130, "Stopped.")


def test_ctrl_c_ends_the_commands_that_were_started(tmp_path):
    """As during the training of a demo: a child that even ignores being asked to end."""
    begun = tmp_path / "begun"
    child = f"""if True:
        import os, pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        part = pathlib.Path({str(begun) + ".part"!r})
        part.write_text(str(os.getpid()))
        part.rename({str(begun)!r})
        time.sleep(600)
    """
    parent = f"""if True:
        import sys
        from pathlib import Path
        from semfield_ns import cli
        from semfield_ns.cli import steps
        steps.PATIENCE_SECONDS = 0.5
        command = [sys.executable, "-c", {child!r}]
        cli.command = lambda name: lambda: steps.run_child(command, Path({str(tmp_path / "log")!r}), print, "The child")
        cli.main(["demo"])
    """
    code, errors = interrupted([sys.executable, "-c", parent], begun.exists)
    assert (code, errors.strip()) == (130, "Stopped.")
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


@pytest.mark.parametrize(
    "command",
    [
        ["synthetic", "demo", "--output-dir", "notes.txt/scene"],
        ["edit", "--load-config", "config.yml", "--edits", "edits.yml", "--output-dir", "notes.txt"],
        ["camera-path", "--load-config", "config.yml", "--output", "notes.txt/path.json"],
    ],
)
def test_an_output_folder_that_is_a_file_is_said_before_anything_is_done(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(SemfieldError, match=r"^notes.txt is a file: choose another folder"):
        main(command)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
