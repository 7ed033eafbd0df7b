"""Two played browsers that do whatever they like to a viewer, with weights that may change meanwhile."""

import ctypes
import gc
import logging
import os
import random
import re
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from semfield_ns.viewer import live
from semfield_ns.viewer.edit_panel import EditPanel
from tests.semantic_flow.test_editing import solid_model
from tests.viewer.played import BallModel, Browser, Served, ball_pipeline, wait_for

EPOCH = 50
"""actions after which a page is closed, another one opened, and memory looked at"""
KEPT_BYTES = 4 << 20
"""of renders: so few that they are all there soon, and whatever else grows is seen"""
OF_VISER = re.compile(r"(get_clients\(\)|_connected_clients)\[client_id\]\n.*\n?.*KeyError")
"""It stumbles over messages of pages that were closed meanwhile."""


@contextmanager
def served_ball(folder: Path, training: bool, edited: bool = False) -> Iterator[Served]:
    """A viewer of the ball; `training` changes weights meanwhile, as a trainer would, and `edited` has edits.

    With edits it is a radiance field, all of which moves.
    """
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(live, "KEPT_BYTES", KEPT_BYTES))
        pipeline = ball_pipeline(solid_model() if edited else BallModel())
        if edited:
            pipeline.editing = EditPanel(pipeline.page, ["ball"], lambda: pipeline.model.editor)
            pipeline.editing.target.value = "ball"
            pipeline.page.add(pipeline.editing, "Edit")
        served = Served(folder, pipeline, max_res=24 if edited else 64)
        stack.callback(served.stop)
        from nerfstudio.utils import writer  # imports well only after the viewer

        # Where Nerfstudio's trainer puts how fast it is.
        rates: dict[str, Any] = {"events": {}, "max_buffer_size": 20, "max_iter": 1000}
        stack.enter_context(mock.patch.dict(writer.GLOBAL_BUFFER, rates))
        if training:
            served.viewer.trainer = SimpleNamespace(training_state="training")  # type: ignore[assignment]
            stack.enter_context(_changing_weights(served))
        yield served


@contextmanager
def _changing_weights(served: Served) -> Iterator[None]:
    """A step holds the lock, then tells the viewer, which renders every now and then."""
    stop = threading.Event()

    def train() -> None:
        while not stop.wait(0.05):
            with served.lock, torch.no_grad():
                served.model.train()
                served.model.weight += 1
            served.viewer.update_scene(served.viewer.step + 1, 64)

    thread = threading.Thread(target=train, name="trainer", daemon=True)
    thread.start()
    try:
        yield
        assert thread.is_alive(), "training has ended by itself"
    finally:
        stop.set()
        thread.join(timeout=20)
    assert not thread.is_alive(), "training is stuck"


@contextmanager
def exceptions() -> Iterator[list[str]]:
    """All that are raised in any thread and nobody handles, as text; what viser itself stumbles over is left out."""
    found: list[str] = []

    def tell(kind: Any, value: Any, where: Any, *_: Any, **__: Any) -> None:
        text = "".join(traceback.format_exception(kind, value, where))
        if not OF_VISER.search(text):
            found.append(text)

    class Logged(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                tell(*record.exc_info)

    handler = Logged()
    logging.getLogger().addHandler(handler)
    try:
        with (
            mock.patch.object(traceback, "print_exception", tell),
            mock.patch.object(threading, "excepthook", lambda a: tell(a.exc_type, a.exc_value, a.exc_traceback)),
        ):
            yield found
    finally:
        logging.getLogger().removeHandler(handler)


def open_pages(served: Served) -> list[Browser]:
    """Two pages that look at the ball from two places."""
    browsers = [Browser(served), Browser(served, 0.3)]
    wait_for(lambda: len(served.viewer.viser_server.get_clients()) == 2)
    return browsers


def play(served: Served, browsers: list[Browser], actions: int, seed: int = 7) -> list[int]:
    """Random actions; the second page is replaced every now and then. Returns bytes of memory after each epoch."""
    chance, panel = random.Random(seed), served.panel
    page = served.page
    buttons = [panel.positive, panel.negative, panel.box, panel.eraser, panel.finish, page.undo_button]
    often = len(buttons)  # strokes and undo, more often than files
    buttons += [page.redo_button, panel.clear, panel.new, panel.save, panel.load, panel.delete, panel.apply]
    buttons += [panel.find, panel.export_button, page.cancel_button]
    editing = getattr(served.pipeline, "editing", None)
    if editing is not None:
        buttons[:0] = [editing.remove, editing.move, editing.pick, editing.clear]
        often += 4
    buttons = [button for button in buttons if button.handle is not None]
    memory = []
    for number in range(1, actions + 1):
        browser = browsers[chance.randrange(2)]
        action = chance.randrange(8)
        if action < 3:
            browser.click(chance.random(), chance.random())
        elif action == 3:
            browser.select((chance.random(), chance.random()), (chance.random(), chance.random()))
        elif action == 4:
            browser.look(chance.uniform(-0.4, 0.4), chance.uniform(-0.1, 0.1))
        elif action == 5:
            served.press_at_once(chance.choice([panel.threshold, panel.growth]), browser, chance.random())
        else:
            served.press_at_once(chance.choice(buttons[: chance.choice([often, len(buttons)])]), browser)
        if number % EPOCH == 0:
            browsers[1].socket.close()
            browsers[1] = Browser(served, 0.2)
            time.sleep(0.3)
            memory.append(resident())
        time.sleep(chance.choice([0.0, 0.01, 0.06]))
    return memory


def check_that_it_works(served: Served, browsers: list[Browser]) -> None:
    """No lock is stuck, and both browsers can draw a stroke."""
    for lock in (served.lock, served.tools._lock):
        assert lock.acquire(timeout=20), "a lock is stuck"
        lock.release()
    served.settle()  # what was pressed last may still be at work, in threads of its own
    for browser in browsers:
        # viser has a thread for every message: each waits for what the one before it does, or it may overtake it. What
        # the panel says is no sign of that, as it may have been said to the other browser.
        drawing = partial(_drawing, served, browser)
        served.press(served.panel.finish, browser)
        wait_for(lambda d=drawing: d() is None)
        served.press(served.panel.positive, browser)
        wait_for(lambda d=drawing: d() is not None)
        before = len(served.session.state.prompts)
        browser.click(0.5, 0.5)
        wait_for(lambda d=drawing: d().line is not None)
        served.press(served.panel.finish, browser)
        wait_for(lambda n=before: len(served.session.state.prompts) == n + 1)
    editing = getattr(served.pipeline, "editing", None)
    if editing is not None:
        wait_for(lambda: editing._worker is None)
        assert editing.edits == served.model.editor.edits, "the scene is as it was asked for last"
    else:  # nothing is behind a line where everything was removed
        numbers = {number for _, number, _ in served.session.state.prompts}
        wait_for(lambda: set(served.tools.lines) == numbers)
    assert all(machine.is_alive() for machine in served.viewer.render_statemachines.values())


def _drawing(served: Served, browser: Browser) -> Any:
    with served.tools._lock:  # a tool is begun with the lock held
        return served.tools._drawings.get(browser.number)


def resident() -> int:
    """Bytes of memory that this process has, without what malloc keeps for later."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
