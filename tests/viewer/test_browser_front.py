"""What somebody meets who opens the page of a run for the first time, in headless Chromium, with real clicks."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import train_tiny_run
from tests.viewer import browser
from tests.viewer.browser import (
    NEEDED,
    difference,
    draw,
    open_page,
    open_tab,
    opened_page,
    press,
    running_viewer,
    said,
    sharpness,
    show_output,
    slider,
)

pytestmark = NEEDED

SIZE = (900, 560)
"""of pages: larger ones take seconds a picture without a GPU"""
CLIP = {"x": 0, "y": 60, "width": 560, "height": 490}
PANEL = 320
"""px, its width"""
TABS = ("Segment", "Classes", "Edit")


def on_page(x: float, y: float) -> np.ndarray:
    """px of the page, for those of the first picture at 320x240: all of it is seen, in the middle."""
    canvas = np.array([SIZE[0] - PANEL, SIZE[1] - 50])
    return np.array([0, 50]) + canvas / 2 + (np.array([x, y]) - (160, 120)) * min(canvas / (320, 240))


BALL = on_page(68, 165)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of a run of moving Gaussians on eight frames, or the one that SEMFIELD_RUN names."""
    if "SEMFIELD_RUN" in os.environ:
        return Path(os.environ["SEMFIELD_RUN"])
    # Named from the folder that the tests run in, and opened from another one.
    folder = Path(os.path.relpath(tmp_path_factory.mktemp("front")))
    return train_tiny_run(folder, steps=120, method="semantic-flow-splat-tiny").resolve()


