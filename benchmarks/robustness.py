"""What errors of the given flow and poses do to mIoU: `python benchmarks/robustness.py --pictures docs/images`.

A synthetic scene is copied with noise in its flow files (smooth, its root mean square a part of the image's width) or
in its poses (the position by a part of the distance to the nearest content, the direction by as many radians), and
learned from labels in scattered frames, with `evidence` and without. As in the table, each run's result is a JSON file,
in benchmarks/results/robustness, and a run that is there is not done again.
"""

import json
import shutil
import time
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import tyro
from scipy.spatial.transform import Rotation
from table import DATA, Method, Run, Scene, execute
from training import machine

from semfield_ns.io import read_json, read_npz, write_json, write_npz
from semfield_ns.scenes.synthetic import write_scene

Kind = Literal["flow", "pose"]
RESULTS = Path(__file__).parent / "results" / "robustness"
LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1)
LABELS = "scattered-25%"
Curve = tuple[Kind, Method]
EVIDENCE: dict[Method, str] = {"flow": "with", "field": "without"}
CURVES: list[Curve] = [(kind, method) for method in EVIDENCE for kind in get_args(Kind)]
SMOOTH = 0.05
"""scale of the flow's noise, as a part of the width"""


def noisy(source: Path, target: Path, kind: Kind, level: float, seed: int = 0) -> Path:
    """A copy of a scene with noise; whole or not there."""
    if (target / "transforms.json").is_file():
        return target
    rng = np.random.default_rng([seed, round(level * 1000)])
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("transforms.json"))
    scene = read_json(source / "transforms.json")
    if kind == "flow":
        for file in sorted((target / "flow").glob("*.npz")):
            arrays = read_npz(file, "optical flow")
            flow = arrays["flow"].astype(np.float32)
            noise = cv2.GaussianBlur(rng.normal(size=flow.shape).astype(np.float32), (0, 0), SMOOTH * flow.shape[1])
            write_npz(file, flow=flow + noise / noise.std() * level * flow.shape[1] / np.sqrt(2), mask=arrays["mask"])
    else:
        nearest = min(float(np.load(target / frame["depth_file_path"]).min()) for frame in scene["frames"][:4])
        for frame in scene["frames"]:
            pose = np.array(frame["transform_matrix"])
            pose[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(rng.normal(size=3) * level / np.sqrt(3)).as_matrix()
            pose[:3, 3] += rng.normal(size=3) * level * nearest / np.sqrt(3)
            frame["transform_matrix"] = pose.tolist()
    write_json(target / "transforms.json", scene)
    return target


def main(
    cache: Path = Path("outputs/robustness"),
    pictures: Path | None = None,
    minutes: float = 60.0,
    report_only: bool = False,
) -> None:
    """Do what has not been done, print a table, draw it.

    Args:
        cache: Where the scenes are written.
        pictures: Folder for robustness.png.
        minutes: No run is begun after these.
        report_only: Print what is there.
    """
    end = time.monotonic() + 60 * minutes
    found: dict[Curve, dict[float, float]] = {curve: {} for curve in CURVES}
    for level, (kind, method) in product(LEVELS, CURVES):
        # Without noise the two kinds are the same scene.
        name = f"demo-b-{kind}-{level:g}" if level else "demo-b-0"
        run = Run(Scene(name, folder="made by this command"), LABELS, method)
        file = RESULTS / (f"{name}.json" if method == "flow" else f"{name}-{method}.json")
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if stored is None or stored["run"] != run.recipe:
            if report_only or time.monotonic() > end:
                continue
            clean = write_scene("demo-b", cache / "clean", width=run.scene.width, height=run.scene.width * 3 // 4)
            stored = execute(run, DATA, cache, noisy(clean, cache / name, kind, level))
            write_json(file, stored)
        found[kind, method][level] = stored["miou"]
    print(f"\ndemo-b, labels {LABELS}, dataset mIoU on the unlabelled frames; {machine()}\n")
    print(f"| noise of | evidence | {' | '.join(f'{level:.0%}' for level in LEVELS)} |\n|{'---|' * (len(LEVELS) + 2)}")
    for (kind, method), values in found.items():
        cells = [f"{values[level]:.3f}" if level in values else "-" for level in LEVELS]
        print(f"| {kind} | {EVIDENCE[method]} | {' | '.join(cells)} |")
    if pictures is not None:
        draw(found, pictures)


def draw(found: dict[Curve, dict[float, float]], folder: Path) -> None:
    """The table as curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for (kind, method), values in found.items():
        name = f"{kind}, {EVIDENCE[method]} evidence"
        style = "o-" if method == "flow" else "o:"
        axes.plot([100 * level for level in values], list(values.values()), style, label=name)
    axes.set_xlabel("noise, % (of the width; of the nearest distance)")
    axes.set_ylabel("mIoU")
    axes.set_ylim(0, 1)
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "robustness.png", dpi=90)


if __name__ == "__main__":
    tyro.cli(main)
