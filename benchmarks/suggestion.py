"""Whether labelling the suggested frames beats labelling random ones: `python benchmarks/suggestion.py`.

A run on one labelled frame suggests frames to label; a run with these is compared with runs on as many random ones,
on the frames that none of them saw labelled. As in the table, each result is a JSON file, in
benchmarks/results/suggestion, and a run that is there is not done again.
"""

import json
from pathlib import Path

import numpy as np
import tyro
from table import SYNTHETIC, Scene, predict, scene_folder
from training import Job, machine, train

from semfield_ns.evaluation.run import Truth, score
from semfield_ns.evaluation.suggestion import suggest, uncertainty
from semfield_ns.io import write_json

RESULTS = Path(__file__).parent / "results" / "suggestion"
VERSION = 2
SCALE = 0.25
"""of the pictures that uncertainty is looked for in"""


def run(scene: Scene, folder: Path, labels: list[int], seed: int) -> dict:
    """Trains on some labelled frames; confusion counts a frame on the others, and how uncertain they are.

    Args:
        scene: how much work.
        folder: of the scene.
        labels: the labelled frames.
        seed: of the training.
    """
    recipe = {"scene": scene.name, "labels": labels, "seed": seed, "steps": scene.steps, "version": VERSION}
    file = RESULTS / f"{scene.name}_{'-'.join(map(str, labels))}_{seed}.json"
    if file.is_file() and (stored := json.loads(file.read_text(encoding="utf-8")))["run"] == recipe:
        return stored
    job = Job(
        folder,
        ",".join(map(str, labels)),
        seed=seed,
        steps=scene.steps,
        rays=scene.rays,
        evidence=True,
        eval_frames="unlabelled",
    )
    pipeline, _ = train(job)
    predictions, truth = predict(pipeline, scene.grid)
    unsure = {
        frame: uncertainty(pipeline.model.raw_outputs_for_camera(camera)["logits"])
        for frame, camera in enumerate(pipeline.model.frames.cameras(SCALE))
        if frame not in labels
    }
    miou = {}
    for frame, given in truth.labels.items():
        miou[frame] = score("", {frame: predictions[frame]}, Truth({frame: given}, {}, truth.moving_classes)).miou
    found = {"run": recipe, "miou": miou, "uncertainty": unsure, "machine": machine()}
    write_json(file, found)
    return json.loads(file.read_text(encoding="utf-8"))


def main(cache: Path = Path("outputs/table"), count: int = 2, draws: int = 3, seeds: int = 1) -> None:
    """Suggest, label, compare.

    Args:
        cache: Where the synthetic scenes are written.
        count: Frames to label.
        draws: Random choices to compare with.
        seeds: Of the trainings.
    """
    print("| scene, seed | suggested | per-image mIoU | random, mean (each) |\n|---|---|---|---|")
    means = []
    for scene in SYNTHETIC:
        folder = scene_folder(scene, Path(), cache)
        for seed in range(seeds):
            first = run(scene, folder, [0], seed)
            frames = {int(frame): value for frame, value in first["uncertainty"].items()}
            chosen = suggest(frames, count)
            rng = np.random.default_rng([seed, 7])
            others = [sorted(rng.choice(sorted(frames), count, replace=False).tolist()) for _ in range(draws)]
            found = [run(scene, folder, sorted([0, *extra]), seed)["miou"] for extra in (chosen, *others)]
            shared = set.intersection(*(set(miou) for miou in found))
            ours, *theirs = (float(np.mean([miou[frame] for frame in shared])) for miou in found)
            means.append((ours, np.mean(theirs)))
            each = ", ".join(f"{value:.3f}" for value in theirs)
            print(f"| {scene.name}, {seed} | {chosen} | {ours:.3f} | {np.mean(theirs):.3f} ({each}) |", flush=True)
    print("| mean | | {:.3f} | {:.3f} |".format(*np.mean(means, axis=0)))
    print(f"\n{machine()}")


if __name__ == "__main__":
    tyro.cli(main)
