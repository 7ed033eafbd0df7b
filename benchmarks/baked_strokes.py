"""Strokes on photos that were made into Gaussians: masks in held-out photos, with and without asking the photos.

    python benchmarks/baked_strokes.py SCENE [SCENE ...] [--seeds 5] [--strokes 4] [--output-dir FOLDER]

For every scene, whose photos have masks of one object: `semfield attach --bake` with the weights of the package, or the
run that it left in the folder earlier. Then strokes by turns on the object and beside it, all in one photo, another one
for each seed; the IoU is the mean over all held-out photos. `Gaussians alone` is as on a splat without photos.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Bool
from training import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semfield_ns.cli.attach import attach
from semfield_ns.gsn.library import load_scene
from semfield_ns.io import read_image
from semfield_ns.scenes.scene import Frame
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.simulation import simulate_strokes
from semfield_ns.segmentation.views import Pictures
from semfield_ns.sessions.masks import open_run, scene_views
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from semfield_ns.sessions.views import ModelViews

LONGEST_SIDE = 504


class GaussiansAlone(ModelViews):
    """Views of a model whose photos nobody asks."""

    def pictures(self) -> Pictures | None:
        return None


def object_mask(frame: Frame, camera: ViewCamera) -> Bool[np.ndarray, "H W"]:
    """The object of a photo, in the pixels of a camera."""
    mask = np.array(read_image(frame.object_mask_path))
    mask = (mask if mask.ndim == 2 else mask[..., 0]) > 0
    return cv2.resize(mask.astype(np.uint8), (camera.width, camera.height), interpolation=cv2.INTER_NEAREST) > 0


def baked_run(folder: Path, output_dir: Path) -> Path:
    """config.yml of a scene's Gaussians."""
    found = list(output_dir.glob(f"{folder.name}/semantic-flow-splat*/baked/config.yml"))
    if not found:
        attach(folder, output_dir=output_dir, bake=True)
        found = list(output_dir.glob(f"{folder.name}/semantic-flow-splat*/baked/config.yml"))
    return found[0]


def overlaps(
    provider: ModelViews,
    drawn: ViewCamera,
    target: Bool[np.ndarray, "H W"],
    held_out: list[tuple[ViewCamera, Bool[np.ndarray, "H W"]]],
    seed: int,
    strokes: int,
) -> list[float]:
    """Mean IoU in held-out photos after each stroke."""
    segmenter = Segmenter(Session(), provider)
    entry = segmenter.session.add_object("target")
    found = []
    for number in range(strokes):
        pair = simulate_strokes(target, drawn, seed + number // 2)
        segmenter.session.add_prompt(entry, pair[number % 2])
        ious = []
        for camera, truth in held_out:
            mask = segmenter.segment(camera).masks[0].cpu().numpy()
            ious.append((mask & truth).sum() / max((mask | truth).sum(), 1))
        found.append(float(np.mean(ious)))
    return found


@torch.no_grad()
def main(
    scenes: tuple[Path, ...],
    /,
    seeds: int = 5,
    strokes: int = 4,
    output_dir: Path = Path("outputs/baked_strokes"),
) -> None:
    """Measure.

    Args:
        scenes: Folders of photos with masks of an object.
        seeds: Of strokes, each in another photo.
        strokes: By turns on the object and beside it.
        output_dir: Of the runs.
    """
    print(f"| scene | | {' | '.join(f'strokes: {number + 1}' for number in range(strokes))} |")
    print("|---|---|" + "---|" * strokes)
    for folder in scenes:
        _, pipeline = open_run(baked_run(folder, output_dir))
        posed = load_scene(folder, folder.name, None, LONGEST_SIDE, True)
        train, test = scene_views(pipeline, "train"), scene_views(pipeline, "test")
        held_out = [
            (view.camera, object_mask(posed.frames[index], view.camera))
            for index, view in zip(posed.held_out, test, strict=True)
        ]
        for name, provider in (("the photo asked too", ModelViews), ("Gaussians alone", GaussiansAlone)):
            rows = []
            for seed in range(seeds):
                number = (7 * seed + 3) % len(train)
                camera = train[number].camera
                target = object_mask(posed.frames[posed.train[number]], camera)
                rows.append(overlaps(provider(pipeline.model), camera, target, held_out, seed, strokes))
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(np.mean(rows, axis=0), np.std(rows, axis=0), strict=True)]
            print(f"| {folder.name} | {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    tyro.cli(main)
