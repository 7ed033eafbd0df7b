"""Nerfstudio's viewer on a run that takes seconds a picture, in headless Chromium; on others, test_browser_front."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.viewer.browser import (
    NEEDED,
    VIEW,
    difference,
    open_tab,
    opened_page,
    picture,
    press,
    running_viewer,
    sharpness,
    show_output,
    slider,
)

pytestmark = NEEDED


@pytest.fixture(scope="module")
def viewer(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that shows a small run, or the one that SEMFIELD_RUN names (a config.yml)."""
    config = Path(os.environ.get("SEMFIELD_RUN") or trained_run)
    with running_viewer(config, tmp_path_factory.mktemp("viewer") / "viewer.log") as address:
        yield address


@pytest.fixture
def page(viewer: str):
    """The viewer's page, at its smallest picture size."""
    with opened_page(viewer) as page:
        yield page


def test_outputs_and_time_change_the_picture(page):
    colors = picture(page)
    show_output(page, "Classes")
    semantics = picture(page, unlike=colors)

    slider(page, "Frame").press("End")
    picture(page, unlike=semantics)


def test_a_picture_that_takes_long_gets_sharper_and_says_so(page):
    sharpness(page, *(["ArrowRight"] * 6))
    page.mouse.move(150, 400)
    page.mouse.wheel(0, 200)
    page.get_by_text(re.compile(r"Sharpening: \d+ x \d+ of \d+ x \d+")).wait_for(timeout=30_000)
    page.get_by_text("Sharpening").wait_for(state="hidden", timeout=240_000)


def test_an_edit_changes_the_picture_and_undo_takes_it_back(page):
    open_tab(page, "Edit")
    while not page.get_by_text("No edits.").is_visible():  # the server remembers what an earlier try did
        press(page, "Undo")
        page.wait_for_timeout(1000)
    page.get_by_text("New colour", exact=True).first.click()
    before = picture(page)
    press(page, "Recolor what stands still")
    page.get_by_text("Done: what stands still recoloured.").wait_for(timeout=120_000)
    assert page.get_by_text("recolor what stands still (0.86, 0.16, 0.16)").is_visible()
    edited = picture(page, patience=180, unlike=before)
    page.keyboard.press("Control+z")
    page.get_by_text("No edits.").wait_for(timeout=30_000)
    # The viewer sends pictures of other sizes and qualities as it finds time: like before, not equal.
    assert difference(before, picture(page, unlike=edited)) < difference(before, edited) / 2


def test_a_click_in_the_picture_asks_for_the_object_there(page):
    picture(page)
    open_tab(page, "Edit")
    press(page, "Pick in view")
    page.get_by_text("Click on something that moves").wait_for(timeout=30_000)
    page.mouse.click(VIEW["x"] + VIEW["width"] / 2, VIEW["y"] + VIEW["height"] / 2)
    # What a run of so few steps takes for moving is not known.
    page.get_by_text(re.compile("Picked .*#|Nothing that moves is seen there")).first.wait_for(timeout=120_000)
