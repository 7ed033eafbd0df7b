"""Nerfstudio's viewer on a run of moving Gaussians, in headless Chromium."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.runs import train_tiny_run
from tests.viewer.browser import (
    CHROMIUM,
    VIEW,
    difference,
    draw,
    open_tab,
    opened_page,
    picture,
    press,
    running_viewer,
    screenshot,
    sharpness,
    show_output,
    slider,
)

pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra `dev`)")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.flaky(reruns=2),  # a busy machine loses clicks, and pages that draw in software are late
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an ns-viewer that shows a short run."""
    folder = tmp_path_factory.mktemp("splats")
    config = train_tiny_run(folder, steps=30, method="semantic-flow-splat-tiny")
    with running_viewer(config, folder / "viewer.log") as address:
        yield address


@pytest.fixture
def page(viewer: str):
    """The viewer's page through a training camera, at the start of the video."""
    with opened_page(viewer) as page:
        show_output(page, "Colour")  # the server remembers what an earlier page did
        slider(page, "Frame").press("Home")
        yield page


def test_classes_time_and_play_change_the_picture(page):
    colors = picture(page)
    show_output(page, "Classes")
    semantics = picture(page, unlike=colors)
    open_tab(page, "Classes")
    page.get_by_label("wall", exact=True).uncheck()
    without = picture(page, unlike=semantics)
    page.get_by_label("wall", exact=True).check()
    assert difference(semantics, picture(page, unlike=without)) < difference(semantics, without) / 2

    slider(page, "Frame").press("End")
    later = picture(page, unlike=semantics)
    press(page, "Play")
    shots: list[np.ndarray] = []
    for _ in range(40):
        shots.append(screenshot(page))
        if len({shot.tobytes() for shot in shots}) > 4:
            break
        page.wait_for_timeout(250)
    press(page, "Play")
    assert len({shot.tobytes() for shot in shots}) > 4
    assert max(difference(later, shot) for shot in shots) > 1
    picture(page)  # it stands still again


def test_a_stroke_makes_a_mask_and_undo_takes_it_back(page):
    colors = picture(page)
    middle = np.array([VIEW["x"] + VIEW["width"] / 2, VIEW["y"] + VIEW["height"] / 2])
    draw(page, "Stroke on object", middle + np.array([(-20.0, 0.0), (20.0, 10.0)]))
    marked = picture(page, unlike=colors)
    press(page, "Undo")
    assert difference(colors, picture(page, unlike=marked)) < difference(colors, marked) / 2


def test_the_browser_draws_what_the_server_renders(page):
    sharpness(page, *(["ArrowRight"] * 4))
    rendered = {}
    for output in ("Classes", "Colour"):
        show_output(page, output)
        rendered[output] = picture(page, unlike=rendered.get("Classes"))
    page.get_by_label("Draw in the browser", exact=True).check()
    page.get_by_text("Gaussians at 8 moments are in the page").wait_for(timeout=120_000)
    drawn = {"Colour": picture(page)}
    empty = np.full_like(drawn["Colour"], 127.5)  # the background of the model
    show_output(page, "Classes")
    drawn["Classes"] = picture(page, unlike=drawn["Colour"])
    for output, ours in rendered.items():
        found, without = difference(ours, drawn[output]), difference(ours, empty)
        print(f"{output}: {found:.1f} of 255 from ours, an empty scene {without:.1f}")
        assert found < without / 4, output

    open_tab(page, "Classes")
    page.get_by_label("wall", exact=True).uncheck()
    hidden = picture(page, unlike=drawn["Classes"])
    page.get_by_label("wall", exact=True).check()
    picture(page, unlike=hidden)
    slider(page, "Frame").press("End")
    picture(page, unlike=drawn["Classes"])
    slider(page, "Frame").press("Home")
    page.get_by_label("Draw in the browser", exact=True).uncheck()
    page.get_by_text("are in the page").wait_for(state="hidden", timeout=30_000)
    again = picture(page)
    assert difference(again, rendered["Classes"]) < 1
