"""Nerfstudio's viewer on a run that takes seconds a picture, in headless Chromium; on others, test_browser_front."""

import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.viewer.browser import (
    NEEDED,
    opened_page,
    picture,
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
    said = page.get_by_text(re.compile(r"Sharpening: \d+ x \d+ of \d+ x \d+"))
    said.wait_for(timeout=60_000)
    rows: list[int] = []
    deadline = time.monotonic() + 240
    while not any(later > earlier for earlier, later in pairwise(rows)):
        assert time.monotonic() < deadline, f"pictures of {rows} rows"
        rows += [int(re.findall(r"\d+", text)[0]) for text in said.all_text_contents()]
        page.wait_for_timeout(100)
