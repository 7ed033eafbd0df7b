"""First mask to all masks on videos of DAVIS: `python benchmarks/davis.py JPEGImages_AND_Annotations OUTPUT`.

For each video the mask of the first frame is given. J, F and J&F are those of DAVIS (mean over all frames but the first
and the last). Beside semfield's tracking: the first mask copied, the first mask looked up by chained flow, the nearest
features of the first frame alone, and, where its weights are on this machine, SAM 2. What is done is kept in OUTPUT and
not done again. With --process, each video also goes through `semfield process`; with --train, it does so with the mask
of the first frame, followed, and `semantic-flow-splat-tiny` is trained on the scene: PSNR, J and F of its own frames.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import gaussians
import numpy as np
import torch
import tyro
from training import machine
from video_segmentation import video_labels

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_image, read_json, write_json, write_png
from semfield_ns.metrics.instances import boundary_accuracy, region_similarity
from semfield_ns.scenes.flow import estimate_flow, follow
from semfield_ns.teachers.registry import build_teacher
from semfield_ns.tracking.features import FrameFeatures
from semfield_ns.tracking.matching import Memory, distances, margins
from semfield_ns.tracking.pictures import Pictures
from semfield_ns.tracking.tracker import GIVEN_REACH, Tracked, Tracker, label_image, one_hot, resized

CHOSEN_ON = ("blackswan", "breakdance", "camel", "dance-twirl", "motocross-jump")
"""videos on which settings were chosen"""
COLUMNS = 5
"""pictures on a row of a contact sheet"""

Mask = np.ndarray
Masks = Iterator[tuple[int, Mask]]


def main(
    data: Path,
    output: Path,
    /,
    videos: tuple[str, ...] = (),
    every: int = 1,
    process: bool = False,
    train: bool = False,
    frames: int = 40,
    max_size: int = 480,
) -> None:
    """Track, compare, print.

    Args:
        data: Folder with JPEGImages/VIDEO and Annotations/VIDEO.
        output: Folder for results, contact sheets and scenes.
        videos: Of these only; all by default.
        every: Compare every so many frames.
        process: Also make a scene of each video, with `semfield process`.
        train: Also train on a scene of each video.
        frames: Of a scene, at most.
        max_size: Of a scene, px.
    """
    names = list(videos) or sorted(folder.name for folder in (data / "JPEGImages").iterdir())
    for name in names:
        file = output / f"{name}.json"
        found = read_json(file) if file.is_file() else {}
        pictures = Pictures(sorted((data / "JPEGImages" / name).glob("*.jpg")))
        truth = [np.array(read_image(path)) > 0 for path in sorted((data / "Annotations" / name).glob("*.png"))]
        for method, run in METHODS.items():
            if method not in found and (row := measured(run, pictures, truth, every, output / f"{name}.jpg")):
                found[method] = row
                write_json(file, found)
                print(f"{name:20} {method:16} J {row['J']:.3f}  F {row['F']:.3f}  {row['seconds']:.0f} s", flush=True)
        if process and "process" not in found:
            found["process"] = processed(pictures, truth, output / "scenes" / name, frames, max_size)
            write_json(file, found)
            print(f"{name:20} process {json.dumps(found['process'])}", flush=True)
        if train and "trained" not in found:
            found["trained"] = trained(pictures, truth, output / "trained" / name, frames, max_size)
            write_json(file, found)
            print(f"{name:20} trained {json.dumps(found['trained'])}", flush=True)
    print(table({name: read_json(output / f"{name}.json") for name in names}))
    print(f"\n{machine()}")


def copied(pictures: Pictures, first: Mask) -> Masks:
    """The first mask everywhere."""
    return ((number, first) for number in range(len(pictures)))


def chained(pictures: Pictures, first: Mask) -> Masks:
    """The first mask, looked up along the flow from frame to frame."""
    size = 480, round(480 * first.shape[0] / first.shape[1])
    small = cv2.resize(first.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    flows: list[np.ndarray] = []
    before = cv2.resize(pictures[0], size, interpolation=cv2.INTER_AREA)
    for number in range(1, len(pictures)):
        now = cv2.resize(pictures[number], size, interpolation=cv2.INTER_AREA)
        flows.insert(0, estimate_flow(now, before))
        columns, rows, _ = follow(((flow, None) for flow in flows), small.shape)
        found = small[rows, columns]
        yield number, cv2.resize(found, first.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        before = now


def by_features(pictures: Pictures, first: Mask) -> Masks:
    """The nearest features of the first frame."""
    features = FrameFeatures(pictures, build_teacher("lite"))
    apart = distances(*features.size)
    known = torch.from_numpy(one_hot(first.astype(np.int64), 2, features.size)).flatten(0, 1)
    memory = Memory(features(0).flatten(0, 1), known, GIVEN_REACH * max(features.size))
    for number in range(1, len(pictures)):
        told = margins(features(number).flatten(0, 1), [memory], apart)
        yield number, resized(told.reshape(*features.size, 2).numpy(), first.shape, cv2.INTER_CUBIC).argmax(-1) > 0


def tracked(pictures: Pictures, first: Mask) -> Masks:
    """What `semfield track` does."""
    features = FrameFeatures(pictures, build_teacher("lite"))
    for found in Tracker(pictures, {0: first.astype(np.int64)}, 2, features).run():
        assert isinstance(found, Tracked)
        yield found.number, label_image(found.probabilities, first.shape) > 0


def by_sam(pictures: Pictures, first: Mask) -> Masks:
    """SAM 2, where its weights are."""
    labels = [first.astype(np.int64), *[None] * (len(pictures) - 1)]
    return ((number, found > 0) for number, found in enumerate(video_labels(list(pictures), labels, [0], 2)))


METHODS: dict[str, Callable[[Pictures, Mask], Masks]] = {
    "copied": copied,
    "chained flow": chained,
    "features alone": by_features,
    "semfield track": tracked,
    "SAM 2": by_sam,
}


def measured(
    run: Callable[[Pictures, Mask], Masks], pictures: Pictures, truth: list[Mask], every: int, sheet: Path
) -> dict[str, float]:
    """J, F and seconds of a method; empty where its weights are missing."""
    start, used = time.perf_counter(), time.process_time()
    wanted = set(range(1, len(truth) - 1, every))
    scores, spent, cells = [], 0.0, []
    shown = {round(n) for n in np.linspace(1, len(truth) - 2, 2 * COLUMNS)}
    try:
        for number, mask in run(pictures, truth[0]):
            paused = time.perf_counter()
            if number in wanted:
                scores.append((region_similarity(mask, truth[number]), boundary_accuracy(mask, truth[number])))
            if run is tracked and number in shown:
                cells.append(outlined(pictures[number], mask, truth[number]))
            spent += time.perf_counter() - paused
    except SemfieldError as error:
        print(error, file=sys.stderr)
        return {}
    if cells:
        rows = [np.concatenate(cells[i : i + COLUMNS], axis=1) for i in range(0, len(cells), COLUMNS)]
        cv2.imwrite(
            str(sheet), cv2.cvtColor(np.concatenate([r for r in rows if r.shape == rows[0].shape]), cv2.COLOR_RGB2BGR)
        )
    j, f = np.mean(scores, axis=0)
    seconds = time.perf_counter() - start - spent
    return {"J": float(j), "F": float(f), "seconds": seconds, "processor": time.process_time() - used - spent}


def outlined(rgb: np.ndarray, mask: Mask, truth: Mask, width: int = 320) -> np.ndarray:
    """The picture with the mask in red and the outline of the truth in green."""
    edge = cv2.morphologyEx(truth.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    painted = np.where(mask[..., None], (rgb // 2 + np.array([127, 0, 0])).astype(np.uint8), rgb)
    painted = np.where(edge[..., None], np.array([0, 255, 0], np.uint8), painted)
    return cv2.resize(painted, (width, round(width * rgb.shape[0] / rgb.shape[1])), interpolation=cv2.INTER_AREA)


def made(
    pictures: Pictures, scene: Path, frames: int, max_size: int, *options: str
) -> tuple[subprocess.CompletedProcess[str], float]:
    """`semfield process` of the video as mp4: how it ended, and its seconds."""
    scene.parent.mkdir(parents=True, exist_ok=True)
    video = scene.parent / f"{scene.name}.mp4"
    pattern = pictures.files[0].parent / "%05d.jpg"
    encode = ["ffmpeg", "-y", "-loglevel", "error", "-framerate", "24", "-i", str(pattern), "-pix_fmt", "yuv420p"]
    subprocess.run([*encode, str(video)], check=True)
    command = [str(Path(sys.executable).parent / "semfield"), "process", str(video), "--output-dir", str(scene)]
    command += ["--num-frames", str(frames), "--max-size", str(max_size), *options]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    return done, time.perf_counter() - start


@torch.no_grad()
def own_frames(pipeline, scene: Path, truth: list[Mask]) -> dict[str, float]:
    """PSNR, J and F of the frames that a scene was trained on, but for the first, whose mask was given."""
    picked = read_json(scene / ".process" / "frames.json")["frames"]
    data = pipeline.datamanager.train_dataset
    errors, scores, followed = [], [], []
    for place, frame in enumerate(data.metadata["frames"]):
        number = picked[int(frame.image_path.stem)]["index"]
        raw = pipeline.model.raw_outputs_for_camera(data.cameras[place : place + 1])
        errors.append(float((raw["rgb"].clamp(0, 1) - data[place]["image"][..., :3]).square().mean()))
        if 0 < number < len(truth) - 1:
            size = truth[number].shape[::-1]
            drawn, given = (
                cv2.resize((ids.numpy() == 1).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
                for ids in (raw["logits"].argmax(-1), data.semantics(place)[..., 0])
            )
            scores.append([measure(drawn, truth[number]) for measure in (region_similarity, boundary_accuracy)])
            followed.append([measure(given, truth[number]) for measure in (region_similarity, boundary_accuracy)])
    (j, f), (label_j, label_f) = np.mean(scores, axis=0), np.mean(followed, axis=0)
    return {
        "psnr": float(np.mean(-10 * np.log10(errors))),
        "J": float(j),
        "F": float(f),
        "labels J": float(label_j),
        "labels F": float(label_f),
    }


def trained(pictures: Pictures, truth: list[Mask], scene: Path, frames: int, max_size: int) -> dict[str, object]:
    """A scene of the video with the first mask, followed; and what its own frames look like after training."""
    given = scene.parent / f"{scene.name}_first.png"
    write_png(given, truth[0].astype(np.uint8) * 255)
    done, seconds = made(pictures, scene, frames, max_size, "--labels", str(given), "--follow-labels")
    row: dict[str, object] = {"process seconds": seconds}
    if done.returncode:
        return row | {"refused": done.stderr.strip().splitlines()[-1:]}
    pipeline, _, (wall, processor) = gaussians.train("semantic-flow-splat-tiny", scene, 0)
    return row | {"seconds": wall, "processor": processor} | own_frames(pipeline, scene, truth)


def processed(pictures: Pictures, truth: list[Mask], scene: Path, frames: int, max_size: int) -> dict[str, object]:
    """What `semfield process` makes of the video: its kind, frames with a pose, and what it says moves."""
    done, seconds = made(pictures, scene, frames, max_size)
    row: dict[str, object] = {"seconds": seconds}
    if done.returncode:
        return row | {"refused": done.stderr.strip().splitlines()[-1:]}
    content, picked = read_json(scene / "transforms.json"), read_json(scene / ".process" / "frames.json")["frames"]
    ious, shares = [], []
    for number, frame in enumerate(picked):
        file = scene / "masks" / f"{number:04d}.png"
        if file.is_file():
            mask = np.array(read_image(file)) > 0
            known = cv2.resize(truth[frame["index"]].astype(np.uint8), mask.shape[::-1]) > 0
            ious.append(region_similarity(mask, known))
            shares.append(float(mask.mean()))
    mean = lambda values: float(np.mean(values)) if values else float("nan")  # noqa: E731
    row |= {"kind": content.get("camera_motion", "moving"), "registered": len(content["frames"]), "picked": len(picked)}
    return row | {"mask_iou": mean(ious), "moving_share": mean(shares)}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row a video, and the means: of all, and of those on which nothing was chosen."""
    methods = [m for m in METHODS if any(m in found for found in results.values())]
    lines = ["| video | " + " | ".join(f"{m}: J / F / J&F" for m in methods) + " | s |"]
    lines.append("|---" * (len(methods) + 2) + "|")
    cell = lambda j, f: f"{j:.3f} / {f:.3f} / {(j + f) / 2:.3f}"  # noqa: E731
    for name, found in results.items():
        row = [cell(found[m]["J"], found[m]["F"]) if m in found else "-" for m in methods]
        seconds = found.get("semfield track", {}).get("seconds", float("nan"))
        lines.append(f"| {name}{' *' * (name in CHOSEN_ON)} | " + " | ".join(row) + f" | {seconds:.0f} |")
    groups = {"mean": list(results), "mean of the others than *": [n for n in results if n not in CHOSEN_ON]}
    for title, names in groups.items():
        row = []
        for m in methods:
            known = [results[n][m] for n in names if m in results[n]]
            row.append(cell(*np.mean([(k["J"], k["F"]) for k in known], axis=0)) if known else "-")
        lines.append(f"| {title} | " + " | ".join(row) + " | |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
