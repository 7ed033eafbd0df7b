"""From photos to the first mask in the viewer, by way of Gaussians, and what a further stroke takes then.

    python benchmarks/first_mask.py [--kind static] [--seeds 20 21 22] [--output-dir FOLDER]

For every seed a synthetic scene of 20 pictures of 400x300, and then as a person does it: `semfield attach --bake`,
`semfield view` in headless Chromium, one stroke on an object. Seconds are counted from the start of the first command,
clicks included, to the sentence that says that the mask is shown; nothing is cached of the photos before. Then, in a
process of its own, strokes by turns on every object and beside it, and the IoU of the objects in the held-out views.
Prints one Markdown row a seed.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from captions import save, titled_grid
from training import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semfield_ns.io import read_image
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.segmentation.simulation import simulate_strokes
from semfield_ns.sessions.masks import open_run, scene_views
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from semfield_ns.sessions.views import ModelViews
from tests.runs import COMMANDS
from tests.viewer.browser import draw, opened_page, picture, running_viewer

PAGE = (1000, 640)
CLIP = {"x": 0, "y": 60, "width": 640, "height": 560}
STROKES = 6
"""on each object and beside it, together"""
SHOWN = 2
"""held-out view of pictures"""
TITLES = ("a stroke on each object, and beside it", "held-out photo", "Gaussians", "masks", "things, no strokes")
LEAST_SHARE = 0.005
"""of a picture: smaller objects are not drawn on"""


def processor() -> float:
    """Seconds of this process and of its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def first_mask(config: Path, log: Path) -> tuple[float, float]:
    """Seconds until the page shows the scene, and from there to a mask of what is in the middle of the page."""
    start = time.perf_counter()
    with running_viewer(config, log) as address, opened_page(address, PAGE) as page:
        picture(page, clip=CLIP, still=0.5)
        shown = time.perf_counter()
        box = page.locator("canvas").nth(1).bounding_box()
        middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
        draw(page, "Stroke on object", middle + np.array([(-8.0, 0.0), (8.0, 4.0)]))
        return shown - start, time.perf_counter() - shown


def strokes(config: Path, scene: Path) -> tuple[list[float], float, float]:
    """Milliseconds of every stroke after the first one of a view; mean IoU of the objects, and the lowest."""
    _, pipeline = open_run(config)
    model = pipeline.model
    drawn = scene_views(pipeline, "train")[0].camera
    held_out = scene_views(pipeline, "test")
    truth = read_scene(scene)
    first = np.array(read_image(truth.train[0].instance_path))
    seconds, overlaps = [], []
    numbers, counts = np.unique(first[first > 0], return_counts=True)
    for number in numbers[counts > LEAST_SHARE * first.size]:
        segmenter = Segmenter(Session(), ModelViews(model))
        segmenter.view(drawn)
        entry = segmenter.session.add_object("target")
        for seed in range(STROKES):
            stroke = simulate_strokes(first == number, drawn, seed // 2)[seed % 2]
            start = time.perf_counter()
            segmenter.session.add_prompt(entry, stroke)
            segmenter.segment(drawn).overlay.cpu()
            if seed:
                seconds.append(time.perf_counter() - start)
        shared = either = 0
        for frame, view in zip(truth.test, held_out, strict=True):
            found = segmenter.segment(view.camera).masks[0].cpu().numpy()
            target = np.array(read_image(frame.instance_path)) == number
            shared, either = shared + int((found & target).sum()), either + int((found | target).sum())
        overlaps.append(shared / either if either else float("nan"))
    return [1000 * value for value in seconds], float(np.nanmean(overlaps)), float(np.nanmin(overlaps))


def pictures_of(config: Path, scene: Path) -> list[np.ndarray]:
    """Strokes in the first photo; of a held-out view the photo, what the Gaussians show, masks, and things."""
    _, pipeline = open_run(config)
    truth, model = read_scene(scene), pipeline.model
    drawn, held_out = scene_views(pipeline, "train")[0].camera, scene_views(pipeline, "test")[SHOWN].camera
    first = np.array(read_image(truth.train[0].instance_path))
    segmenter = Segmenter(Session(), ModelViews(model))
    photo, other = (
        np.array(read_image(frame.image_path).convert("RGB")) for frame in (truth.train[0], truth.test[SHOWN])
    )
    marked = photo.copy()
    numbers, counts = np.unique(first[first > 0], return_counts=True)
    for number in numbers[counts > LEAST_SHARE * first.size]:
        entry = segmenter.session.add_object("object")
        for stroke, color in zip(
            simulate_strokes(first == number, drawn, 0), ((80, 255, 80), (255, 60, 60)), strict=True
        ):
            segmenter.session.add_prompt(entry, stroke)
            marked[stroke.pixels(*first.shape).numpy()] = color
    masks = segmenter.segment(held_out).overlay
    outputs = model.get_outputs_for_camera(held_out.cameras())
    return [marked, other, *((image * 255).byte().numpy() for image in (outputs["rgb"], masks, outputs["instances"]))]


def main(
    kind: Literal["static", "varied"] = "static",
    seeds: tuple[int, ...] = (20, 21, 22),
    pictures: int = 20,
    output_dir: Path = Path("outputs/first_mask"),
    picture_file: Path | None = None,
) -> None:
    """Measure.

    Args:
        kind: of the scenes.
        seeds: of the scenes.
        pictures: of a scene; every 8th is held out beside them.
        output_dir: of scenes and runs.
        picture_file: where to draw what comes of each scene, a row a seed.
    """
    drawn = []
    output_dir = output_dir.resolve()
    print(
        "| scene | s of attach --bake (processor) | viewer open | stroke to mask | together | ms of a further stroke, "
        "median (slowest) | IoU, mean | IoU, lowest |\n|---|---|---|---|---|---|---|---|"
    )
    for seed in seeds:
        name = f"{kind}_{seed}"
        scene = output_dir / "scenes" / name
        if not scene.is_dir():
            write_scene(kind, scene, seed, pictures, 400, 300, 1)
        start, used = time.perf_counter(), processor()
        command = [COMMANDS / "semfield", "attach", "--data", scene, "--output-dir", output_dir, "--bake"]
        os.environ["SEMFIELD_CACHE"] = str(output_dir / "cache" / name)
        shutil.rmtree(os.environ["SEMFIELD_CACHE"], ignore_errors=True)  # as on a machine that has not seen the photos
        with (output_dir / f"{name}.txt").open("w") as log:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
        baked, used = time.perf_counter() - start, processor() - used
        (config,) = output_dir.glob(f"{name}/semantic-flow-splat*/baked/config.yml")
        opened, masked = first_mask(config, output_dir / f"{name}_viewer.log")
        times, mean, lowest = strokes(config, scene)
        drawn.append(pictures_of(config, scene) if picture_file is not None else [])
        print(
            f"| {name} | {baked:.0f} ({used:.0f}) | {opened:.0f} | {masked:.0f} | {baked + opened + masked:.0f} "
            f"| {np.median(times):.0f} ({max(times):.0f}) | {mean:.3f} | {lowest:.3f} |",
            flush=True,
        )
    print(f"\n{machine()}")
    if picture_file is not None:
        save(titled_grid(drawn, column_titles=TITLES), picture_file)


if __name__ == "__main__":
    tyro.cli(main)
