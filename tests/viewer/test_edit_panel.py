"""Edits by clicks in Nerfstudio's viewer, with played browsers."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from semfield_ns.editing.edits import Edit
from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.viewer.edit_panel import EVERYTHING, NOTHING, EditPanel
from semfield_ns.viewer.live import GuardedViews
from tests.semantic_flow.test_editing import solid_model
from tests.viewer.played import Browser, Served, ball_pipeline, wait_for


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    model = solid_model()
    pipeline = ball_pipeline(model)
    pipeline.editing = EditPanel(pipeline.page, ["ball"], lambda: model.editor)
    pipeline.page.add(pipeline.editing, "Edit")
    served = Served(tmp_path, pipeline, max_res=16)
    yield served
    served.stop()


def kinds(served: Served) -> list[tuple[str, str]]:
    return [(edit.kind, edit.target) for edit in served.model.editor.edits]


def test_a_click_picks_the_object_that_the_next_edits_are_of(served: Served):
    editing, browser = served.pipeline.editing, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(editing.pick, browser)
    wait_for(lambda: browser.got("Click on the thing to edit"))
    browser.click(0.5, 0.5)
    wait_for(lambda: editing.target.value == "ball#1")
    assert "ball#1" in editing.target.options
    wait_for(lambda: browser.got("Picked ball") and browser.got("Now press Remove"))
    assert browser.got("/picked/dots"), "it is marked"
    # The camera moves again: another click is for nobody.
    browser.click(0.2, 0.2)
    served.press(editing.remove, browser)
    wait_for(lambda: kinds(served) == [("remove", "ball#1")] and served.said() == "Done: ball#1 removed.")
    assert "/picked/dots" not in served.viewer.viser_server.scene._handle_from_node_name, "what is gone is not marked"
    served.press(editing.pick, browser)
    browser.messages.clear()
    wait_for(lambda: browser.got("Click on the thing to edit"))
    browser.click(0.5, 0.5)
    wait_for(lambda: browser.got("Nothing that moves is seen there"))


def test_an_edit_during_an_export_ends_it(served: Served):
    editing, views = served.pipeline.editing, GuardedViews(served.model, served.page)
    camera = ViewCamera.of(served.model.time_cameras()[0])
    assert views.render_view(camera).rgb.numel()
    editing.ask_for((Edit("remove", "ball"),))
    wait_for(lambda: kinds(served) == [("remove", "ball")])
    with pytest.raises(SemfieldError, match="edited meanwhile, so nothing was written"):
        views.render_view(camera)
    assert GuardedViews(served.model, served.page).render_view(camera).rgb.numel()


def test_nothing_is_edited_before_something_is_chosen(served: Served):
    editing, browser = served.pipeline.editing, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    assert editing.target.value == NOTHING
    served.press(editing.remove, browser)
    wait_for(lambda: "Choose what to edit first" in served.said())
    wait_for(lambda: browser.got("NotificationMessage"))
    assert not served.model.editor.edits
    served.press(editing.target, browser, EVERYTHING)
    served.press(editing.remove, browser)
    wait_for(lambda: kinds(served) == [("remove", "")])


def test_one_undo_takes_back_strokes_and_edits_in_their_order(served: Served):
    editing, browser, session = served.pipeline.editing, Browser(served), served.session
    wait_for(lambda: served.viewer.viser_server.get_clients())
    (client,) = served.viewer.viser_server.get_clients().values()
    served.press(editing.target, browser, "ball")
    served.press(editing.remove, browser)
    wait_for(lambda: kinds(served) == [("remove", "ball")])
    session.add_stroke(session.add_object(), served.page.camera(client), [(8.0, 6.0)])
    served.press(served.page.undo_button, browser)
    wait_for(lambda: not session.state.prompts)
    served.press(served.page.undo_button, browser)
    wait_for(lambda: not session.state.objects)
    assert kinds(served) == [("remove", "ball")]
    served.press(served.page.undo_button, browser)
    wait_for(lambda: not served.model.editor.edits and served.said() == "Undone: ball removed.")
    for _ in range(3):
        served.press(served.page.redo_button, browser)
    wait_for(lambda: kinds(served) == [("remove", "ball")] and len(session.state.prompts) == 1)
    wait_for(lambda: served.said() == "Redone: stroke on object 1.")
    served.press(editing.clear, browser)
    wait_for(lambda: not served.model.editor.edits)
    served.press(served.page.undo_button, browser)
    wait_for(lambda: kinds(served) == [("remove", "ball")])


def test_undo_does_not_wait_for_the_edit_that_it_takes_back(served: Served, monkeypatch: pytest.MonkeyPatch):
    """Objects are looked for meanwhile, which takes long: it is left."""
    editing, browser, model = served.pipeline.editing, Browser(served), served.model
    wait_for(lambda: served.viewer.viser_server.get_clients())
    model.editor.forget()
    plain, seen = model.unedited_outputs, []

    def slow(camera):
        seen.append(camera)
        time.sleep(0.4)
        return plain(camera)

    monkeypatch.setattr(model, "unedited_outputs", slow)
    served.press(editing.target, browser, "ball")
    served.press(editing.remove, browser)
    wait_for(lambda: seen)
    begun = time.monotonic()
    served.press_at_once(served.page.undo_button, browser)
    wait_for(lambda: "No edits" in editing.list.content)
    assert time.monotonic() - begun < 0.35 * len(model.time_cameras())
    wait_for(lambda: editing._worker is None)
    assert not model.editor.edits and not model.editor.knows_objects


def test_an_edit_that_cannot_be_made_is_taken_back(served: Served):
    editing, browser = served.pipeline.editing, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(editing.target, browser, "ball")
    served.press(editing.remove, browser)
    wait_for(lambda: kinds(served) == [("remove", "ball")])
    editing.target.offer([*editing.target.options, "unicorn"])
    served.press(editing.target, browser, "unicorn")
    served.press(editing.remove, browser)
    wait_for(lambda: "unicorn" in served.said())
    wait_for(lambda: editing._worker is None)
    assert kinds(served) == [("remove", "ball")] == [(edit.kind, edit.target) for edit in editing.edits]
