"""Nerfstudio's viewer in headless Chromium, as people use it: what the browser tests and the pictures of docs share."""

import fcntl
import io
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import COMMANDS, free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDED = [
    pytest.mark.slow,
    pytest.mark.flaky(reruns=2),  # a busy machine loses clicks, and pages that draw in software are late
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright (the extra `dev`)"),
]
"""marks of the tests that open pages"""
# Software rendering, and no calls home.
FLAGS = (
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)
CALMER = """
const draw = window.requestAnimationFrame.bind(window);
let frames = 0, latest = 0;
window.requestAnimationFrame = (callback) => setTimeout(() => draw((time) => {
  if (time > latest) { latest = time; frames += 1; }
  callback(time);
}), 100);
window.cancelAnimationFrame = (number) => clearTimeout(number);
const started = performance.now();
performance.now = () => started + frames * 1000 / 60;
"""
"""Pages draw ten times a second: without a GPU, sixty keep both cores of a small machine from the server.

By their clock it is sixty times: viser draws fewer pixels where it is less, and two pictures of the same would differ.
"""
SIZE = (640, 900)
"""of the page"""
VIEW = {"x": 0, "y": 60, "width": 310, "height": 800}
"""The part of the page with nothing but the scene."""
CHANGED = 2.5
"""mean difference, of 255, that is more than another sampling of the same picture"""


@contextmanager
def running_viewer(config: Path, log: Path) -> Iterator[str]:
    """The address of a page that shows a run; one at a time, or browsers lose clicks on a small machine."""
    with open(Path(tempfile.gettempdir()) / "semfield_viewer_tests.lock", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with _viewer(config, log) as address:
            yield address


@contextmanager
def _viewer(config: Path, log: Path) -> Iterator[str]:
    port = free_port()
    command = [str(COMMANDS / "semfield"), "view", str(config.resolve()), "--port", str(port)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, cwd=log.parent
        )
    try:
        deadline = time.monotonic() + 240
        while not listens(port):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def opened_page(address: str, size: tuple[int, int] = SIZE) -> Iterator[Any]:
    """The viewer's page, at its smallest picture size."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield open_page(browser, address, size)
        finally:
            browser.close()


def open_page(browser: Any, address: str, size: tuple[int, int] = SIZE) -> Any:
    """Another page of a browser."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.add_init_script(CALMER)
    page.goto(address)
    page.get_by_label("Show", exact=True).wait_for(timeout=60_000)
    sharpness(page, "Home")
    return page


def open_tab(page: Any, name: str) -> None:
    """Shows a tab of the panel."""
    page.get_by_role("tab", name=name, exact=True).click()


def sharpness(page: Any, *keys: str) -> None:
    """Presses keys on the slider of the size of pictures."""
    open_tab(page, "Control")
    for key in keys:
        slider(page, "Max res").press(key)
    open_tab(page, "Segment")


def said(page: Any) -> str:
    """The sentence of the status line."""
    return page.locator("strong").first.inner_text()


def slider(page: Any, label: str) -> Any:
    """A slider of the page, to press keys on."""
    return page.locator(f"xpath=//*[text()='{label}']/following::*[@role='slider'][1]")


def press(page: Any, button: str) -> None:
    """Presses a button of exactly this name."""
    page.get_by_role("button", name=button, exact=True).click()


def show_output(page: Any, name: str) -> None:
    """Chooses what is shown, by the name that people have for it."""
    page.get_by_label("Show", exact=True).click()
    page.get_by_role("option", name=name, exact=True).click()


def screenshot(page: Any, clip: dict[str, int] = VIEW) -> np.ndarray:
    """A part of the page, without the sentence over the picture: [height, width, 3] float, 0 to 255."""
    shot = page.screenshot(clip=clip, style=".semfield-caption { visibility: hidden; }")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=np.float64)


def picture(
    page: Any,
    patience: float = 120.0,
    clip: dict[str, int] = VIEW,
    still: float = 3.0,
    unlike: np.ndarray | None = None,
    apart: float = CHANGED,
) -> np.ndarray:
    """The scene once it has stood still for some seconds, as sharp as it gets: [height, width, 3] float, 0 to 255.

    Args:
        page: of the viewer.
        patience: seconds to wait for that.
        clip: the part of the page.
        still: seconds.
        unlike: an earlier picture that has to be gone first: a busy machine draws late.
        apart: how far from that one, of 255, it has to be.
    """
    deadline = time.monotonic() + patience
    last, since = None, time.monotonic()
    sharpening = page.get_by_text(re.compile("Sharpening: "))  # another picture follows, maybe much later
    while time.monotonic() < deadline:
        shot = screenshot(page, clip)
        if last is None or np.abs(shot - last).max() > 0 or sharpening.count():
            last, since = shot, time.monotonic()
        elif time.monotonic() - since > still and (unlike is None or difference(unlike, last) > apart):
            return last
        time.sleep(0.3)
    raise AssertionError("the picture does not come to rest" if unlike is None else "the picture does not change")


def draw(page: Any, tool: str, points: np.ndarray) -> None:
    """Clicks a stroke, and ends it by a double-click."""
    press(page, tool)
    page.get_by_text("first point of a stroke").wait_for()
    for number, (x, y) in enumerate(points[:-1], start=1):
        page.mouse.click(x, y)
        page.get_by_text(re.compile(rf"\({number} so far\)")).wait_for()
        page.wait_for_timeout(700)  # two quick clicks would be one double-click
    page.mouse.dblclick(*points[-1])
    page.get_by_text(re.compile("Navigating|The mask of")).wait_for()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean difference of two pictures, of 255."""
    return float(np.abs(first - second).mean())
