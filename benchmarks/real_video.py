"""Trains the tiny preset on a real video with few labels and compares it with what a user would do instead.

    python benchmarks/real_video.py SCENE --labels scattered-25% --seeds 0 1 2 --heads flow point

Prints one Markdown table: dataset mIoU and per-image mIoU on the frames whose labels were hidden, of Semantic Flow, of
the nearest labelled frame copied, and of optical flow chained from it; with the seconds of training. Everything runs in
one process, so that the rows share the machine's mood.
"""

from itertools import product
from pathlib import Path
from typing import Literal

import torch
import tyro
from training import Head, Job, machine, train

from semfield_ns.evaluation.run import Row, Truth, baselines, score


def main(
    scene: Path,
    labels: str = "scattered-25%",
    dynamic_masks: Literal["all", "labelled", "none"] = "all",
    seeds: tuple[int, ...] = (0,),
    heads: tuple[Head, ...] = ("flow",),
    evidence: tuple[bool, ...] = (False,),
    steps: int | None = None,
    pictures: Path | None = None,
) -> None:
    """Train, evaluate, compare.

    Args:
        scene: Folder of the scene.
        labels: Which frames show their labels.
        dynamic_masks: Which motion masks training may read; "labelled" where they were made from labels.
        seeds: One run each.
        heads: "flow" is the method, "point" the point-based head.
        evidence: Whether heads only correct what carried labels and a linear classifier tell; both, if both are given.
        steps: Training steps, of the preset by default; stage 1 keeps its share.
        pictures: Where to write image | truth | prediction of some frames, and a sheet of the predictions alone.
    """
    results: list[tuple[Row, float]] = []
    truth = None
    for head, informed in product(heads, evidence):
        name = f"{head} head{', with evidence' * informed}"
        for seed in seeds:
            pipeline, seconds = train(Job(scene, labels, dynamic_masks, head, seed, steps, evidence=informed))
            dataset, model = pipeline.datamanager.eval_dataset, pipeline.model
            names = {
                frame.image_path: i for i, frame in enumerate(pipeline.datamanager.train_dataset.metadata["frames"])
            }
            order = [names[frame.image_path] for frame in dataset.metadata["frames"]]
            given = {frame: dataset.semantics(i).squeeze(-1).numpy() for i, frame in enumerate(order)}
            truth = Truth(given, {}, model.label_map.dynamic)
            predictions, sheet = {}, []
            for i, frame in enumerate(order):
                outputs = model.get_outputs_for_camera(dataset.cameras[i : i + 1])
                predictions[frame] = outputs["semantics"][..., 0].long().numpy()
                sheet.append(outputs["semantics_colormap"][::2, ::2])
                if pictures is not None and i % max(1, len(order) // 4) == 0:
                    write_picture(pictures / f"{name}-{seed}-{frame:03d}.jpg", dataset, i, outputs, model.palette)
            if pictures is not None:
                write_sheet(pictures / f"predictions-{name}-{seed}.png", sheet)
            results.append((score(f"Semantic Flow, {name}, seed {seed}", predictions, truth), seconds))
            if len(results) == 1:
                results += [(row, 0.0) for row in baselines(pipeline.datamanager.train_dataset, truth)]
    assert truth is not None, "there is at least one head and one seed"
    print(f"\n{scene.name}, labels {labels}, {len(truth.labels)} unlabelled frames; {machine()}\n")
    print("| method | dataset mIoU | per-image mIoU | training, s |\n|---|---|---|---|")
    for row, seconds in results:
        print(f"| {row.method} | {row.miou:.3f} | {row.miou_image:.3f} | {seconds:.0f} |")


def write_picture(path: Path, dataset, index: int, outputs: dict[str, torch.Tensor], palette: torch.Tensor) -> None:
    """Image, truth and prediction side by side."""
    from PIL import Image

    from semfield_ns.rendering.palette import colorize_labels

    truth = colorize_labels(dataset.semantics(index).squeeze(-1), palette)
    row = torch.cat([dataset.get_image_float32(index)[..., :3], truth, outputs["semantics_colormap"]], dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((row.clamp(0, 1) * 255).byte().numpy()).save(path, quality=85)


def write_sheet(path: Path, images: list[torch.Tensor], columns: int = 3) -> None:
    """Predictions alone, small, `columns` beside each other: they show nothing of the video itself."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    images = images + [torch.zeros_like(images[0])] * (-len(images) % columns)
    rows = [torch.cat(images[i : i + columns], dim=1) for i in range(0, len(images), columns)]
    Image.fromarray((torch.cat(rows) * 255).byte().numpy()).save(path, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)