@pytest.fixture(scope="module")
def viewer(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that shows it."""
    with running_viewer(run, tmp_path_factory.mktemp("viewer") / "viewer.log") as address:
        yield address


@pytest.fixture
def page(viewer: str) -> Iterator[Any]:
    """The page, with nothing drawn and nothing edited: the server remembers what an earlier one did."""
    with opened_page(viewer, SIZE) as page:
        for _ in range(40):
            if said(page) == "There is nothing to undo.":
                break
            press(page, "Undo")
            page.wait_for_timeout(150)
        show_output(page, "Colour")
        slider(page, "Frame").press("Home")
        picture(page)
        yield page


def picture(page: Any, clip: dict[str, int] = CLIP, **conditions: Any) -> np.ndarray:
    """The scene once it has stood still: pictures of Gaussians come soon."""
    return browser.picture(page, clip=clip, still=1.5, **conditions)


def settled(page: Any, right: Callable[[np.ndarray], bool], seconds: float = 60.0) -> np.ndarray:
    """The picture once it is right: on a busy machine it stands still now and then before it is."""
    deadline = time.monotonic() + seconds
    while not right(shown := picture(page)):
        assert time.monotonic() < deadline, f"not right after {seconds:.0f} s"
    return shown


def like(drawn: np.ndarray, ours: np.ndarray) -> bool:
    """Whether a picture that a page drew is ours, measured against the background of the model alone."""
    return difference(drawn, ours) < difference(ours, np.full_like(ours, 127.5)) / 4


def coarse(picture: np.ndarray, factor: int = 8) -> np.ndarray:
    """Means of squares of pixels: a page without a GPU draws Gaussians with fewer pixels, and goes on so afterwards."""
    height, width = (side // factor for side in picture.shape[:2])
    return picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


def text_field(page: Any, label: str) -> Any:
    """A line of text of the page."""
    return page.locator(f"xpath=//label[text()='{label}']/following::input[1]")


def overflow(page: Any) -> int:
    """How many px the panel is wider than it should be."""
    script = "Math.max(...[...document.querySelectorAll('.mantine-ScrollArea-viewport')].map(e => e.scrollWidth))"
    return int(page.evaluate(script)) - PANEL


def masked(page: Any, before: np.ndarray) -> float:
    """The share of the picture that differs clearly from an earlier one."""
    return float((np.abs(picture(page) - before).max(axis=-1) > 40).mean())


def test_the_first_view_is_a_training_camera_and_the_page_is_for_people(page, run: Path):
    scene = run.parents[3] / "scene"
    shown = picture(page, clip={"x": 0, "y": 50, "width": SIZE[0] - PANEL, "height": SIZE[1] - 50})
    height, width = shown.shape[:2]
    apart = []
    for number in range(8):
        image = Image.open(scene / "images" / f"{number:03d}.png").convert("RGB")
        # The whole picture, in the middle of the page.
        scale = min(width / image.width, height / image.height)
        size = round(image.width * scale), round(image.height * scale)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float64)
        apart.append(difference(whole, shown[top : top + size[1], left : left + size[0]]))
    assert int(np.argmin(apart)) == 0 and apart[0] < 15, apart
    page.get_by_text("Frame 1 of 8, 0.0 of 0.6 s").wait_for()
    page.get_by_role("button", name="Show Train Cams").wait_for()  # cameras do not stand in the view
    page.get_by_label("Show", exact=True).click()
    page.get_by_role("option", name="Segmented objects").wait_for()
    names = page.get_by_role("option").all_inner_texts()
    assert names[:4] == ["Colour", "Classes", "Segmented objects", "Depth"], "outputs have names"
    assert not any("gl_z_buf" in name or "_" in name for name in names), "none is for programs"
    page.keyboard.press("Escape")
    for hidden in (page.get_by_text("Step: "), page.get_by_text("Train Speed")):
        hidden.wait_for(state="hidden")
    page.get_by_role("button", name=re.compile("(Pause|Resume) Training")).wait_for(state="hidden")


def test_the_first_view_comes_back(page):
    before = picture(page)
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(400, 340, steps=8)
    page.mouse.up()
    moved = picture(page, unlike=before)
    press(page, "First view")
    settled(page, lambda shown: difference(shown, before) < difference(moved, before) / 8)


def test_undo_by_the_keyboard_leaves_the_time_alone(page):
    colors = picture(page)
    press(page, "Stroke on object")
    page.get_by_text("first point of a stroke").wait_for()
    marked = page.get_by_role("button", name="Stroke on object").evaluate("e => getComputedStyle(e).outlineStyle")
    assert marked == "solid", "the tool is not marked"
    page.mouse.click(*BALL)
    page.get_by_text("(1 so far)").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Navigating. Pick a tool to draw.").wait_for()
    page.get_by_text(re.compile(r"^object \d+$")).first.wait_for()
    press(page, "Stroke on object")
    page.get_by_text("first point of a stroke").wait_for()
    page.mouse.click(*BALL)
    page.get_by_text("(1 so far)").wait_for()
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"The mask of object \d+ is shown")).wait_for()
    masks = picture(page, unlike=colors, apart=0.5)
    slider(page, "Frame").press("ArrowRight")
    page.get_by_text("Frame 2 of 8").wait_for()
    slider(page, "Frame").press("ArrowLeft")
    page.get_by_text("Frame 1 of 8").wait_for()
    page.keyboard.press("Control+z")
    assert difference(colors, picture(page, unlike=masks, apart=0.5)) < difference(colors, masks) / 2
    page.get_by_text(re.compile(r"Undone: stroke on object \d+\.")).wait_for()
    page.get_by_text("Frame 1 of 8").wait_for()
    page.keyboard.press("Control+Shift+z")
    page.get_by_text(re.compile(r"Redone: stroke on object \d+\.")).wait_for()
    picture(page, unlike=colors, apart=0.5)


def test_strokes_on_what_is_removed_rest_until_it_is_back(page):
    draw(page, "Stroke on object", BALL + np.array([(-20.0, 0.0), (20.0, 8.0)]))
    masks = picture(page)
    open_tab(page, "Edit")
    press(page, "Pick in view")
    page.get_by_text("Click on the thing to edit").wait_for()
    page.mouse.click(*BALL)
    page.get_by_text("Picked ball#1. Now press Remove").wait_for(timeout=60_000)
    press(page, "Remove")
    page.get_by_text("Done: ball#1 removed.").wait_for(timeout=60_000)
    page.get_by_text("Strokes on what was edited rest").wait_for()
    removed = picture(page, unlike=masks)
    show_output(page, "Colour")
    assert masked(page, removed) < 0.01, "the mask floods what was behind"
    show_output(page, "Segmented objects")
    page.keyboard.press("Control+z")
    assert difference(masks, picture(page, unlike=removed)) < difference(masks, removed) / 2


def test_an_edit_changes_the_picture_and_undo_takes_it_back(page):
    before = picture(page)
    open_tab(page, "Edit")
    page.get_by_text("New colour", exact=True).first.click()
    press(page, "Recolor what stands still")
    page.get_by_text("Done: what stands still recoloured.").wait_for(timeout=60_000)
    assert page.get_by_text("recolor what stands still (0.86, 0.16, 0.16)").is_visible()
    edited = picture(page, unlike=before)
    page.keyboard.press("Control+z")
    page.get_by_text("No edits.").wait_for(timeout=30_000)
    settled(page, lambda shown: difference(before, shown) < difference(before, edited) / 2)


def test_what_is_wrong_is_said_where_one_looks(page):
    open_tab(page, "Edit")
    page.get_by_role("textbox", name="Edit").click()
    page.get_by_role("option", name="nothing picked yet").click()
    press(page, "Remove")
    notice = page.locator(".mantine-Notification-root")
    notice.wait_for()
    assert "Choose what to edit first" in notice.inner_text()
    assert "Choose what to edit first" in said(page)
    open_tab(page, "Segment")
    press(page, "Export results")
    page.locator(".mantine-Notification-root", has_text="The session has no object yet").wait_for()


def test_a_long_name_does_not_make_the_panel_wider_in_any_browser(page, viewer: str):
    text_field(page, "File name").fill("x" * 64)
    press(page, "Save session")
    page.get_by_text(re.compile("Saved to /.*/viewer/x{64}/session.json")).wait_for()
    assert overflow(page) <= 0
    other = open_page(page.context.browser, viewer, SIZE)
    other.get_by_text("Saved to /").wait_for()
    assert overflow(other) <= 0
    text_field(page, "File name").fill("segmentation")


@pytest.mark.parametrize("tab", TABS)
def test_no_control_is_further_away_than_one_screen(page, tab: str):
    page.set_viewport_size({"width": 1280, "height": 800})
    open_tab(page, tab)
    page.wait_for_timeout(1000)
    script = "[...document.querySelectorAll('.mantine-ScrollArea-viewport')].map(e => [e.scrollHeight, e.clientHeight])"
    for content, seen in page.evaluate(script):
        assert content <= 2 * seen, f"{content} px, of which {seen} are seen"
    main = page.locator(
        "button", has_text=re.compile("^(Stroke on object|Stroke on background|Pick in view|Export results)$")
    )
    yellow = page.locator("button:visible").evaluate_all(
        "es => es.filter(e => getComputedStyle(e).backgroundColor === 'rgb(255, 211, 105)').map(e => e.innerText)"
    )
    assert len(yellow) <= 3, yellow
    assert main.count() >= 3


def test_objects_are_listed_in_their_colors(page):
    for _ in range(2):
        press(page, "New object")
        page.get_by_text("New object. Pick a tool").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".gfm-color-chip").count() == 2


def test_play_moves_the_frames_on(page):
    press(page, "Play")
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    page.get_by_text(re.compile("Frame [2-8] of 8")).wait_for()
    page.keyboard.press("Tab")  # away from the button, which Space would press as well
    page.mouse.click(20, 500)
    page.keyboard.press(" ")
    page.get_by_role("button", name="Play", exact=True).wait_for()
    page.wait_for_timeout(500)
    stopped = page.get_by_text(re.compile("Frame . of 8")).inner_text()
    page.wait_for_timeout(700)
    assert page.get_by_text(re.compile("Frame . of 8")).inner_text() == stopped


def test_one_stroke_is_the_object_and_its_masks_are_saved(page):
    colors = picture(page)
    height = page.locator(".semfield-status").bounding_box()["height"]
    press(page, "Stroke on object")
    page.get_by_text("first point of a stroke").wait_for()
    page.mouse.move(BALL[0] - 20, BALL[1])
    page.mouse.down()
    page.mouse.move(BALL[0] + 20, BALL[1] + 8, steps=5)
    page.mouse.up()
    page.get_by_text(re.compile(r"The mask of object \d+ is shown")).wait_for()
    assert "If it is too large, press Stroke on background" in said(page)
    picture(page, unlike=colors, apart=1.5)  # the stroke alone is less
    assert 0.01 < masked(page, colors) < 0.35
    open_tab(page, "Export")
    page.get_by_text("point clouds of your objects").wait_for()
    open_tab(page, "Segment")
    press(page, "Export results")
    wrote = re.compile(r"Wrote 8 masks and overlays(, replacing the earlier ones,)? to /.*/viewer/segm")
    page.get_by_text(wrote).first.wait_for(timeout=120_000)
    page.get_by_role("button", name="Cancel", exact=True).wait_for(state="hidden")
    press(page, "Export results")
    # The status line is out of sight.
    page.locator('.semfield-caption[data-text*="replacing the earlier ones, to"]').wait_for(timeout=120_000)
    assert page.locator(".semfield-status").bounding_box()["height"] == height, "the panel jumps as the sentence grows"


def test_classes_stand_once_and_what_is_hidden_is_pale(page):
    open_tab(page, "Classes")
    for name in ("wall", "ground", "pillar", "ball", "crate", "balloon"):
        label = page.locator("label", has_text=re.compile(f"^{name}$"))
        assert label.count() == 1
        assert label.evaluate("e => getComputedStyle(e, '::before').backgroundColor") != "rgba(0, 0, 0, 0)"
    colors = picture(page)
    page.get_by_label("wall", exact=True).uncheck()
    page.get_by_text("wall is hidden").wait_for()
    hidden = picture(page, unlike=colors)
    left, top = (on_page(130, 30) - (CLIP["x"], CLIP["y"])).astype(int)
    wall = hidden[top : top + 40, left : left + 40]
    assert wall.mean() > 110 and np.ptp(wall, axis=-1).mean() < 12, "pale, and grey"
    page.get_by_label("wall (hidden)", exact=True).check()
    picture(page, unlike=hidden)
    press(page, "What is here?")
    page.get_by_text("Click on something.").wait_for()
    page.mouse.click(*BALL)
    page.get_by_text(re.compile(r"Here: ball, \d+ % sure, [\d.]+ away")).wait_for()


def test_the_browser_draws_what_the_server_renders(page):
    sharpness(page, *(["ArrowRight"] * 4))
    rendered = {}
    for output in ("Classes", "Colour"):
        show_output(page, output)
        rendered[output] = picture(page, unlike=rendered.get("Classes"))
    warned = page.locator("label", has_text="Draw in the browser")
    assert "no graphics card" in warned.evaluate("e => getComputedStyle(e, '::after').content")
    page.get_by_label("Draw in the browser", exact=True).check()
    page.get_by_text("Gaussians at 8 moments are in the page").wait_for(timeout=120_000)
    settled(page, lambda shown: like(shown, rendered["Colour"]))
    show_output(page, "Classes")
    drawn = settled(page, lambda shown: like(shown, rendered["Classes"]))

    open_tab(page, "Classes")
    page.get_by_label("ground", exact=True).uncheck()
    hidden = picture(page, unlike=drawn)
    page.get_by_label("ground (hidden)", exact=True).check()
    picture(page, unlike=hidden)
    slider(page, "Frame").press("End")
    picture(page, unlike=drawn)
    slider(page, "Frame").press("Home")
    page.get_by_label("Draw in the browser", exact=True).uncheck()
    page.get_by_text("are in the page").wait_for(state="hidden", timeout=30_000)
    ours = coarse(rendered["Classes"])
    settled(page, lambda shown: difference(coarse(shown), ours) < difference(coarse(drawn), ours) / 2)
    press(page, "Redo")
    page.get_by_text(re.compile("Redone|There is nothing to redo")).wait_for()
