"""Edited renders of a run on a synthetic scene against the truth: the scene rendered without, or with moved, objects.

    python benchmarks/editing.py --load-config RUN/config.yml --pictures docs/images

Prints a Markdown table: mean PSNR of held-out views, of the scene as it is and of each edit.
"""

from dataclasses import replace
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
import tyro
from captions import pixels, save, titled_grid
from nerfstudio.utils.eval_utils import eval_setup
from rich.progress import track
from training import machine

from semfield_ns.editing.edits import Edit
from semfield_ns.io import read_json
from semfield_ns.scenes.synthetic import make_scene

EDITS = {
    "as it is": (),
    "remove ball": (Edit("remove", "ball"),),
    "remove all that moves": (Edit("remove"),),
    "move crate up": (Edit("move", "crate", translation=(0.0, 0.0, 0.9)),),
    "duplicate balloon": (Edit("duplicate", "balloon", translation=(0.9, 0.0, 0.3)),),
}


def edited_truth(scene, edits):
    """The analytic scene after edits that remove, move (translate) or duplicate (translate) classes."""
    for edit in edits:
        kept, changed = [], []
        for entry in scene.objects:
            chosen = entry.instance > 0 and edit.target in ("", entry.class_name)
            moves = any(c.name == entry.class_name and c.dynamic for c in scene.classes)
            (changed if chosen and moves else kept).append(entry)
        place = np.eye(4)
        place[:3, 3] = edit.translation
        place = tuple(map(tuple, place.tolist()))
        moved = [replace(entry, placement=place) for entry in changed]
        if edit.kind == "duplicate":
            top = max(entry.instance for entry in scene.objects)
            moved = changed + [replace(entry, instance=top + 1 + i) for i, entry in enumerate(moved)]
        scene = replace(scene, objects=(*kept, *([] if edit.kind == "remove" else moved)))
    return scene


@torch.no_grad()
def main(load_config: Path, views: int = 12, pictures: Path | None = None) -> None:
    """Render, compare.

    Args:
        load_config: config.yml of a run of semantic-flow on a synthetic scene.
        views: How many of the held-out views, spread evenly.
        pictures: Where to write truth and render of one view, beside each other.
    """
    config, pipeline, _, _ = eval_setup(load_config, test_mode="val")
    model, dataset = pipeline.model, pipeline.datamanager.eval_dataset
    recipe = read_json(Path(config.pipeline.datamanager.data) / "transforms.json")["synthetic"]["recipe"]
    scene = make_scene(recipe["name"], recipe["seed"], recipe["num_frames"], recipe["width"], recipe["height"])
    # The pictures of held-out views are named held_CAMERA_FRAME.
    names = [frame.image_path.stem.split("_") for frame in dataset.metadata["frames"]]
    cameras = scene.held_out_cameras()
    places = [(cameras[int(camera)], int(time)) for _, camera, time in names]
    chosen = np.linspace(0, len(places) - 1, min(views, len(places))).round().astype(int).tolist()
    print(f"\n{scene.name}, {len(chosen)} held-out views\n\n| edit | PSNR, dB |\n|---|---|")
    rows = []
    for name, edits in EDITS.items():
        model.editor.change(edits)
        truth, errors = edited_truth(scene, edits), []
        for index in track(chosen, description=name, transient=True):
            wanted = torch.from_numpy(truth.render(places[index][0], time=places[index][1])["rgb"])
            outputs = model.get_outputs_for_camera(dataset.cameras[index : index + 1])
            errors.append(-10 * float((outputs["rgb"] - wanted).square().mean().log10()))
            if index == chosen[len(chosen) // 2]:
                shown = (wanted, outputs["rgb"], outputs["semantics_colormap"])
                rows.append([pixels(picture)[::2, ::2] for picture in shown])
        print(f"| {name} | {np.mean(errors):.2f} |", flush=True)
    print(f"\n{machine()}")
    if pictures is not None:
        titles = [fill(name, 12) for name in EDITS]
        save(titled_grid(rows, titles, ("truth", "edited render", "classes")), pictures / "editing.jpg")


if __name__ == "__main__":
    tyro.cli(main)
