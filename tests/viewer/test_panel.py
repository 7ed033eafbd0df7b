"""The panel in Nerfstudio's real viewer, with browsers that are played."""

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semfield_ns.segmentation.prompts import Box, Stroke
from semfield_ns.viewer.session import read_session
from tests.viewer.played import BallModel, Browser, Served, ball_pipeline, wait_for


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path, ball_pipeline(BallModel()))
    yield served
    served.viewer.viser_server.stop()


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exceptions that end a thread."""
    found: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(f"{args.exc_type}: {args.exc_value}"))
    return found


def test_clicks_become_strokes_that_undo_takes_back(served: Served, tmp_path: Path):
    browser, panel = Browser(served), served.panel
    wait_for(lambda: served.viewer.viser_server.get_clients())
    (client,) = served.viewer.viser_server.get_clients().values()
    served.press(panel.d_positive, browser)
    wait_for(lambda: "first point" in served.said())
    browser.click(0.45, 0.5)
    wait_for(lambda: "(1 so far)" in served.said())
    time.sleep(0.7)
    browser.click(0.52, 0.5)
    wait_for(lambda: "(2 so far)" in served.said())
    browser.click(0.521, 0.5)
    wait_for(lambda: served.session.state.prompts)
    assert client.scene._scene_pointer_cb is None, "the camera can be moved again"
    ((number, _, stroke),) = served.session.state.prompts
    assert isinstance(stroke, Stroke) and stroke.positive and number == 1
    width, height = stroke.camera.width, stroke.camera.height
    assert (width, height) == (64, 48)
    np.testing.assert_allclose(stroke.points, [(0.45 * width, 0.5 * height), (0.52 * width, 0.5 * height)], atol=1e-6)
    # The line lies on the ball, whose nearest point is 2.5 away.
    wait_for(lambda: served.actions._lines)
    ((line, marks),) = served.actions._lines.values()
    assert marks and np.all(np.abs(np.linalg.norm(line, axis=1) - 0.97 * 2.55) < 0.1)

    served.press(panel.f_box, browser)
    wait_for(lambda: "rectangle" in served.said())
    browser.select((0.4, 0.3), (0.6, 0.7))
    wait_for(lambda: len(served.session.state.prompts) == 2)
    assert isinstance(served.session.state.prompts[1][2], Box)
    wait_for(lambda: len(served.actions._lines) == 2)
    served.press(panel.i_undo, browser)
    wait_for(lambda: len(served.session.state.prompts) == 1)
    wait_for(lambda: len(served.actions._lines) == 1)
    served.press(panel.j_redo, browser)
    wait_for(lambda: len(served.session.state.prompts) == 2)
    served.press(panel.i_undo, browser)
    wait_for(lambda: len(served.session.state.prompts) == 1)

    # The eraser takes the stroke that is clicked on, also from another place.
    browser.look(0.3)
    time.sleep(0.2)
    served.press(panel.g_erase, browser)
    wait_for(lambda: "is to go" in served.said())
    browser.click(0.05, 0.95)
    wait_for(lambda: "no stroke here" in served.said())
    pixels, _, _ = served.panel.link.camera(client).project(torch.from_numpy(line[0]).float())
    browser.click(float(pixels[0]) / 64, float(pixels[1]) / 48)
    wait_for(lambda: not served.session.state.prompts)

    served.press(panel.results.b_save, browser)
    wait_for(lambda: "Saved to" in served.said())
    assert read_session(tmp_path / "segmentation" / "session.json") == served.session.log


def test_a_render_that_is_interrupted_goes_on_where_it_was(served: Served):
    views = served.actions.live.views
    camera = stroke_camera(64, 48)
    polls = 0

    def interrupt() -> None:
        nonlocal polls
        polls += 1
        if polls == 2:
            raise InterruptedError

    views.rate = 64 * 4 / 0.2  # four rows in the first strip
    with pytest.raises(InterruptedError):
        views.raw(camera, interrupt)
    views.rate, before = 1e9, served.model.renders
    whole = views.raw(camera)
    assert served.model.renders == before + 1, "the strip that was done is not done again"
    label, _ = served.model.scene.labels(camera)
    assert torch.equal(whole["rgb"][..., 0] > 0.5, label > 0)
    assert views.raw(camera) is whole
    with torch.no_grad():
        served.model.weight += 1
    assert views.raw(camera) is not whole


def stroke_camera(width: int, height: int) -> Any:
    from tests.segmentation.scene import camera

    return camera().scaled(width / 80)


@pytest.mark.flaky(reruns=2)  # the played pages lose their connection now and then
def test_two_browsers_do_whatever_they_like(
    served: Served, crashes: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from nerfstudio.utils import writer  # imports well only after the viewer

    for name, value in {"events": {}, "max_buffer_size": 20, "max_iter": 1000}.items():
        monkeypatch.setitem(writer.GLOBAL_BUFFER, name, value)  # where Nerfstudio's trainer puts how fast it is
    chance = random.Random(7)
    panel = served.panel
    browsers = [Browser(served), Browser(served, 0.3)]
    wait_for(lambda: len(served.viewer.viser_server.get_clients()) == 2)
    buttons = [panel.d_positive, panel.e_negative, panel.f_box, panel.g_erase, panel.h_end, panel.i_undo]
    buttons += [panel.j_redo, panel.k_clear, panel.c_add, panel.results.b_save, panel.results.c_load]
    buttons += [panel.object.h_delete, panel.object.c_apply, panel.object.g_find, panel.results.d_masks]
    memory = []
    for number in range(250):
        browser = browsers[chance.randrange(2)]
        action = chance.randrange(8)
        if action < 3:
            browser.click(chance.random(), chance.random())
        elif action == 3:
            browser.select((chance.random(), chance.random()), (chance.random(), chance.random()))
        elif action == 4:
            browser.look(chance.uniform(-0.4, 0.4), chance.uniform(-0.1, 0.1))
        elif action == 5:
            sliders = [panel.l_threshold, panel.m_growth, served.viewer.control_panel._time]
            served.press(chance.choice(sliders), browser, chance.random())
        else:
            # Strokes and undo more often than files.
            served.press(chance.choice(buttons[: chance.choice([6, len(buttons)])]), browser)
        if number % 50 == 49:
            # A page is closed and another one opened.
            browsers[1].socket.close()
            browsers[1] = Browser(served, 0.2)
            time.sleep(0.3)
            memory.append(resident())
        time.sleep(chance.choice([0.0, 0.01, 0.06]))
    for lock in (served.lock, served.actions._lock):
        assert lock.acquire(timeout=20), "a lock is stuck"
        lock.release()
    # It still works, in both browsers.
    for browser in browsers:
        time.sleep(0.5)  # what was pressed last may still be at work, in threads of its own
        served.press(panel.d_positive, browser)
        wait_for(lambda: "first point" in served.said())
        before = len(served.session.log)
        browser.click(0.5, 0.5)
        wait_for(lambda: "(1 so far)" in served.said())
        served.press(panel.h_end, browser)
        wait_for(lambda n=before: len(served.session.log) > n)
    numbers = {number for _, number, _ in served.session.state.prompts}
    wait_for(lambda: set(served.actions._lines) == numbers)
    assert all(machine.is_alive() for machine in served.viewer.render_statemachines.values())
    assert crashes == []
    printed = capfd.readouterr()
    errors = (printed.out + printed.err).split("Traceback")[1:]
    # viser itself stumbles over messages of pages that were closed meanwhile.
    errors = [e for e in errors if not re.search(r"(get_clients\(\)|_connected_clients)\[client_id\]\n.*\nKeyError", e)]
    assert errors == []
    assert memory[-1] - memory[0] < 64 << 20, [m >> 20 for m in memory]


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
