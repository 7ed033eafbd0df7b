"""A page gives names, and never paths: whatever it sends, files land in one folder of the run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.viewer.edit_panel import EditPanel
from semfield_ns.viewer.files import checked_name, edits_file, results_folder
from semfield_ns.viewer.link import is_loopback
from tests.semantic_flow.test_editing import solid_model
from tests.viewer.played import Browser, Served, ball_pipeline, wait_for

HOSTILE = [
    *("", " ", ".", "..", "...", "../x", "../../x", "..\\x", "a/../../x", "a/b", "a\\b", "/etc/passwd", "/", "//x"),
    *(
        "~",
        "~/.ssh/authorized_keys",
        "~root",
        "$HOME/../x:y",
        "C:\\x",
        "c:x",
        "\\\\host\\share",
        "file:///x",
        "x:stream",
    ),
    *("x\0", "\0", "x\n", "x\ry", "\x1b[2J", "x\u202egnp", "x\u2028y", "\ud800", "\u200b", "x\x7f"),
    *("con", "CON", "nul.json", "aux .json", "com1", "LPT9.txt", "prn", "x.", "x ", " x", ".bashrc", ".git", "-rf"),
    *("x" * 65, "ä" * 3000, "\U0001f600" * 60, "a" * 10**6, "x*", "x?", '"x"', "<x>", "x|y"),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder of a run, with something beside it."""
    folder = tmp_path / "outside" / "run"
    (folder / "nerfstudio_models").mkdir(parents=True)
    (folder / "config.yml").write_text("of the run")
    (tmp_path / "outside" / "notes.txt").write_text("of the user")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", [results_folder, edits_file])
def test_what_is_not_a_name_is_refused_in_one_sentence(run: Path, tmp_path: Path, place: Callable[[Path, str], Path]):
    before = contents(tmp_path)
    assert len(HOSTILE) >= 50
    for name in HOSTILE:
        with pytest.raises(SemfieldError) as caught:
            place(run, name)
        said = str(caught.value)
        assert len(said) < 400 and said.isprintable(), name[:20]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["segmentation", "ball 2", "Kätzchen", "猫", "edits.json", "a.b-c_d", "control", "x" * 64]
)
def test_a_name_is_a_place_in_the_folder_of_the_page(run: Path, name: str):
    assert checked_name(name) == name
    for place in (results_folder, edits_file):
        assert place(run, name) == run.resolve() / "viewer" / name
    assert not list((run / "viewer").iterdir())


def test_links_are_not_followed(run: Path, tmp_path: Path):
    other = tmp_path / "outside"
    (run / "viewer" / "kept").mkdir(parents=True)
    (run / "viewer" / "link").symlink_to(other)
    (run / "viewer" / "gone").symlink_to(other / "not there")
    (run / "viewer" / "kept" / "session.json").write_text("{}")
    (run / "viewer" / "kept" / "masks").symlink_to(other)
    for name in ("link", "gone", "kept"):
        with pytest.raises(SemfieldError, match="symbolic link"):
            results_folder(run, name)
    (run / "viewer" / "edits.json").symlink_to(other / "notes.txt")
    with pytest.raises(SemfieldError, match="symbolic link"):
        edits_file(run, "edits.json")
    second = tmp_path / "second"
    second.mkdir()
    (second / "viewer").symlink_to(other)
    with pytest.raises(SemfieldError, match="symbolic link"):
        results_folder(second, "notes")


def test_what_somebody_else_put_there_is_left(run: Path):
    page = run / "viewer"
    (page / "thesis").mkdir(parents=True)
    (page / "thesis" / "chapter.tex").write_text("x")
    (page / "edits.json").write_text('{"not": "edits"}')
    (page / "mine.json").write_text(json.dumps([{"kind": "remove", "target": "ball"}]))
    with pytest.raises(SemfieldError, match="something else than a session"):
        results_folder(run, "thesis")
    with pytest.raises(SemfieldError, match="is a file"):
        results_folder(run, "mine.json")
    with pytest.raises(SemfieldError, match="not a file of edits"):
        edits_file(run, "edits.json")
    with pytest.raises(SemfieldError, match="is a folder"):
        edits_file(run, "thesis")
    assert edits_file(run, "mine.json") == page.resolve() / "mine.json"


@pytest.fixture
def served(run: Path) -> Iterator[Served]:
    model = solid_model()
    pipeline = ball_pipeline(model)
    pipeline.editing = EditPanel(pipeline.page, ["ball"], lambda: model.editor)
    pipeline.page.add(pipeline.editing, "Edit")
    served = Served(run, pipeline, max_res=16)
    yield served
    served.stop()


def test_a_page_that_sends_paths_writes_nothing(served: Served, run: Path, tmp_path: Path):
    editing, panel, browser = served.pipeline.editing, served.panel, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    camera_paths = run / "camera_paths"  # where Nerfstudio keeps its own
    before = contents(tmp_path)
    for name in HOSTILE:
        sendable = name if name != "\ud800" else "\udcff/x".encode("utf-8", "replace").decode()
        for field, buttons in (
            (panel.file, (panel.save, panel.load, panel.export_button)),
            (editing.name, (editing.save,)),
        ):
            served.press(field, browser, sendable)
            for button in buttons:
                browser.messages.clear()
                served.press(button, browser)
                wait_for(lambda: browser.got("NotificationMessage"))
                said = served.said()
                assert len(said) < 400 and said.isprintable()
    assert contents(tmp_path) == before and not list(camera_paths.rglob("*"))
    served.press(panel.file, browser, "mine")
    served.press(editing.name, browser, "my edits.json")
    served.press(panel.save, browser)
    served.press(editing.save, browser)
    wait_for(lambda: (run / "viewer" / "mine" / "session.json").is_file())
    wait_for(lambda: (run / "viewer" / "my edits.json").is_file())
    assert set(contents(tmp_path)) - set(before) == {
        str(run / "viewer" / "mine" / "session.json"),
        str(run / "viewer" / "my edits.json"),
    }


def test_nerfstudios_own_render_name_is_no_path_either(served: Served):
    browser = Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    handles = served.viewer.viser_server.gui._gui_input_handle_from_id.values()
    (field,) = (handle for handle in handles if handle._impl.label == "Render name")
    for name in HOSTILE:
        if name == "\ud800":
            continue  # no message can hold it
        browser.send("GuiUpdateMessage", id=field._impl.id, updates={"value": name})
        served.settle()
        assert field.value == "render", name[:20]
    browser.send("GuiUpdateMessage", id=field._impl.id, updates={"value": "walk 2"})
    served.settle()
    wait_for(lambda: field.value == "walk 2")


def test_other_machines_are_warned_of():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.4", "::", "example.org", "")))
