"""The pictures of the viewer in the docs: a mask on the ball, a class that is switched off, and the ball removed.

    python benchmarks/viewer_pictures.py --load-config outputs/demo/synthetic/semantic-flow-splat-tiny/run

The run is that of `make demo`: the places of the strokes are those of its first frame. Needs Chromium and playwright
(the extra `dev`). A few minutes on two cores.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from captions import save
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semfield_ns.run_folder import run_config
from tests.viewer.browser import draw, open_tab, opened_page, picture, press, running_viewer, show_output

HEADER = 50
"""px of the page above the viewer: links of Nerfstudio, which are left out"""
WIDTH = 864
"""px of the pictures in it"""
SIZE = (1280, 800 + HEADER)
SCENE = {"x": 0, "y": HEADER + 10, "width": 900, "height": 720}
"""the part of the page with nothing but the scene"""
BALL = np.array([[140.0, 575.0], [195.0, 615.0], [260.0, 590.0]])
AROUND = np.array([[400.0, 325.0], [480.0, 675.0]])
"""pixels of the page: the ball of the first frame, and what is beside it"""


def main(config: Path, folder: Path) -> None:
    """Draws, switches, edits; a picture of the page after each."""
    with tempfile.TemporaryDirectory() as work:
        log = Path(work) / "viewer.log"
        with running_viewer(config, log) as address, opened_page(address, SIZE) as page:
            sharper(page)
            picture(page, clip=SCENE)
            draw(page, "Stroke on object", BALL)
            draw(page, "Stroke on background", AROUND)
            keep(page, folder / "viewer.jpg")

            open_tab(page, "Classes")
            page.get_by_label("wall", exact=True).uncheck()
            keep(page, folder / "viewer_classes.jpg")

            show_output(page, "Colour")
            open_tab(page, "Edit")
            press(page, "Pick in view")
            page.get_by_text("Click on the thing to edit").wait_for()
            page.mouse.click(*BALL[1])
            page.get_by_text("Picked ball").wait_for(timeout=120_000)
            press(page, "Remove")
            page.get_by_text("Done: ball").wait_for(timeout=120_000)
            keep(page, folder / "viewer_edit.jpg")


def sharper(page: Any) -> None:
    """Pictures nearly as large as they are shown. Typed: arrow keys on the slider would turn the view, too."""
    open_tab(page, "Control")
    page.locator("xpath=//*[text()='Max res']/following::input[@type='text'][1]").fill(str(WIDTH))
    open_tab(page, "Segment")


def keep(page: Any, path: Path) -> None:
    """Writes the page as it is once its picture is sharp."""
    page.mouse.move(*SIZE)  # no hint is shown
    picture(page, patience=180, clip=SCENE, still=6)
    shot = page.screenshot(clip={"x": 0, "y": HEADER, "width": SIZE[0], "height": SIZE[1] - HEADER})
    save(Image.open(io.BytesIO(shot)).convert("RGB"), path)
    print(path, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--load-config", type=Path, required=True, help="run of the demo: its folder, or its config.yml"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    main(run_config(arguments.load_config), arguments.output)
