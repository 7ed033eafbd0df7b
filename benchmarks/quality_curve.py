"""Quality against seconds of training on the demo scene: `python benchmarks/quality_curve.py docs/images`.

Writes the scene, trains the tiny preset on labels of every second frame, and evaluates all held-out views
now and then, with the clock stopped. Prints a Markdown table and draws it.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import tyro
from training import Job, machine, train

from semfield_ns.metrics.confusion import ConfusionMatrix
from semfield_ns.scenes.synthetic import write_scene


@torch.no_grad()
def evaluate(pipeline) -> tuple[float, float]:
    """Mean PSNR and dataset mIoU of the held-out views."""
    matrix, psnr = ConfusionMatrix(len(pipeline.model.label_map.classes)), []
    for camera, batch in pipeline.datamanager.fixed_indices_eval_dataloader:
        outputs = pipeline.model.get_outputs_for_camera(camera)
        psnr.append(-10 * float((outputs["rgb"] - batch["image"][..., :3]).square().mean().log10()))
        matrix.update(outputs["semantics"][..., 0].long(), batch["semantics"][..., 0].long())
    return float(np.mean(psnr)), matrix.miou


def main(
    output: Path,
    scene: str = "demo",
    evaluations: tuple[int, ...] = (200, 400, 800, 900, 1000, 1200, 1400, 1600),
    seed: int = 0,
) -> None:
    """Train, evaluate on the way, draw.

    Args:
        output: Folder for the picture.
        scene: Name of the synthetic scene.
        evaluations: After how many steps to evaluate.
        seed: Of the scene and of the training.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows: list[tuple[int, float, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_scene(scene, Path(folder) / "scene", seed=seed)
        at = {step: lambda p, seconds, step=step: rows.append((step, seconds, *evaluate(p))) for step in evaluations}
        train(Job(path, "every-2", seed=seed, steps=max(evaluations)), at)
    print(f"\n{scene}, every held-out view; {machine()}\n")
    print("| steps | seconds | PSNR, dB | mIoU |\n|---|---|---|---|")
    for step, seconds, psnr, miou in rows:
        print(f"| {step} | {seconds:.0f} | {psnr:.2f} | {miou:.3f} |")
    _, seconds, psnr, miou = np.array(rows).T
    figure, left = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    left.plot(seconds, psnr, "o-", color="tab:blue")
    left.set_xlabel("seconds of training")
    left.set_ylabel("PSNR, dB", color="tab:blue")
    right = left.twinx()
    right.plot(seconds, miou, "s-", color="tab:orange")
    right.set_ylabel("mIoU", color="tab:orange")
    right.set_ylim(0, 1)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "quality_curve.png", dpi=90)


if __name__ == "__main__":
    tyro.cli(main)
