"""The panel in Nerfstudio's real viewer, with browsers that are played."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException

from semfield_ns.compat.viser import unreachable_viser
from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.prompts import Box, Stroke
from semfield_ns.sessions.session import Session, read_session
from semfield_ns.viewer.drawing import IDLE
from semfield_ns.viewer.layout import read_way
from semfield_ns.viewer.machine import LiveMachine
from tests.viewer.browser import listens
from tests.viewer.fuzz import check_that_it_works, exceptions, open_pages, play, served_ball
from tests.viewer.played import BallModel, Browser, Served, ball_pipeline, wait_for


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path, ball_pipeline(BallModel()))
    yield served
    served.stop()


def test_clicks_become_strokes_that_undo_takes_back(served: Served, tmp_path: Path):
    browser, panel = Browser(served), served.panel
    wait_for(lambda: served.viewer.viser_server.get_clients())
    (client,) = served.viewer.viser_server.get_clients().values()
    served.press(panel.positive, browser)
    wait_for(lambda: "first point" in served.said())
    browser.click(0.45, 0.5)
    wait_for(lambda: "(1 so far)" in served.said())
    time.sleep(0.7)
    browser.click(0.52, 0.5)
    wait_for(lambda: "(2 so far)" in served.said())
    browser.click(0.521, 0.5)
    wait_for(lambda: "If it is too large, press Stroke on background" in served.said())
    assert client.scene._scene_pointer_cb is None, "the camera can be moved again"
    ((number, _, stroke),) = served.session.state.prompts
    assert isinstance(stroke, Stroke) and stroke.positive and number == 1
    width, height = stroke.camera.width, stroke.camera.height
    assert (width, height) == (64, 48)
    np.testing.assert_allclose(stroke.points, [(0.45 * width, 0.5 * height), (0.52 * width, 0.5 * height)], atol=1e-6)
    # The line lies on the ball, whose nearest point is 2.5 away.
    wait_for(lambda: served.tools.lines)
    ((_, line, marks),) = served.tools.lines.values()
    assert marks and np.all(np.abs(np.linalg.norm(line, axis=1) - 0.97 * 2.55) < 0.1)

    served.press(panel.box, browser)
    wait_for(lambda: "rectangle" in served.said())
    browser.select((0.4, 0.3), (0.6, 0.7))
    wait_for(lambda: len(served.session.state.prompts) == 2)
    assert isinstance(served.session.state.prompts[1][2], Box)
    wait_for(lambda: len(served.tools.lines) == 2)
    assert served.said().startswith("The box marks object 1. For another thing")
    served.press(served.page.undo_button, browser)
    wait_for(lambda: served.said() == "Undone: box on object 1.")
    wait_for(lambda: len(served.tools.lines) == 1)
    served.press(served.page.redo_button, browser)
    wait_for(lambda: served.said() == "Redone: box on object 1.")
    served.press(served.page.undo_button, browser)
    wait_for(lambda: len(served.session.state.prompts) == 1)

    # The eraser takes the stroke that is clicked on, also from another place.
    browser.look(0.3)
    time.sleep(0.2)
    served.press(panel.eraser, browser)
    wait_for(lambda: "to erase" in served.said())
    browser.click(0.05, 0.95)
    wait_for(lambda: "no stroke here" in served.said())
    pixels, _, _ = served.page.camera(client).project(torch.from_numpy(line[0]).float())
    browser.click(float(pixels[0]) / 64, float(pixels[1]) / 48)
    wait_for(lambda: not served.session.state.prompts)

    served.press(panel.save, browser)
    wait_for(lambda: served.said() == f"Saved to {tmp_path / 'viewer' / 'segmentation' / 'session.json'}")
    assert read_session(tmp_path / "viewer" / "segmentation" / "session.json") == served.session.log


def test_a_drag_is_a_stroke(served: Served):
    """viser tells of a click where the drag begins as well, before or after."""
    browser, panel, pencil = Browser(served), served.panel, served.page.layout._pencil
    wait_for(lambda: served.viewer.viser_server.get_clients())
    way = [(0.45, 0.5), (0.48, 0.51), (0.52, 0.5)]
    for number, click_first in enumerate((True, False), start=1):
        served.press(panel.positive, browser)
        wait_for(lambda: "first point of a stroke" in served.said())
        if click_first:
            browser.click(*way[0])
            wait_for(lambda: "(1 so far)" in served.said())
        served.press(pencil, browser, json.dumps({"time": number, "way": way}))
        wait_for(lambda n=number: len(served.session.state.prompts) == n)
        browser.click(*way[0])
        served.settle()
        stroke = served.session.state.prompts[-1][2]
        size = np.array([stroke.camera.width, stroke.camera.height])
        np.testing.assert_allclose(stroke.points, np.array(way) * size, atol=1e-6)
    assert browser.got(f'pencil = "{pencil.handle._impl.id}"') and browser.got("pencil = null")
    assert len(served.session.state.prompts) == 2 and not served.tools._drawings


def test_a_page_that_is_loaded_anew_holds_no_tool(served: Served):
    browser = Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(served.panel.positive, browser)
    wait_for(lambda: "first point of a stroke" in served.said())
    browser.socket.close()
    wait_for(lambda: served.said() == IDLE)
    assert not served.tools._drawings


@pytest.mark.parametrize(
    "text", ["", "[", '{"way": 3}', '{"way": [[0, 1]]}', '{"way": [[0, 1], [null, 2]]}', "[" * 9999]
)
def test_what_is_no_way_of_a_pointer_draws_nothing(text: str):
    assert read_way(text) == []


def test_results_are_those_of_the_training_cameras_unless_all_are_wanted(served: Served):
    browser, panel = Browser(served), served.panel
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(panel.export_button, browser)
    wait_for(lambda: served.said() == "Wrote masks of train")
    served.press(panel.views, browser, "All cameras")
    served.press(panel.export_button, browser)
    wait_for(lambda: served.said() == "Wrote masks of all")


def test_what_takes_long_shows_how_far_it_is_and_can_be_cancelled(served: Served):
    browser, page, done = Browser(served), served.page, []
    wait_for(lambda: served.viewer.viser_server.get_clients())

    def save(*_: Any) -> str:
        for number in page.watched("Saving", range(1000)):
            done.append(number)
            time.sleep(0.02)
        return "All is saved."

    served.panel._export = save
    served.press_at_once(served.panel.export_button, browser)
    wait_for(lambda: re.fullmatch(r"Saving: \d+ of 1000", served.said()) and page.cancel_button.handle.visible)
    served.press_at_once(page.cancel_button, browser)
    wait_for(lambda: served.said() == f"Cancelled after {len(done)} of 1000: nothing was changed.")
    assert not page.cancel_button.handle.visible and not page.progress.handle.visible


def test_a_render_that_is_interrupted_goes_on_where_it_was(served: Served):
    views = served.panel.live.views
    camera = stroke_camera(64, 48)
    polls = 0

    def interrupt() -> None:
        nonlocal polls
        polls += 1
        if polls == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        views.raw(camera, interrupt)
    before = served.model.renders
    whole = views.raw(camera)
    assert served.model.renders == before + 1, "the half that was done is not done again"
    label, _ = served.model.scene.labels(camera)
    assert torch.equal(whole["rgb"][..., 0] > 0.5, label > 0)
    assert views.raw(camera) is whole
    with torch.no_grad():
        served.model.weight += 1
    assert views.raw(camera) is not whole


def test_pages_get_what_nerfstudio_would_render(served: Served):
    Browser(served, 0.1)
    wait_for(lambda: served.viewer.render_statemachines)
    (machine,) = served.viewer.render_statemachines.values()
    assert isinstance(machine, LiveMachine)
    wait_for(lambda: machine.state == "high")
    state = served.viewer.get_camera_state(machine.client)
    plain, ours = RenderStateMachine._render_img(machine, state), machine._render_img(state)
    assert plain.keys() == {"rgb", "depth", "accumulation", "gl_z_buf_depth"}
    for name, expected in plain.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-6)
    assert "get_outputs_for_camera" not in vars(served.model), "the model is as it was"


def test_an_action_that_comes_while_another_one_is_taken_is_not_lost(served: Served):
    Browser(served)
    wait_for(lambda: served.viewer.render_statemachines)
    (machine,) = served.viewer.render_statemachines.values()
    wait_for(lambda: machine.state == "high")
    again = RenderAction("rerender", served.viewer.get_camera_state(machine.client))
    trigger, clear, late = machine.render_trigger, machine.render_trigger.clear, []

    def clear_late() -> None:
        if not late:
            late.append(Thread(target=machine.action, args=(again,)))
            late[0].start()
            late[0].join(0.3)
        clear()

    rendered, render = [], machine._render_img
    machine._render_img = lambda state, seconds: rendered.append(state) or render(state, seconds)
    trigger.clear = clear_late
    wait_for(lambda: rendered, 10)


def test_a_page_outlives_a_render_that_fails(served: Served, capsys: pytest.CaptureFixture[str]):
    Browser(served)
    wait_for(lambda: served.viewer.render_statemachines)
    (machine,) = served.viewer.render_statemachines.values()
    wait_for(lambda: machine.state == "high")

    def fail(*_: object) -> None:
        raise ValueError("broken on purpose")

    pictures = machine._pictures
    machine._pictures = SimpleNamespace(first=0.1, outputs=fail, budgets=lambda _: [0.1])
    served.viewer._trigger_rerender()
    wait_for(lambda: "broken on purpose" in capsys.readouterr().out)
    machine._pictures = pictures
    machine.state = "low_static"
    served.viewer._trigger_rerender()
    wait_for(lambda: machine.state == "high")
    assert machine.is_alive()


def test_a_render_stops_where_it_asks_whether_it_should(served: Served):
    Browser(served)
    wait_for(lambda: served.viewer.render_statemachines)
    (machine,) = served.viewer.render_statemachines.values()
    wait_for(lambda: machine.state == "high")
    machine.poll()
    machine.interrupt_render_flag = True
    with pytest.raises(IOChangeException):
        machine.poll()
    machine.poll()


def stroke_camera(width: int, height: int) -> Any:
    from tests.segmentation.scene import camera

    return camera().scaled(width / 80)


def test_strokes_of_a_loaded_session_are_drawn_where_they_are(served: Served, tmp_path: Path):
    browser, panel = Browser(served), served.panel
    wait_for(lambda: served.viewer.viser_server.get_clients())
    (client,) = served.viewer.viser_server.get_clients().values()
    view, saved = served.page.camera(client), Session()
    saved.add_stroke(saved.add_object(), view, [(8.0, 40.0), (12.0, 40.0)])
    (tmp_path / "viewer" / "segmentation").mkdir(parents=True)
    saved.save(tmp_path / "viewer" / "segmentation" / "session.json")
    served.session.add_stroke(served.session.add_object(), view, [(30.0, 24.0), (34.0, 24.0)])
    wait_for(lambda: served.tools.lines)
    served.press(panel.load, browser)
    wait_for(lambda: "Loaded" in served.said())

    def drawn() -> bool:
        lines = [entry[-2] for entry in list(served.tools.lines.values())]
        pixels = [view.project(torch.from_numpy(line).float())[0] for line in lines]
        return bool(pixels) and bool((pixels[0][:, 1] > 30).all())

    wait_for(drawn, seconds=10)
    served.press(panel.eraser, browser)
    wait_for(lambda: browser.got("Click on the stroke"))
    browser.click(10 / view.width, 40 / view.height)
    wait_for(lambda: not served.session.state.prompts, seconds=10)


def test_words_are_looked_up_while_training_goes_on(served: Served, monkeypatch: pytest.MonkeyPatch):
    held: list[bool] = []

    def text_features(texts: list[str]) -> torch.Tensor:
        held.append(served.lock.locked())
        raise SemfieldError("looked up")

    monkeypatch.setattr(served.model, "text_features", text_features)
    served.panel.words.value = "a ball"
    served.panel.find_words(None)
    assert held == [False] and served.said() == "looked up"


def test_a_page_that_is_closed_while_it_moves_does_not_freeze_the_others(served: Served):
    closed, other = open_pages(served)
    # As when Nerfstudio forgets the page between two lines of what it does for a move.
    machine = served.viewer.render_statemachines.pop(closed.number)
    machine.running = False
    with exceptions() as found:
        closed.look(0.1)
        time.sleep(0.3)
    assert found == []
    with suppress(ZeroDivisionError), served.viewer.viser_server.atomic():
        raise ZeroDivisionError
    served.viewer.render_statemachines[closed.number] = machine
    served.press(served.panel.eraser, other)
    wait_for(lambda: other.got("Click on the stroke to erase"))


def test_a_slow_page_survives_much_for_itself_and_for_all(served: Served):
    """Such as the Gaussians that pages draw, and a picture: viser has a task for either."""
    server, slow = served.viewer.viser_server, Browser(served, reads=False)
    wait_for(lambda: server.get_clients())
    (client,) = server.get_clients().values()
    points = np.zeros((1_000_000, 3), dtype=np.float32)
    with exceptions() as found:
        for scene in (server.scene, client.scene):
            scene.add_point_cloud("/points", points, (0, 0, 0))
        time.sleep(0.5)
        slow.read()
        served.press(served.panel.eraser, slow)
        wait_for(lambda: slow.got("Click on the stroke to erase"), 10)
    assert found == []


def test_a_page_that_is_half_made_is_not_reached(tmp_path: Path):
    with unreachable_viser():
        served = Served(tmp_path, ball_pipeline(BallModel()))
        assert not listens(served.port)
    Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.stop()


def test_what_has_left_the_scene_is_not_sent_to_pages_to_come(served: Served):
    view, first = stroke_camera(64, 48), Browser(served)
    served.session.add_stroke(served.session.add_object(), view, [(30.0, 24.0), (34.0, 24.0)])
    wait_for(lambda: first.got("CatmullRomSpline"))
    served.session.undo()
    wait_for(lambda: not served.tools.lines)
    served.settle()
    second = Browser(served)
    served.page.tell("That is all")
    wait_for(lambda: second.got("That is all"))
    assert first.got("CatmullRomSpline") and not second.got("CatmullRomSpline")


@pytest.mark.parametrize("mode", ["still", "training", "edited"])
def test_two_browsers_do_whatever_they_like(tmp_path: Path, mode: str):
    with exceptions() as found, served_ball(tmp_path, mode == "training", mode == "edited") as served:
        browsers = open_pages(served)
        memory = play(served, browsers, actions=150)
        check_that_it_works(served, browsers)
    assert found == []
    # Edited fields are rendered in larger pieces, which torch keeps.
    most = 256 << 20 if mode == "edited" else 32 << 20
    assert memory[-1] - memory[0] < most, [m >> 20 for m in memory]
