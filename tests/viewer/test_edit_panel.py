"""Edits by clicks in Nerfstudio's viewer, with played browsers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from semfield_ns.viewer.edit_panel import EditPanel
from semfield_ns.viewer.picking import add_picking
from tests.semantic_flow.test_editing import solid_model
from tests.viewer.played import Browser, Served, ball_pipeline, wait_for


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    model = solid_model()
    pipeline = ball_pipeline(model)
    pipeline.editing = EditPanel(["ball"], lambda: model.editor)
    add_picking(pipeline.editing)  # as `attach` does
    served = Served(tmp_path, pipeline, max_res=16)
    yield served
    served.stop()


def test_a_click_picks_the_object_that_the_next_edits_are_of(served: Served):
    editing, browser = served.pipeline.editing, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(editing.b_pick, browser)
    wait_for(lambda: browser.got("Click on something that moves"))
    browser.click(0.5, 0.5)
    wait_for(lambda: editing.a_target.value == "ball#1")
    assert "ball#1" in editing.a_target.options
    wait_for(lambda: browser.got("Picked ball"))
    # The camera moves again: another click is for nobody.
    browser.click(0.2, 0.2)
    served.press(editing.h_remove, browser)
    wait_for(lambda: [(edit.kind, edit.target) for edit in served.model.editor.edits] == [("remove", "ball#1")])
    served.press(editing.b_pick, browser)
    browser.messages.clear()
    wait_for(lambda: browser.got("Click on something that moves"))
    browser.click(0.5, 0.5)
    wait_for(lambda: browser.got("Nothing that moves is seen there"))
