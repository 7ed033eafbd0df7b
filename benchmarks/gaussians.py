"""Semantic Flow on Gaussians against the radiance field: held-out views, unlabelled frames, and what both cost.

    python benchmarks/gaussians.py --scenes demo demo-b fast thin --seeds 3

Both are trained in this process on the same scene, one after the other, with their tiny presets; labels of every second
frame. A row is written to --results as soon as it is there, and is not made again. Prints a Markdown table: means over
seeds with the standard deviation, and processor seconds beside wall seconds.
"""

import json
import random
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import tyro
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.pipelines.base_pipeline import Pipeline
from rich.progress import track
from training import machine

from semfield_ns.io import write_json
from semfield_ns.method_configs.semantic_flow import semantic_flow_tiny
from semfield_ns.method_configs.semantic_flow_splat import semantic_flow_splat, semantic_flow_splat_tiny
from semfield_ns.metrics.confusion import ConfusionMatrix
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.synthetic import write_scene

METHODS = {
    entry.config.method_name: entry for entry in (semantic_flow_splat, semantic_flow_splat_tiny, semantic_flow_tiny)
}
OFF = {
    "no flow attention": {"flow_attention": False},
    "no image features": {"image_features": False},
    "no uplifted labels": {"uplift_labels": False},
    "no free logits": {"free_logits": False},
}
"""what each part gives: settings of the model"""


def train(
    method: str,
    scene: Path,
    seed: int,
    steps: int | None = None,
    settings: dict | None = None,
    device: str = "cpu",
    before: Callable[[int, Pipeline], None] | None = None,
    **parser: str,
) -> tuple[Pipeline, tuple[float, float], tuple[float, float]]:
    """The pipeline of a finished training, and what it took: seconds to prepare and to train, wall and processor.

    Args:
        method: a key of `METHODS`.
        scene: folder.
        seed: of everything that is drawn.
        steps: of the preset by default.
        settings: of the model, changed.
        device: of torch.
        before: called before each step.
        parser: settings of the data parser, changed.
    """
    config = deepcopy(METHODS[method].config)
    manager = config.pipeline.datamanager
    manager.data = manager.dataparser.data = scene
    for target, values in ((config.pipeline.model, settings or {}), (manager.dataparser, parser)):
        for name, value in values.items():
            setattr(target, name, value)
    if steps is not None and method != "semantic-flow-tiny":
        config.pipeline.model.grow_until = config.pipeline.model.grow_until * steps // config.max_num_iterations
        for group in config.optimizers.values():
            group["scheduler"].max_steps = steps
    for seeded in (torch.manual_seed, random.seed, np.random.seed):
        seeded(seed)
    clock = Clock()
    pipeline = config.pipeline.setup(device=device, test_mode="val")
    groups = pipeline.get_param_groups()
    optimizers = Optimizers({name: config.optimizers[name] for name in groups}, groups)
    attributes = TrainingCallbackAttributes(optimizers=optimizers, grad_scaler=None, pipeline=pipeline, trainer=None)
    callbacks = pipeline.get_training_callbacks(attributes)
    prepared = clock.lap()
    pipeline.train()
    for step in track(range(steps or config.max_num_iterations), description=method, transient=True):
        if before is not None:
            before(step, pipeline)
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        optimizers.zero_grad_all()
        _, losses, _ = pipeline.get_train_loss_dict(step)
        sum(losses.values()).backward()
        optimizers.optimizer_step_all()
        for scheduler in optimizers.schedulers.values():
            scheduler.step()
    trained = clock.lap()
    pipeline.state_dict()  # what is worked out for a checkpoint
    return pipeline.eval(), prepared, trained


class Clock:
    """Wall and processor seconds since the last lap."""

    def __init__(self) -> None:
        self.lap()

    def lap(self) -> tuple[float, float]:
        """(wall, processor) seconds; starts anew."""
        now = time.perf_counter(), time.process_time()
        before, self._last = getattr(self, "_last", now), now
        return now[0] - before[0], now[1] - before[1]


