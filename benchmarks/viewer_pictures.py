"""The picture docs/images/viewer.jpg: strokes in the viewer, on a synthetic scene that the model never saw.

    python benchmarks/viewer_pictures.py [FOLDER]

Needs Chromium and playwright (the extra `dev`). A few minutes on two cores.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from captions import save, titled_grid
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semfield_ns.scenes.synthetic import write_scene
from tests.runs import run_command
from tests.viewer.browser import opened_page, picture, press, running_viewer, slider
from tests.viewer.test_strokes import CLIP, SIZE, Truth, draw

WORK = Path("outputs/viewer_pictures")
TITLES = ("a stroke on the cylinder, in the viewer", "with a stroke around it: the mask", "the mask from another place")


def main(folder: Path) -> None:
    """Attach, draw, photograph."""
    scene = write_scene("static", WORK / "scene", seed=11, num_frames=20, width=128, height=96, samples_per_axis=1)
    run_command(["semfield", "attach", "--data", str(scene), "--output-dir", str(WORK / "out"), "--preview", "0"])
    (config,) = (WORK / "out").glob("scene/*/*/config.yml")
    truth = Truth(scene)
    with running_viewer(config, WORK / "viewer.log") as address, opened_page(address, SIZE) as page:
        slider(page, "Max res").press("ArrowRight")
        view = truth.look(page)
        slider(page, "Max res").press("ArrowRight")
        picture(page, patience=300, clip=CLIP, still=8)
        along, around = (truth.on_page(page, stroke) for stroke in truth.strokes(view))
        press(page, "Stroke on object")
        page.get_by_text("first point of a stroke").wait_for()
        for x, y in along:
            page.mouse.click(x, y)
            page.wait_for_timeout(1000)
        shots = [shot(page, SIZE[0])]
        press(page, "End stroke")
        draw(page, "Stroke on background", around)
        picture(page, patience=300, clip=CLIP, still=8)
        shots.append(shot(page, CLIP["width"]))
        # Moved sideways: the mask and the strokes stay on the object.
        page.mouse.move(300, 300)
        page.mouse.down(button="right")
        page.mouse.move(380, 320, steps=8)
        page.mouse.up(button="right")
        picture(page, patience=300, clip=CLIP, still=8)
        shots.append(shot(page, CLIP["width"]))
    save(titled_grid([[smaller(shot) for shot in shots]], column_titles=TITLES), folder / "viewer.jpg")
    print(folder / "viewer.jpg")


def shot(page: Any, width: int) -> Image.Image:
    """The page's left part, below its header."""
    page.screenshot(path=str(WORK / "page.png"))
    return Image.open(WORK / "page.png").convert("RGB").crop((0, CLIP["y"], width, SIZE[1]))


def smaller(picture: Image.Image, scale: float = 0.6) -> np.ndarray:
    """The picture at a part of its size."""
    size = round(picture.width * scale), round(picture.height * scale)
    return np.array(picture.resize(size, Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/images"))
