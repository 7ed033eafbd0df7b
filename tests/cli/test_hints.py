import sys
from pathlib import Path

from semfield_ns.cli.hints import typed, viewer_line


def test_a_command_is_named_by_its_path_where_the_environment_is_not_active(monkeypatch, tmp_path):
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin")
    assert typed("ns-viewer") == "ns-viewer"
    assert viewer_line(Path("my run/config.yml")).strip() == "semfield view 'my run'"
    assert viewer_line(Path("run/scenes/a.yml")).strip() == "semfield view run/scenes/a.yml"

    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(folder.parent)
    assert typed("ns-viewer") == f"{folder.name}/ns-viewer"
    monkeypatch.chdir(tmp_path)
    assert Path(typed("ns-viewer")).resolve() == (folder / "ns-viewer").resolve()


def test_a_command_that_is_not_there_keeps_its_name(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert typed("ns-nothing") == "ns-nothing"
