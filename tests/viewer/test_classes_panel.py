"""Class switches, and what is told of a place, with played browsers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from semfield_ns.rendering.palette import default_palette
from semfield_ns.viewer.classes_panel import ClassesPanel
from semfield_ns.viewer.page import Page
from semfield_ns.viewer.text import plain
from tests.viewer.played import Browser, MovingBallModel, Served, ball_pipeline, wait_for

NAMES = ("wall", "cat", "ball")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    model = MovingBallModel()
    pipeline = ball_pipeline(model)
    names, colors = model.label_map.names, model.label_map.colors
    pipeline.classes = ClassesPanel(pipeline.page, names, colors, pipeline.segmentation.live)
    pipeline.page.add(pipeline.classes, "Classes")
    model.class_switches = pipeline.classes.visible_classes
    served = Served(tmp_path, pipeline)
    yield served
    served.stop()


def test_works_without_a_server():
    panel = ClassesPanel(Page(), NAMES, default_palette(3))
    assert panel.visible_classes().tolist() == [True, True, True]
    panel.switches[1].value = False
    assert panel.visible_classes().tolist() == [True, False, True]
    assert ClassesPanel(Page(), (), default_palette(0)).visible_classes().shape == (0,)


def test_switches_drive_the_visible_classes(served: Served):
    panel, browser = served.pipeline.classes, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(panel.switches[1], browser, False)
    wait_for(lambda: panel.visible_classes().tolist() == [True, False, True])
    wait_for(lambda: served.said() == "ball is hidden: Classes shows it grey." and browser.got("ball (hidden)"))
    assert [switch.label for switch in panel.switches] == ["wall", "ball (hidden)", "twin"]
    served.press(panel.all, browser, "None")
    wait_for(lambda: not panel.visible_classes().any())
    served.press(panel.all, browser, "All")
    wait_for(lambda: served.said() == "All classes are shown.")
    assert panel.visible_classes().all() and [switch.label for switch in panel.switches] == ["wall", "ball", "twin"]


def test_strokes_are_seen_at_their_own_time_only(served: Served):
    browser = Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    (client,) = served.viewer.viser_server.get_clients().values()
    served.session.add_stroke(served.session.add_object(), served.page.camera(client), [(30.0, 24.0), (34.0, 24.0)])
    wait_for(lambda: served.tools.lines)
    ((_, _, marks),) = served.tools.lines.values()
    seen = []
    for time in (0.0, 1.0, 0.0):
        served.page.show_time(time)
        seen.append([mark.visible for mark in marks])
    assert seen == [[True], [False], [True]]
    served.page.show_time(1.0)
    served.press(served.panel.eraser, browser)
    wait_for(lambda: "to erase" in served.said())
    browser.click(32 / 64, 24 / 48)
    wait_for(lambda: "no stroke here" in served.said())


def test_a_click_tells_class_confidence_and_distance(served: Served):
    panel, browser = served.pipeline.classes, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(panel.ask, browser)
    wait_for(lambda: "Click on something" in served.said())
    browser.click(0.5, 0.5)
    wait_for(lambda: served.said().startswith("Here: ball, 100 % sure, "))
    told = float(served.said().split(", ")[2].split()[0])
    assert abs(told - 2.5) < 0.2, served.said()


def test_a_name_cannot_run_code_in_the_browser():
    for name in ("{alert(1)}", "<b>x</b>", "![a](b)", "a_b", "`#ffffff`"):
        assert not set("{}<>![]()_`*") & set(plain(name))
    assert plain("a_b") == "a&#95;b"


def test_each_switch_has_its_color(served: Served):
    style = "".join(served.page.layout._styles)
    for switch, color in zip(served.pipeline.classes.switches, served.model.label_map.colors, strict=True):
        red, green, blue = np.asarray(color).tolist()
        assert f'label[for="{switch.handle._impl.id}"]::before' in style
        assert f"#{red:02x}{green:02x}{blue:02x}" in style