@torch.no_grad()
def judge(pipeline, scene: Path) -> dict[str, float]:
    """Held-out views: PSNR and mIoU; frames of the video without a label: mIoU; seconds of a picture."""
    model, held = pipeline.model, pipeline.datamanager.eval_dataset
    training = pipeline.datamanager.train_dataset
    everything = SceneDataset(SemfieldDataParserConfig(data=scene).setup().get_dataparser_outputs("train"))
    classes = len(model.label_map)
    found, unlabelled, errors, clock = ConfusionMatrix(classes), ConfusionMatrix(classes), [], Clock()
    for index in range(len(held)):
        raw = model.raw_outputs_for_camera(held.cameras[index : index + 1])
        errors.append(float((raw["rgb"].clamp(0, 1).cpu() - held[index]["image"][..., :3]).square().mean()))
        found.update(raw["logits"].argmax(dim=-1).cpu(), held.semantics(index)[..., 0])
    seconds = clock.lap()[0] / len(held)
    for index in set(range(len(training))) - set(training.metadata["labelled"]):
        raw = model.raw_outputs_for_camera(training.cameras[index : index + 1])
        unlabelled.update(raw["logits"].argmax(dim=-1).cpu(), everything.semantics(index)[..., 0])
    return {
        "psnr": float(np.mean(-10 * np.log10(errors))),
        "miou": found.miou,
        "unlabelled": unlabelled.miou if unlabelled.total else float("nan"),
        "picture": seconds,
    }


def main(
    scenes: tuple[str, ...] = ("demo", "demo-b", "fast", "thin"),
    seeds: int = 3,
    labels: str = "every-2",
    width: int = 160,
    height: int = 120,
    steps: int | None = None,
    field: bool = True,
    ablations: bool = False,
    results: Path = Path("outputs/benchmarks/gaussians.json"),
) -> None:
    """Train, judge, print.

    Args:
        scenes: Synthetic scenes.
        seeds: Of the trainings.
        labels: Which frames show their labels.
        width: Of the pictures.
        height: Of the pictures.
        steps: Of the training on Gaussians; those of the preset by default.
        field: The radiance field too, with one seed.
        ablations: Rows without each part of the semantics too, with one seed.
        results: JSON file of the rows.
    """
    rows = json.loads(results.read_text()) if results.is_file() else {}
    jobs = [(name, "semantic-flow-splat-tiny", "", seed) for seed in range(seeds) for name in scenes]
    jobs += [(name, "semantic-flow-splat-tiny", part, 0) for part in OFF for name in scenes] if ablations else []
    jobs += [(name, "semantic-flow-tiny", "", 0) for name in scenes] if field else []
    for name, method, part, seed in jobs:
        key = f"{name} {width}x{height} {labels} {method} {part} {seed} {steps or ''}"
        if key in rows:
            continue
        scene = results.parent / f"{name}-{width}x{height}"
        if not scene.is_dir():
            write_scene(name, scene, width=width, height=height)
        own = steps if method == "semantic-flow-splat-tiny" else None
        pipeline, prepared, trained = train(method, scene, seed, own, OFF.get(part), labels=labels)
        rows[key] = {
            "scene": name,
            "method": f"{method} {part}".strip(),
            **judge(pipeline, scene),
            **dict(zip(("prepare wall", "prepare cpu"), prepared, strict=True)),
            **dict(zip(("train wall", "train cpu"), trained, strict=True)),
        }
        results.parent.mkdir(parents=True, exist_ok=True)
        write_json(results, rows)
    print(table([rows[key] for key in rows if key.split(" ")[0] in scenes]))
    print(f"\n{machine()}")


def table(rows: list[dict]) -> str:
    """One line for each scene and method."""
    columns = ("psnr", "miou", "unlabelled", "train wall", "train cpu", "prepare cpu", "picture")
    lines = [
        "| scene | method | runs | PSNR, dB | mIoU | mIoU of unlabelled frames | training, s | processor s | "
        "preparation, processor s | a picture, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, method in dict.fromkeys((row["scene"], row["method"]) for row in rows):
        own = [row for row in rows if (row["scene"], row["method"]) == (name, method)]
        cells = []
        for column in columns:
            values = np.array([row[column] for row in own])
            digits = 3 if column in ("miou", "unlabelled", "picture") else 1
            spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}")
        lines.append(f"| {name} | {method} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
