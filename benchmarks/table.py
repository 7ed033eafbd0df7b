"""Completion and tracking on synthetic and real scenes, with every baseline: the table of docs/results.md.

    python benchmarks/table.py --data FOLDER_OF_REAL_SCENES

Each run's result is a small JSON file in benchmarks/results/table, named by what was run; a run whose file is there is
not done again. So the command can be stopped at any time and resumes, on another machine too. At the end,
and with `--report-only` at once, it prints the tables.

Completion: labels in both ends of every 12 frames. Tracking: labels in the first frames. Scored are the frames whose
labels were hidden, by dataset mIoU, on a regular grid of their pixels (the same for every method).
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import gaussians
import numpy as np
import torch
import tyro
from training import Job, machine, train
from video_segmentation import video_labels

from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.run import Truth, score
from semfield_ns.io import write_json
from semfield_ns.labelling.baselines import chained_flow, nearest_labelled
from semfield_ns.labelling.classifier import linear_head
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow.datamanager import FlowDataset

Untrained = Literal["nearest", "chained", "linear", "evidence", "sam2"]
OnRays = Literal["point", "point-carried", "flow", "field"]
OnGaussians = Literal["splat", "splat-short", "splat-no-attention", "splat-no-features", "splat-no-uplift"]
Method = Untrained | OnRays | OnGaussians
SHORT = 300
"""steps of trainings that are compared with "splat-short"; "splat" trains as long as the preset does"""
OFF = {
    "splat": {},
    "splat-short": {},
    "splat-no-attention": {"flow_attention": False},
    "splat-no-features": {"image_features": False},
    "splat-no-uplift": {"uplift_labels": False},
}
"""settings of the model of the rows on Gaussians"""
ON_GAUSSIANS = dict.fromkeys(OFF, 4)
VERSIONS = {"evidence": 3, "flow": 5, "field": 5, "point-carried": 4, **ON_GAUSSIANS}
"""of what a run of a method does, 1 where not named: raised so that older results are not taken for current ones"""
DATA = Path(os.environ.get("SEMFIELD_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "table"
NAMES: dict[str, str] = {
    "nearest": "nearest labelled frame, copied",
    "chained": "chained optical flow",
    "linear": "per-frame features, linear head",
    "evidence": "chained flow and a chosen classifier, each as far as it can be trusted; no field",
    "sam2": "SAM 2 video",
    "point": "point head, no flow",
    "point-carried": "point head, carried labels as targets",
    "flow": "**Semantic Flow**",
    "splat": "**Semantic Flow on Gaussians**",
    "splat-short": "the same, 300 steps",
    "splat-no-attention": "300 steps, without flow attention",
    "splat-no-features": "300 steps, without image features",
    "splat-no-uplift": "300 steps, without uplifted labels",
}


@dataclass(frozen=True)
class Scene:
    """A scene of the table, and how much work it is given."""

    name: str
    folder: str | None = None
    """of a real scene, in the folder of real scenes"""
    masks: Literal["all", "labelled", "none"] = "all"
    """motion masks that training may read; they would leak labels where they were made from them"""
    width: int = 96
    """of a synthetic scene, px; it is 3/4 as high"""
    steps: int = 200
    rays: int = 512
    grid: int = 2
    """distance of the scored pixels, in each direction"""


SYNTHETIC = tuple(Scene(name) for name in ("demo", "demo-b", "fast", "thin"))
REAL = (
    Scene("Balloon1", "semantic_nvidia/Balloon1", steps=250, grid=5),
    Scene("CamVid", "camvid_street", "labelled", steps=250, grid=8),
)
SCENES = (*SYNTHETIC, *REAL)
TASKS = {"completion": "scattered", "tracking": "first"}
SEEDED = ("demo", "fast")


@dataclass(frozen=True)
class Run:
    """One number of the table; equal runs are the same run."""

    scene: Scene
    labels: str
    method: Method
    seed: int = 0

    @property
    def recipe(self) -> dict:
        """Everything that the result depends on."""
        return asdict(self) | {"version": VERSIONS.get(self.method, 1)}

    @property
    def trained(self) -> bool:
        """Whether a field is trained for it."""
        return self.method in ("flow", "field", "point", "point-carried", *OFF)

    @property
    def file(self) -> Path:
        """Of the result."""
        return RESULTS / f"{self.scene.name}_{self.labels.replace('%', '')}_{self.method}_{self.seed}.json"

    def result(self) -> dict | None:
        """What was found, if it was found for exactly this run."""
        if not self.file.is_file():
            return None
        stored = json.loads(self.file.read_text(encoding="utf-8"))
        return stored if stored["run"] == self.recipe else None


def plan() -> Iterator[Run]:
    """All runs, the most telling ones first."""
    quarter = [f"{prefix}-25%" for prefix in TASKS.values()]
    for labels in quarter:
        for scene in SCENES:
            for method in ("nearest", "chained", "linear", "evidence", "sam2"):
                yield Run(scene, labels, method)
    for method in OFF:
        for labels in quarter:
            for scene in SCENES:
                yield Run(scene, labels, method)
    for labels in quarter:
        for scene in SCENES:
            yield Run(scene, labels, "flow")
        for scene in SCENES:
            yield Run(scene, labels, "point")
    for share in (50, 75):
        for prefix in TASKS.values():
            for scene in SCENES:
                yield Run(scene, f"{prefix}-{share}%", "flow")
                yield Run(scene, f"{prefix}-{share}%", "chained")
    for seed in (1, 2):
        for labels in quarter:
            for scene in SCENES:
                if scene.name in SEEDED:
                    yield Run(scene, labels, "flow", seed)
                    yield Run(scene, labels, "point", seed)
    for labels in quarter:
        for scene in SCENES:
            yield Run(scene, labels, "point-carried")


# --- one run ---------------------------------------------------------------------------------------------------------


def execute(run: Run, data: Path, cache: Path, folder: Path | None = None) -> dict:
    """Does a run; returns what is stored of it.

    Args:
        run: what to do.
        data: folder of the real scenes.
        cache: where synthetic scenes are written.
        folder: of the scene, where it is neither.
    """
    start = time.perf_counter()
    folder = folder or scene_folder(run.scene, data, cache)
    try:
        row, seconds = (_trained if run.trained else _untrained)(run, folder)
    except SemfieldError as error:
        return {"run": run.recipe, "skipped": str(error)}
    figures = {key: value for key, value in asdict(row).items() if isinstance(value, float) and value == value}
    return {
        "run": run.recipe,
        **{key: round(value, 5) for key, value in figures.items()},
        "training_seconds": round(seconds),
        "seconds": round(time.perf_counter() - start),
        "machine": machine(),
        "date": str(date.today()),
    }


def scene_folder(scene: Scene, data: Path, cache: Path) -> Path:
    """Of a real scene, which may not be there; of a synthetic one, which is written if needed."""
    if scene.folder is not None:
        return data / scene.folder
    height = scene.width * 3 // 4
    return write_scene(scene.name, cache / f"{scene.name}-{scene.width}", width=scene.width, height=height)


def _trained(run: Run, folder: Path):
    if run.method in OFF:
        return _trained_gaussians(run, folder)
    scene = run.scene
    job = Job(
        folder,
        run.labels,
        scene.masks,
        head="flow" if run.method in ("flow", "field") else "point",
        seed=run.seed,
        steps=scene.steps,
        rays=scene.rays,
        carry=run.method != "point",
        evidence=run.method == "flow",
        eval_frames="unlabelled",
    )
    pipeline, seconds = train(job)
    return score(run.method, *predict(pipeline, scene.grid)), seconds


def _trained_gaussians(run: Run, folder: Path):
    pipeline, _, (seconds, _) = gaussians.train(
        "semantic-flow-splat-tiny",
        folder,
        run.seed,
        None if run.method == "splat" else SHORT,
        OFF[run.method],
        labels=run.labels,
        dynamic_masks=run.scene.masks,
        eval_frames="unlabelled",
    )
    manager, grid = pipeline.datamanager, run.scene.grid
    truth = _truth(manager.train_dataset, manager.eval_dataset, grid)
    found = {}
    for i, frame in enumerate(truth.labels):
        raw = pipeline.model.raw_outputs_for_camera(manager.eval_dataset.cameras[i : i + 1])
        found[frame] = raw["logits"].argmax(-1)[::grid, ::grid].numpy()
    return score(run.method, found, truth), seconds


def predict(pipeline, grid: int) -> tuple[dict[int, np.ndarray], Truth]:
    """Predicted and true classes of the evaluated frames, of every `grid`th pixel each way."""
    manager = pipeline.datamanager
    truth = _truth(manager.train_dataset, manager.eval_dataset, grid)
    cameras = {frame: manager.eval_dataset.cameras[i : i + 1] for i, frame in enumerate(truth.labels)}
    return {frame: _classes(pipeline.model, camera, grid) for frame, camera in cameras.items()}, truth


def _untrained(run: Run, folder: Path):
    config = Job(folder, run.labels, run.scene.masks, eval_frames="unlabelled").config()
    manager = config.pipeline.datamanager
    parser = manager.dataparser.setup()
    if run.method in ("linear", "evidence"):
        manager.propagate_labels = run.method == "evidence"
        training = manager.setup(device="cpu", test_mode="val").train_dataset
    else:
        training = FlowDataset(parser.get_dataparser_outputs("train"))
    truth = _truth(training, FlowDataset(parser.get_dataparser_outputs("val")), run.scene.grid)
    count, labelled = len(training), training.metadata["labelled"]
    labels = [training.semantics(i)[..., 0].numpy() if i in labelled else None for i in range(count)]
    classes = len(training.metadata["label_map"])
    if run.method == "nearest":
        found = nearest_labelled(labels, labelled, count)
    elif run.method == "chained":
        flows = [[training[i][key][..., :2].numpy() for i in range(count)] for key in ("flow_forward", "flow_backward")]
        found = chained_flow(labels, labelled, *flows)
    elif run.method == "evidence":
        found = training.propagated[..., 0].numpy().astype(np.int64)
    elif run.method == "linear":
        found = linear_head(training.metadata["source_features"], {i: labels[i] for i in labelled}, classes)
    else:
        images = [training.get_image_uint8(i).numpy() for i in range(count)]
        found = video_labels(images, labels, labelled, classes)
    grid = run.scene.grid
    return score(run.method, {frame: found[frame][::grid, ::grid] for frame in truth.labels}, truth), 0.0


def _truth(training: FlowDataset, evaluated: FlowDataset, grid: int) -> Truth:
    order = {frame.image_path: i for i, frame in enumerate(training.metadata["frames"])}
    frames = [order[frame.image_path] for frame in evaluated.metadata["frames"]]
    labels = {frame: evaluated.semantics(i)[::grid, ::grid, 0].numpy() for i, frame in enumerate(frames)}
    return Truth(labels, {}, evaluated.metadata["label_map"].dynamic)


@torch.no_grad()
def _classes(model, camera, grid: int) -> np.ndarray:
    bundle = camera.generate_rays(camera_indices=0, keep_shape=True)[::grid, ::grid]
    shape, rays = bundle.origins.shape[:2], model.collider(bundle.flatten())
    chunks = range(0, len(rays), model.config.eval_num_rays_per_chunk)
    found = [model.render(rays[i : i + model.config.eval_num_rays_per_chunk])["logits"].argmax(-1) for i in chunks]
    return torch.cat(found).reshape(shape).numpy()


# --- the tables ------------------------------------------------------------------------------------------------------


def report() -> str:
    """Markdown of everything that has been found so far; a dash is a run that has not been done."""
    done = {run: run.result() for run in plan()}
    parts = []
    for task, prefix in TASKS.items():
        parts.append(f"{task.capitalize()}, 25 % of the frames labelled, dataset mIoU on the others:\n")
        parts.append(_head("method"))
        for method, name in NAMES.items():
            parts.append(_row(name, [done.get(Run(scene, f"{prefix}-25%", method)) for scene in SCENES]))
        parts.append("")
    parts.append("More labels:\n")
    parts.append(_head("labels, method"))
    for task, prefix in TASKS.items():
        for share in (25, 50, 75):
            for method in ("chained", "flow"):
                cells = [done.get(Run(scene, f"{prefix}-{share}%", method)) for scene in SCENES]
                parts.append(_row(f"{task} {share} %, {NAMES[method]}", cells))
    parts += ["", "Three seeds at 25 %, mean and (smallest to largest):\n"]
    scenes = [scene for scene in SCENES if scene.name in SEEDED]
    parts.append(_line(["task, method", *(scene.name for scene in scenes)]))
    parts.append("|" + "---|" * (len(scenes) + 1))
    for task, prefix in TASKS.items():
        for method in ("point", "flow"):
            cells = []
            for scene in scenes:
                found = [done.get(Run(scene, f"{prefix}-25%", method, seed)) for seed in range(3)]
                values = [entry["miou"] for entry in found if entry]
                spread = f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else "-"
                cells.append(spread if len(values) != 2 else f"{spread}, two seeds")
            parts.append(_line([f"{task}, {NAMES[method]}", *cells]))
    finished = [entry for entry in done.values() if entry]
    minutes = sum(entry.get("seconds", 0) for entry in finished) / 60
    parts += ["", f"{len(finished)} of {len(done)} runs, {minutes:.0f} minutes in all."]
    return "\n".join(parts)


def _head(first: str) -> str:
    names = [scene.name for scene in SYNTHETIC], [scene.name for scene in REAL]
    return _line([first, *names[0], "synthetic mean", *names[1]]) + "\n|" + "---|" * (len(SCENES) + 2)


def _row(name: str, results: list[dict | None]) -> str:
    values = [float("nan") if not entry or "miou" not in entry else entry["miou"] for entry in results]
    mean = float(np.mean(values[: len(SYNTHETIC)]))
    shown = [*values[: len(SYNTHETIC)], mean, *values[len(SYNTHETIC) :]]
    return _line([name, *("-" if value != value else f"{value:.3f}" for value in shown)])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(
    data: Path = DATA,
    cache: Path = Path("outputs/table"),
    minutes: float = 240.0,
    report_only: bool = False,
) -> None:
    """Do what has not been done, then print the tables.

    Args:
        data: Folder of the real scenes; their rows are left out where it is not there.
        cache: Where the synthetic scenes are written.
        minutes: No run is begun after these.
        report_only: Print what is there.
    """
    end = time.monotonic() + 60 * minutes
    for run in plan():
        absent = run.scene.folder is not None and not (data / run.scene.folder).is_dir()
        if report_only or absent or time.monotonic() > end or run.result() is not None:
            continue
        found = execute(run, data, cache)
        if "skipped" not in found:
            write_json(run.file, found)
        print(
            f"{run.scene.name} {run.labels} {run.method} {run.seed}: {found.get('miou', found.get('skipped'))}",
            flush=True,
        )
    print(report())


if __name__ == "__main__":
    tyro.cli(main)
