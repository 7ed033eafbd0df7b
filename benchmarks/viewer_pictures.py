"""The picture docs/images/strokes.jpg: strokes in the viewer, on a synthetic scene that the model never saw.

    python benchmarks/viewer_pictures.py [FOLDER]

Needs Chromium and playwright (the extra `dev`). A few minutes on two cores.
"""

import sys
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semfield_ns.scenes.synthetic import write_scene
from tests.runs import run_command
from tests.viewer.browser import opened_page, picture, press, running_viewer, slider
from tests.viewer.test_strokes import CLIP, SIZE, Truth, draw

WORK = Path("outputs/viewer_pictures")


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
    side_by_side(shots).save(folder / "strokes.jpg", quality=80)
    print(folder / "strokes.jpg")


def shot(page: Any, width: int) -> Image.Image:
    """The page's left part, below its header."""
    page.screenshot(path=str(WORK / "page.png"))
    return Image.open(WORK / "page.png").convert("RGB").crop((0, CLIP["y"], width, SIZE[1]))


def side_by_side(shots: list[Image.Image], scale: float = 0.6) -> Image.Image:
    """One picture, smaller."""
    strip = Image.new("RGB", (sum(entry.width for entry in shots), shots[0].height))
    left = 0
    for entry in shots:
        strip.paste(entry, (left, 0))
        left += entry.width
    return strip.resize((round(strip.width * scale), round(strip.height * scale)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/images"))
