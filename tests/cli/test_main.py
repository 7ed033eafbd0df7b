import subprocess
import sys
import time
from importlib.metadata import version

import pytest

import semfield_ns
from semfield_ns.cli import main
from semfield_ns.errors import SemfieldError


@pytest.mark.parametrize("command", [[], ["demo"], ["camera-path"], ["synthetic"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in command or ["demo", "camera-path", "synthetic"])


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
    command = [sys.executable, "-m", "semfield_ns.cli", "camera-path"]
    command += ["--load-config", str(tmp_path / "config.yml"), "--output", str(tmp_path / "path.json")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("is not a file: give the config.yml of a trained run.")
    assert "Traceback" not in result.stderr and not (tmp_path / "path.json").exists()


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
