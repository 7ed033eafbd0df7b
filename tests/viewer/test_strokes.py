"""Segmenting by strokes through the viewer's page: clicks on an object of a scene that the model never saw."""

import filecmp
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semfield_ns.scenes.synthetic import write_scene
from tests.runs import run_command
from tests.viewer.browser import (
    NEEDED,
    difference,
    draw,
    opened_page,
    picture,
    press,
    running_viewer,
    screenshot,
    sharpness,
    show_output,
)

pytestmark = NEEDED

SIZE = (1000, 640)
CLIP = {"x": 0, "y": 60, "width": 640, "height": 560}
TARGET = "cylinder"


class Truth:
    """The training views of the scene: pictures and class ids."""

    def __init__(self, scene: Path) -> None:
        content = json.loads((scene / "transforms.json").read_text())
        self.size = content["w"], content["h"]
        self.centre = content["cx"], content["cy"]
        self.target = next(c["id"] for c in content["semantics"]["classes"] if c["name"] == TARGET)
        self.images, self.labels = {}, {}
        for frame in content["frames"]:
            name = Path(frame["file_path"]).stem
            self.images[name] = np.asarray(Image.open(scene / frame["file_path"]).convert("RGB"), dtype=np.float64)
            self.labels[name] = np.asarray(Image.open(scene / frame["semantic_path"]))

    def on_page(self, page: Any, points: np.ndarray) -> np.ndarray:
        """Pixels of the page [N, 2] for pixels of a training view that the page looks through."""
        box = page.locator("canvas").nth(1).bounding_box()
        middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
        # The whole picture is seen, in the middle of the page.
        scale = min(box["width"] / self.size[0], box["height"] / self.size[1])
        return middle + (points - self.centre) * scale

    def seen(self, page: Any) -> str:
        """The training view that the page shows: the one whose picture is most like it."""
        width, height = self.size
        grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1).reshape(-1, 2)
        places = self.on_page(page, grid).round().astype(int)
        whole = screenshot(page, {"x": 0, "y": 0, "width": SIZE[0], "height": SIZE[1]})
        shown = whole[places[:, 1], places[:, 0]].reshape(height, width, 3)
        apart = {name: difference(image, shown) for name, image in self.images.items()}
        best = min(apart, key=lambda name: apart[name])
        assert apart[best] < 30, f"the page shows no training view: {apart[best]:.0f}"
        return best

    def strokes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Vertices [N, 2] of a stroke along the target of a view, and of one around it."""
        rows, columns = np.nonzero(self.labels[name] == self.target)
        middle, radius = np.array([columns.mean(), rows.mean()]) + 0.5, math.sqrt(len(rows) / math.pi)
        along = middle + radius * np.array([(-0.5, 0.1), (0.0, -0.3), (0.5, 0.1)])
        angles = np.linspace(0, 2 * np.pi, 9)
        around = middle + 1.9 * radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return along, np.clip(around, 1, np.array(self.size) - 1)

    def iou(self, masks: Path) -> float:
        """Of exported masks, over all their pixels."""
        shared = either = 0
        for file in masks.glob("*.png"):
            found, truth = np.asarray(Image.open(file)) == 1, self.labels[file.stem] == self.target
            shared, either = shared + (found & truth).sum(), either + (found | truth).sum()
        return shared / either


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Truth, Path]]:
    """An unseen scene, and the config.yml of the run that shows it with the weights that come with the package."""
    folder = tmp_path_factory.mktemp("attached")
    scene = write_scene("static", folder / "scene", seed=11, num_frames=12, width=128, height=96, samples_per_axis=1)
    run_command(["semfield", "attach", "--data", str(scene), "--output-dir", str(folder / "out"), "--preview", "0"])
    (config,) = (folder / "out").glob("scene/*/*/config.yml")
    yield Truth(scene), config


def test_strokes_become_masks_in_all_views_and_files(attached: tuple[Truth, Path], tmp_path: Path):
    truth, config = attached
    with running_viewer(config, tmp_path / "viewer.log") as address, opened_page(address, SIZE) as page:
        sharpness(page, "ArrowRight")
        picture(page, clip=CLIP)
        view = truth.seen(page)
        rgb = picture(page, clip=CLIP)
        along, around = (truth.on_page(page, stroke) for stroke in truth.strokes(view))

        draw(page, "Stroke on object", along)
        positive = picture(page, clip=CLIP, unlike=rgb, apart=1)
        draw(page, "Stroke on background", around)
        both = picture(page, clip=CLIP, unlike=positive, apart=1)
        press(page, "Undo")
        undone = picture(page, clip=CLIP, unlike=both, apart=1)
        press(page, "Redo")
        redone = picture(page, clip=CLIP, unlike=undone, apart=1)
        changed = difference(positive, both)
        assert max(difference(positive, undone), difference(both, redone)) < changed / 2

        # The camera can be moved between strokes, and the mask moves with the object.
        page.mouse.move(300, 300)
        page.mouse.down()
        page.mouse.move(380, 300, steps=8)
        page.mouse.up()
        moved = picture(page, clip=CLIP, unlike=redone)
        show_output(page, "Colour")
        picture(page, clip=CLIP, unlike=moved, apart=1)

        page.get_by_label("Views", exact=True).click()
        page.get_by_role("option", name="All cameras", exact=True).click()
        press(page, "Export results")
        page.get_by_text(re.compile(r"Wrote \d+ masks")).first.wait_for(timeout=240_000)
    exported = config.parent / "viewer" / "segmentation"
    iou = truth.iou(exported / "masks")
    assert iou >= 0.8, f"{iou:.3f}"
    replayed = tmp_path / "replayed"
    run_command(
        [
            *("semfield", "segment", "--load-config", str(config), "--session", str(exported / "session.json")),
            *("--output-dir", str(replayed), "--views", "test"),
        ]
    )
    files = sorted(path.relative_to(replayed) for path in replayed.glob("*/*.png"))
    assert len(files) >= 2
    assert filecmp.cmpfiles(exported, replayed, files, shallow=False)[0] == files
