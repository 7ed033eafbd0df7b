"""How long the page takes to react to each of its buttons and sliders, in headless Chromium on this machine.

    python benchmarks/viewer_reaction.py --load-config RUN/config.yml [--repeats 5]

The page has 900x560 pixels, as Chromium draws without a GPU, and Nerfstudio's default resolution. Two times are
measured from the event in the page (pointer or key): to the first change of the page that is painted, and to the
picture that does not change any more. The second one is looked up by screenshots, which take some tenths of a second
each without a GPU. Prints medians.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from training import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.viewer.browser import open_tab, press, running_viewer, show_output, slider

SIZE = (900, 560)
CLIP = {"x": 0, "y": 60, "width": 560, "height": 490}
NO_CAPTION = ".semfield-caption { visibility: hidden; }"
"""the sentence over the picture is no change of the picture"""
STILL = 1.0
"""seconds without a change, after which a picture is the last one"""
WATCH = """
window.reaction = { begun: null, changed: null };
const begun = () => { window.reaction.begun ??= Date.now(); };
for (const kind of ["pointerdown", "keydown"]) window.addEventListener(kind, begun, true);
new MutationObserver(() => {
  const now = window.reaction;
  if (now.begun !== null && now.changed === null) requestAnimationFrame(() => { now.changed ??= Date.now(); });
}).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
"""


class Watched:
    """A page whose reactions are timed."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.evaluate(WATCH)

    def times(self, act: Callable[[], Any]) -> tuple[float, float]:
        """Seconds to the first change, and to the last picture."""
        self.rest()
        self.page.evaluate("window.reaction.begun = window.reaction.changed = null")
        before = self.shot()
        act()
        last, changed_at, end = before, None, time.time() + 60
        while time.time() < end:
            shot = self.shot()
            now = time.time()
            if np.abs(shot - last).mean() > 0.05:
                last, changed_at = shot, now
            elif now - (changed_at or now) > STILL or (changed_at is None and now > end - 57):
                break
        begun, changed = self.page.evaluate("[window.reaction.begun, window.reaction.changed]")
        picture = float("nan") if changed_at is None else changed_at - begun / 1000
        first = min(value for value in (changed and (changed - begun) / 1000, picture) if value is not None)
        return first, picture

    def rest(self) -> None:
        """Waits until the picture stands still."""
        last, since = self.shot(), time.time()
        while time.time() - since < STILL:
            shot = self.shot()
            if np.abs(shot - last).mean() > 0.05:
                last, since = shot, time.time()

    def shot(self) -> np.ndarray:
        """The picture."""
        import io

        from PIL import Image

        data = self.page.screenshot(clip=CLIP, type="jpeg", quality=60, style=NO_CAPTION)
        return np.asarray(Image.open(io.BytesIO(data)).resize((224, 196)), dtype=np.float64)


