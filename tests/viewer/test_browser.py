"""Nerfstudio's viewer on a trained run, in headless Chromium."""

import io
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.runs import COMMANDS, free_port

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra `dev`)")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Software rendering, and no calls home.
FLAGS = (
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)
VIEW = {"x": 0, "y": 60, "width": 310, "height": 800}
"""The part of the page with nothing but the scene."""

CHANGED = 2.5
"""mean difference, of 255, that is more than another sampling of the same picture"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
]


@pytest.fixture(scope="module")
def viewer(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running ns-viewer, on a small run or on the one that SEMFIELD_RUN names (a config.yml)."""
    trained_run = Path(os.environ.get("SEMFIELD_RUN") or trained_run)
    port = free_port()
    log = tmp_path_factory.mktemp("viewer") / "viewer.log"
    command = [str(COMMANDS / "ns-viewer"), "--load-config", str(trained_run)]
    command += ["--viewer.websocket-host", "127.0.0.1", "--viewer.websocket-port", str(port)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not listens(port):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def page(viewer: str):
    """The viewer's page, at its smallest picture size."""
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": 640, "height": 900})
            page.goto(viewer)
            page.get_by_label("Output type").wait_for(timeout=60_000)
            slider(page, "Max res").press("Home")
            yield page
        finally:
            browser.close()


def slider(page, label: str):
    return page.locator(f"xpath=//*[text()='{label}']/following::*[@role='slider'][1]")


def picture(page, patience: float = 60.0) -> np.ndarray:
    """The scene once it has stood still for three seconds: [height, width, 3] float, 0 to 255."""
    deadline = time.monotonic() + patience
    last, since = None, time.monotonic()
    while time.monotonic() < deadline:
        shot = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=VIEW))).convert("RGB"), dtype=np.float64)
        if last is None or np.abs(shot - last).max() > 0:
            last, since = shot, time.monotonic()
        elif time.monotonic() - since > 3:
            return last
        time.sleep(0.3)
    raise AssertionError("the picture does not come to rest")


def look_through_a_training_camera(page) -> None:
    """Clicks on a camera: what changes in the picture when cameras are hidden is one of them."""
    show = page.get_by_role("button", name="Show Train Cams")
    if show.is_visible():  # the server remembers what an earlier page did
        show.click()
    shown = picture(page)
    page.get_by_role("button", name="Hide Train Cams").click()
    changed = (np.abs(shown - picture(page)).max(axis=-1) > 8).astype(np.uint8)
    page.get_by_role("button", name="Show Train Cams").click()
    count, _, boxes, centres = cv2.connectedComponentsWithStats(changed)
    assert count > 1, "no training camera is in sight"
    largest = 1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA]))
    page.mouse.move(VIEW["x"] + centres[largest][0], VIEW["y"] + centres[largest][1])
    page.wait_for_timeout(1000)  # the page sees a camera under the pointer only after it has drawn
    page.mouse.down()
    page.wait_for_timeout(200)
    page.mouse.up()
    page.wait_for_timeout(1000)
    picture(page)
    page.get_by_role("button", name="Hide Train Cams").click()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).mean())


def test_outputs_time_and_classes_change_the_picture(page):
    look_through_a_training_camera(page)
    colors = picture(page)

    page.get_by_label("Output type").click()
    page.get_by_role("option", name="semantics_colormap").click()
    semantics = picture(page)
    assert difference(colors, semantics) > CHANGED

    slider(page, "Time").press("End")
    later = picture(page)
    assert difference(semantics, later) > CHANGED

    # The classes that cover most of the picture go and come back.
    for name in ("wall", "ground"):
        page.get_by_label(name, exact=True).uncheck()
        hidden = difference(later, picture(page))
        assert hidden > CHANGED
        page.get_by_label(name, exact=True).check()
        assert difference(later, picture(page)) < hidden / 2


def test_the_legend_shows_every_class_with_its_color(page):
    for name in ("wall", "ground", "pillar", "ball", "crate", "balloon"):
        assert page.get_by_text(name, exact=True).first.is_visible()
    assert page.locator(".gfm-color-chip").count() == 6


def test_an_edit_changes_the_picture_and_undo_takes_it_back(page):
    look_through_a_training_camera(page)
    before = picture(page)
    page.get_by_role("button", name="Background").click()
    page.get_by_text("background (0.86, 0.16, 0.16)").wait_for(timeout=120_000)
    edited = difference(before, picture(page))
    assert edited > CHANGED
    page.get_by_role("button", name="Undo edit").click()
    page.get_by_text("No edits.").wait_for(timeout=30_000)
    # The viewer sends pictures of other sizes and qualities as it finds time: like before, not equal.
    assert difference(before, picture(page)) < edited / 2
