import sys
from pathlib import Path

from semfield_ns.cli.hints import typed, viewer_line


def test_a_command_is_named_by_its_path_where_the_environment_is_not_active(monkeypatch, tmp_path):
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin")
    assert typed("ns-viewer") == "ns-viewer"
    line = viewer_line(Path("run/config.yml"))
    assert line.split() == ["ns-viewer", *["--load-config", "run/config.yml", "--viewer.websocket-host", "127.0.0.1"]]

    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(folder.parent)
    assert typed("ns-viewer") == f"{folder.name}/ns-viewer"
    monkeypatch.chdir(tmp_path)
    assert Path(typed("ns-viewer")).resolve() == (folder / "ns-viewer").resolve()


def test_a_command_that_is_not_there_keeps_its_name(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert typed("ns-nothing") == "ns-nothing"
