"""Does training on a processed video lose anything against training on the scene that the video was made of?

    python benchmarks/process_training.py SCENE [SCENE..] --labels every-2 --keep FOLDER

Each scene's images become an mp4 (benchmarks/process.py), which `semfield process` turns into a scene again, with the
labels of the scheduled frames and nothing else. Then the tiny preset is trained on that scene, and on the same pictures
and labels with all that was given with the scene (poses, depth, flow, motion masks); optionally also with the given
poses only. Same seed, same steps.

Prints one Markdown table: dataset mIoU and mean PSNR on the video frames whose labels no training saw, and, where the
scene has such, on held-out views of other cameras (brought to the found poses by one similarity), with their poses as
they are, and registered to what the model shows (view_registration.py). What is finished, trained models too, is kept
in FOLDER and not done again.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import gaussians
import numpy as np
import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from process import make_video, similarity
from training import Job, machine, train
from view_registration import registered

from semfield_ns.cli.process import process
from semfield_ns.io import atomic_path, read_image, read_json, write_json, write_png
from semfield_ns.metrics.confusion import ConfusionMatrix
from semfield_ns.process.frames import frame_name
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig, scheduled
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.formats.transforms import write_transforms
from semfield_ns.scenes.scene import Frame, Scene, assemble_scene

Variant = Literal["given", "given poses", "found"]
Method = Literal["semantic-flow-tiny", "semantic-flow-splat-tiny"]
Place = Callable[[Any, Cameras, np.ndarray], Cameras]
"""model, camera, picture -> the camera to render from"""
TITLES: dict[Variant, str] = {
    "given": "poses, depth, flow, masks as given",
    "given poses": "given poses, the rest found",
    "found": "everything found",
}


@dataclass
class Result:
    """NaN where there is nothing to measure."""

    seconds: float
    miou: float = float("nan")
    psnr: float = float("nan")
    held_out_miou: float = float("nan")
    held_out_psnr: float = float("nan")
    registered_miou: float = float("nan")
    registered_psnr: float = float("nan")


def write_labels(truth: Scene, schedule: str, folder: Path) -> list[int]:
    """The scheduled labels as PNGs of class ids, named by the number of the frame in the video; returns the numbers."""
    assert truth.label_map is not None, "the scene has labels"
    shutil.rmtree(folder, ignore_errors=True)
    shown = [n for n, show in enumerate(scheduled(truth, schedule)) if show and truth.train[n].semantic_path]
    for number in shown:
        frame = truth.train[number]
        ids = truth.label_map.read(frame.semantic_path, frame.size, frame.where)
        write_png(folder / f"frame_{number}.png", np.where(ids < 0, truth.label_map.ignore_index, ids).astype(np.uint8))
    write_json(folder / "classes.json", truth.label_map.to_transforms())
    return shown


def pairs_of(found: Scene, folder: Path, truth: Scene) -> list[tuple[int, Frame, Frame]]:
    """(number in the video, found frame, given frame) of each frame with a pose."""
    picked = read_json(folder / ".process" / "frames.json")["frames"]
    index = {f"{frame_name(n)}.png": entry["index"] for n, entry in enumerate(picked)}
    numbers = [index[frame.image_path.name] for frame in found.train]
    return [(n, frame, truth.train[n]) for n, frame in zip(numbers, found.train, strict=True)]


def given_scene(truth: Scene, pairs: list[tuple[int, Frame, Frame]], folder: Path) -> None:
    """The scene as it was given, but with the pictures that came out of the video."""
    frames = [replace(given, image_path=found.image_path) for _, found, given in pairs]
    fields = {"near": truth.near, "far": truth.far, "points": truth.points}
    fields |= {"depth_kind": truth.depth_kind, "depth_unit_scale": truth.depth_unit_scale}
    scene = assemble_scene(folder, frames, truth.test, label_map=truth.label_map, **fields)
    folder.mkdir(parents=True, exist_ok=True)
    write_transforms(scene, folder)


def found_scene(found: Scene, pairs: list[tuple[int, Frame, Frame]], truth: Scene, folder: Path) -> None:
    """The processed scene with all labels (the schedule hides them from training again) and the held-out views."""
    mine, given = (np.stack([pair[i].c2w for pair in pairs]) for i in (1, 2))
    scale, rotation = similarity(mine, given)
    centre, given_centre = mine[:, :3, 3].mean(0), given[:, :3, 3].mean(0)
    held_out = []
    for frame in truth.test:
        c2w = np.eye(4)
        c2w[:3, :3] = rotation.T @ frame.c2w[:3, :3]
        c2w[:3, 3] = centre + rotation.T @ (frame.c2w[:3, 3] - given_centre) / scale
        # A time of the video is that of the frame that shows it.
        time = np.interp(frame.time, [g.time for _, _, g in pairs], [f.time for _, f, _ in pairs])
        held_out.append(replace(frame, c2w=c2w, time=float(time), depth_path=None))
    frames = [replace(f, semantic_path=g.semantic_path) for _, f, g in pairs]
    fields = {"depth_kind": found.depth_kind, "depth_unit_scale": found.depth_unit_scale, "points": found.points}
    scene = assemble_scene(folder, frames, held_out, label_map=truth.label_map, **fields)
    folder.mkdir(parents=True, exist_ok=True)
    write_transforms(scene, folder)


def as_given(model, camera: Cameras, picture: np.ndarray) -> Cameras:
    """The camera as it is."""
    return camera


@torch.no_grad()
def measure(
    model, scene: Path, labels: str, eval_frames: str, shrink: int, place: Place = as_given, most: int = 12
) -> tuple[float, float]:
    """Dataset mIoU and mean PSNR of frames that training did not see the labels of, rendered at 1/shrink of the size.

    place: the camera to render from; most: frames, evenly spaced. NaN where there are none.
    """
    try:
        config = SemfieldDataParserConfig(data=scene, labels=labels, eval_frames=eval_frames, downscale_factor=shrink)
        outputs = config.setup().get_dataparser_outputs("val")
    except ValueError:
        return float("nan"), float("nan")
    frames, label_map = outputs.metadata["frames"], outputs.metadata["label_map"]
    matrix, errors = ConfusionMatrix(len(label_map)), []
    for i in range(0, len(frames), -(-len(frames) // most)):
        frame = frames[i]
        shown = read_image(frame.image_path).convert("RGB").resize((frame.width, frame.height), Image.Resampling.BOX)
        picture = np.array(shown, dtype=np.float32) / 255
        rendered = model.get_outputs_for_camera(place(model, outputs.cameras[i : i + 1], picture))
        errors.append(np.square(rendered["rgb"].numpy() - picture).mean())
        ids = label_map.read(frame.semantic_path, frame.size, frame.where, resize=True)
        matrix.update(rendered["semantics"][..., 0].long(), ids)
    return matrix.miou, float(np.mean(-10 * np.log10(errors)))


def trained(method: Method, job: Job, file: Path):
    """As `train`, but what the file keeps of an earlier run is not trained again; Gaussians are not kept."""
    if method == "semantic-flow-splat-tiny":
        parser = {"labels": job.labels, "dynamic_masks": job.dynamic_masks}
        pipeline, _, (seconds, _) = gaussians.train(method, job.scene, job.seed, job.steps, **parser)
        return pipeline, seconds
    steps = job.config().max_num_iterations
    if file.is_file():
        kept = torch.load(file, weights_only=True)
        pipeline = job.config().pipeline.setup(device="cpu", test_mode="val")
        pipeline.load_pipeline(kept["pipeline"], steps)
        return pipeline.eval(), kept["seconds"]
    pipeline, seconds = train(job)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        torch.save({"pipeline": pipeline.state_dict(), "seconds": seconds}, temporary)
    return pipeline, seconds


def run(
    truth: Scene,
    variant: Variant,
    method: Method,
    labels: str,
    masks: str,
    steps: int | None,
    seed: int,
    shrink: int,
    root: Path,
) -> Result:
    """One row: process if that is not done, train, measure."""
    video, folder = root / "video.mp4", root / ("processed, given poses" if variant == "given poses" else "processed")
    root.mkdir(parents=True, exist_ok=True)
    write_labels(truth, labels, root / "labels")
    if not video.is_file():
        make_video(truth, video)
    poses = None
    if variant == "given poses":
        poses = write_transforms(replace(truth, test=[]), root)
    process(
        video, folder, num_frames=len(truth.train), models="classical", labels=root / "labels", poses=poses, threads=1
    )
    found = read_scene(folder)
    pairs = pairs_of(found, folder, truth)
    scene = root / f"scene, {variant}"
    if variant == "given":
        given_scene(truth, pairs, scene)
    else:
        found_scene(found, pairs, truth, scene)
    shown = {n for n, show in enumerate(scheduled(truth, labels)) if show}
    numbers = ",".join(str(i) for i, (n, _, _) in enumerate(pairs) if n in shown)
    # Motion masks of a processed scene saw no label but those that training sees.
    policy = masks if variant == "given" else "all"
    name = f"{variant}, {labels}, {masks}, {steps} steps, seed {seed}.pt"
    job = Job(scene, numbers, policy, "flow", seed, steps)  # type: ignore[arg-type]
    pipeline, seconds = trained(method, job, root / "results" / name)
    figures: list[float] = []
    for kind, place in (("unlabelled", as_given), ("held-out", as_given), ("held-out", registered)):
        figures += measure(pipeline.model, scene, numbers, kind, shrink, place)
    return Result(seconds, *figures)


def main(
    scenes: tuple[Path, ...],
    /,
    keep: Path,
    labels: str = "every-2",
    dynamic_masks: Literal["all", "labelled"] = "all",
    variants: tuple[Variant, ...] = ("given", "found"),
    methods: tuple[Method, ...] = ("semantic-flow-tiny", "semantic-flow-splat-tiny"),
    steps: int | None = None,
    seeds: tuple[int, ...] = (0,),
    shrink: int = 2,
) -> None:
    """See the top of this file.

    Args:
        scenes: Folders of scenes with poses and labels; sides of the images must be even.
        keep: Where videos, scenes and results stay.
        labels: Which frames show their labels.
        dynamic_masks: Which of the given motion masks training may read; "labelled" where they were made from labels.
        variants: Rows.
        methods: Rows of each of these.
        steps: Training steps, of the preset by default; stage 1 keeps its share.
        seeds: One run each.
        shrink: Renders are compared at 1/shrink of the size, up to 12 of each kind.
    """
    rows = []
    for path in scenes:
        truth = read_scene(path)
        for variant, method, seed in product(variants, methods, seeds):
            root = keep / path.resolve().name
            file = root / "results" / f"{variant}, {method}, {labels}, {dynamic_masks}, {steps} steps, seed {seed}.json"
            if not file.is_file():
                result = asdict(run(truth, variant, method, labels, dynamic_masks, steps, seed, shrink, root))
                write_json(file, {name: value for name, value in result.items() if value == value})
            rows.append((path.resolve().name, f"{TITLES[variant]}, {method}", seed, Result(**read_json(file))))
    print(f"\nlabels {labels}; {machine()}\n")
    print("| scene | trained with | seed | mIoU | PSNR, dB | held-out mIoU | PSNR | registered mIoU | PSNR | seconds |")
    print("|" + "---|" * 10)
    for name, title, seed, result in rows:
        values = astuple(result)[1:]
        cells = ["-" if v != v else f"{v:.{2 if i % 2 else 3}f}" for i, v in enumerate(values)]
        print(f"| {name} | {title} | {seed} | {' | '.join(cells)} | {result.seconds:.0f} |")


if __name__ == "__main__":
    tyro.cli(main)