def actions(page: Any, on: tuple[float, float]) -> list[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """(what, how to prepare it, how to do it); in an order in which each makes sense after the one before."""

    def nothing() -> None:
        pass

    def tab(name: str) -> Callable[[], Any]:
        return lambda: open_tab(page, name)

    def begin_stroke() -> None:
        open_tab(page, "Segment")
        press(page, "Stroke on object")
        page.get_by_text("first point of a stroke").wait_for()
        page.mouse.click(on[0] - 20, on[1])
        page.get_by_text("(1 so far)").wait_for()
        page.wait_for_timeout(800)
        page.mouse.click(on[0] + 20, on[1] + 10)
        page.get_by_text("(2 so far)").wait_for()

    def choose_ball() -> None:
        open_tab(page, "Edit")
        page.get_by_role("textbox", name="Edit").click()
        page.get_by_role("option", name="ball", exact=True).click()

    return [
        ("Show: Classes", tab("Segment"), lambda: show_output(page, "Classes")),
        ("Show: Colour", nothing, lambda: show_output(page, "Colour")),
        ("Frame, one further", nothing, lambda: slider(page, "Frame").press("ArrowRight")),
        ("Frame, one back", nothing, lambda: slider(page, "Frame").press("ArrowLeft")),
        ("Stroke on object", tab("Segment"), lambda: press(page, "Stroke on object")),
        ("Esc", nothing, lambda: page.keyboard.press("Escape")),
        ("End stroke (first mask)", begin_stroke, lambda: press(page, "End stroke")),
        ("Tightness", nothing, lambda: slider(page, "Tightness").press("ArrowRight")),
        ("Spread", nothing, lambda: slider(page, "Spread").press("ArrowRight")),
        ("Undo a stroke", lambda: [press(page, "Undo"), press(page, "Undo")], lambda: press(page, "Undo")),
        ("Redo a stroke", nothing, lambda: press(page, "Redo")),
        ("New object", nothing, lambda: press(page, "New object")),
        ("Clear strokes", nothing, lambda: press(page, "Clear strokes")),
        ("Class off", tab("Classes"), lambda: page.get_by_label("wall", exact=True).uncheck()),
        ("Class on", nothing, lambda: page.get_by_label("wall (hidden)", exact=True).check()),
        ("Classes: None", nothing, lambda: press(page, "None")),
        ("Classes: All", nothing, lambda: press(page, "All")),
        ("What is here?", nothing, lambda: press(page, "What is here?")),
        ("the answer", nothing, lambda: page.mouse.click(*on)),
        ("Pick in view", tab("Edit"), lambda: press(page, "Pick in view")),
        ("the object (found the first time)", nothing, lambda: page.mouse.click(*on)),
        ("Remove", choose_ball, lambda: press(page, "Remove")),
        ("Undo an edit", nothing, lambda: press(page, "Undo")),
        ("Redo an edit", nothing, lambda: press(page, "Redo")),
        ("Clear edits", nothing, lambda: press(page, "Clear edits")),
        ("Mirror", choose_ball, lambda: press(page, "Mirror")),
        ("Ctrl+Z", nothing, lambda: page.keyboard.press("Control+z")),
        ("Train cameras", nothing, lambda: press(page, "Show Train Cams")),
        ("hidden again", nothing, lambda: press(page, "Hide Train Cams")),
    ]


def main(load_config: Path, repeats: int = 5, on: tuple[float, float] = (123.0, 386.0)) -> None:
    """Measure.

    Args:
        load_config: config.yml of a run of the demo scene.
        repeats: of the whole list.
        on: px of the page, where the ball is in the first view.
    """
    from playwright.sync_api import sync_playwright

    from tests.viewer.browser import CHROMIUM, FLAGS

    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            # A viewer of its own each time: what was found out the first time is known afterwards.
            with running_viewer(load_config, Path(folder) / "viewer.log") as address, sync_playwright() as session:
                browser = session.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
                page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
                page.goto(address)
                page.get_by_label("Show", exact=True).wait_for(timeout=60_000)
                page.wait_for_timeout(4000)
                watched = Watched(page)
                for what, prepare, act in actions(page, on):
                    prepare()
                    found.setdefault(what, []).append(watched.times(act))
                browser.close()
            print(f"{repeat + 1} of {repeats}", file=sys.stderr, flush=True)
    print("| what | first change, s | sharp picture, s |\n|---|---|---|")
    for what, times in found.items():
        first, picture = (statistics.median(values) for values in zip(*times, strict=True))
        print(f"| {what} | {first:.2f} | {'' if picture != picture else f'{picture:.2f}'} |")
    firsts, pictures = zip(*(entry for times in found.values() for entry in times), strict=True)
    seen = [value for value in pictures if value == value]
    print(f"\nmedian of all: {statistics.median(firsts):.2f} s, sharp {statistics.median(seen):.2f} s")
    print(machine())


if __name__ == "__main__":
    tyro.cli(main)
