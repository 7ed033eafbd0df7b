"""The video plays in Nerfstudio's viewer, with a played browser."""

import math
import time
from collections.abc import Iterator
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest

from semfield_ns.viewer.page import Page
from semfield_ns.viewer.playback import PlaybackPanel
from tests.semantic_flow.test_editing import solid_model
from tests.viewer.played import PAINTED, Browser, Served, ball_pipeline, wait_for


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    model = solid_model()
    pipeline = ball_pipeline(model)
    pipeline.playback = PlaybackPanel(model, pipeline.page, frames_a_second=20.0)
    pipeline.page.add(pipeline.playback)
    pipeline.page.row.insert(0, pipeline.playback.play)
    served = Served(tmp_path, pipeline, max_res=16)
    yield served
    served.stop()


def test_time_moves_on_until_it_is_stopped_and_begins_anew(served: Served):
    panel, browser = served.pipeline.playback, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    times = []

    def moved() -> bool:
        times.append(panel.link.time)
        return any(later < earlier for earlier, later in pairwise(times)) and max(times) > 0

    served.press(panel.play, browser)
    wait_for(lambda: panel.playing)
    assert panel.play.label == "Pause"
    wait_for(moved)
    served.press(panel.play, browser)
    wait_for(lambda: not panel.playing and panel.play.label == "Play" and browser.got("Pause"))
    stopped = panel.link.time
    served.settle()
    assert panel.link.time == stopped


def test_without_the_loop_it_ends_at_the_end(served: Served):
    panel, browser = served.pipeline.playback, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    panel.loop.value = False
    served.press(panel.play, browser)
    wait_for(lambda: panel.link.time == 1.0)
    wait_for(lambda: not panel.playing)


def test_the_slider_counts_frames_and_tells_seconds(served: Served):
    panel, browser = served.pipeline.playback, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    last = len(panel._times)
    served.press(panel.frame, browser, last)
    wait_for(lambda: panel.link.time == 1.0)
    seconds = (last - 1) / 20
    assert unescape(panel.where.content) == f"Frame {last} of {last}, {seconds:.1f} of {seconds:.1f} s"
    served.press(panel.speed, browser, 1)
    wait_for(lambda: unescape(panel.where.content).endswith(f"{last - 1:.1f} of {last - 1:.1f} s"))
    panel.link.show_time(0.0)
    assert panel.frame.value == 1
    assert served.viewer.control_panel._time_enabled is False, "Nerfstudio's own slider is not there"


def test_who_looks_for_a_frame_stops_the_video_there(served: Served):
    panel, browser = served.pipeline.playback, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(panel.play, browser)
    wait_for(lambda: panel.playing and panel.link.time > 0)
    served.settle()
    wanted = 2 if panel.frame.value > 2 else 4  # the page sends nothing where the slider is there already
    served.press_at_once(panel.frame, browser, wanted)
    wait_for(lambda: not panel.playing and panel.play.label == "Play" and panel.step == wanted - 1)
    served.settle()
    assert panel.step == wanted - 1


def test_time_does_not_run_ahead_of_the_pictures(served: Served, monkeypatch):
    """A frame is followed by the next one once it was seen, however slow the machine is."""
    panel, _ = served.pipeline.playback, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    monkeypatch.setattr("semfield_ns.viewer.playback.LONGEST_WAIT", 60.0)
    shown = []
    with served.pipeline.page.lock:  # no picture meanwhile
        panel.show(0)
        panel.link.on_time.append(lambda: shown.append(panel.link.time))
        panel.toggle()
        time.sleep(1.0)
        assert len(shown) <= 1
    wait_for(lambda: len(shown) > 3)
    panel.toggle()


def test_without_a_viewer_nothing_plays():
    panel = PlaybackPanel(solid_model(), Page())
    panel.toggle()
    assert not panel.playing


def test_time_waits_until_pages_have_painted(served: Served):
    """A slow page says late that it has painted a picture; the time waits for it, not for pages that are closed."""
    panel, page = served.pipeline.playback, served.page
    browser, slow = Browser(served), Browser(served, reads=False)
    wait_for(lambda: len(page.cameras()) == 2)
    served.press(panel.play, browser)
    wait_for(lambda: panel.playing and panel.link.time > 0)
    moment = page._moment
    time.sleep(1.0)
    assert page._moment <= moment + 1, "the video runs away from a page that does not paint"
    slow.read()
    wait_for(lambda: page._moment > moment + 5)
    first, second = ({text for m in list(b.messages) for _, text in PAINTED.findall(m)} for b in (browser, slow))
    assert first and second and not first & second, "a page does not send what another one has sent already"
    slow.socket.close()
    moment = page._moment
    wait_for(lambda: page._moment > moment + 5)


def test_of_frames_that_are_typed_quickly_the_last_one_is_shown(served: Served):
    panel, browser = served.pipeline.playback, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    last = len(panel._times)
    for _ in range(10):
        for wanted in (1, last - 1, last):
            served.press_at_once(panel.frame, browser, wanted)
        served.settle()
        assert panel.frame.value == last and panel.link.time == 1.0
        assert unescape(panel.where.content).startswith(f"Frame {last} of")


def test_what_is_no_number_changes_nothing(served: Served):
    panel, browser = served.pipeline.playback, Browser(served)
    wait_for(lambda: served.viewer.viser_server.get_clients())
    served.press(panel.frame, browser, 2)
    wait_for(lambda: panel.frame.value == 2)
    for slider in (panel.frame, panel.speed):
        before = slider.value
        for value in (math.nan, math.inf):  # what a page sends once somebody has typed "-"
            served.press(slider, browser, value)
            served.settle()
            assert slider.value == before
    assert unescape(panel.where.content).startswith("Frame 2 of")
