"""One model of two scenes against a model each, and adaptation to a scene that neither has seen.

    python benchmarks/many_scenes.py --pictures docs/images

Every job (a training with its evaluation) is kept in benchmarks/results/many_scenes.json under its own settings, and
its checkpoint in --work: a run that was cut off goes on where it was. Prints two Markdown tables.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from completion import save
from training import Job, machine, train

from semfield_ns.evaluation.metrics import ConfusionMatrix
from semfield_ns.scenes.synthetic import write_scene

RESULTS = Path(__file__).parent / "results" / "many_scenes.json"
PAIR = ("demo", "demo-b")
UNSEEN = "fast"


@torch.no_grad()
def evaluate(pipeline) -> dict[str, dict[str, float]]:
    """PSNR and dataset mIoU of the held-out views of each scene."""
    names = getattr(pipeline.model, "names", ["scene"])
    matrices = {name: ConfusionMatrix(len(pipeline.model.label_map.classes)) for name in names}
    psnr: dict[str, list[float]] = {name: [] for name in names}
    for camera, batch in pipeline.datamanager.fixed_indices_eval_dataloader:
        name = names[batch.get("scene", 0)]
        outputs = pipeline.model.get_outputs_for_camera(camera)
        psnr[name].append(-10 * float((outputs["rgb"] - batch["image"][..., :3]).square().mean().log10()))
        matrices[name].update(outputs["semantics"][..., 0].long(), batch["semantics"][..., 0].long())
    return {name: {"psnr": float(np.mean(psnr[name])), "miou": matrices[name].miou} for name in names}


@dataclass(frozen=True)
class Bench:
    """Where things are, and at what size."""

    work: Path
    frames: int
    width: int
    height: int
    rays: int

    def scene(self, name: str) -> Path:
        """Writes a scene if need be."""
        folder = (
            self.work / f"{self.frames}x{self.width}x{self.height}" / ("unseen" if name == UNSEEN else "pair") / name
        )
        return write_scene(name, folder, 0, self.frames, self.width, self.height, 2)

    def run(self, name: str, folder: Path, steps: int, source: str | None = None, **settings) -> dict:
        """Trains one job, or looks its result up.

        Args:
            name: of the job.
            folder: a scene or a folder of scenes.
            steps: of training.
            source: name of the job whose checkpoint is adapted.
            settings: of `Job`.
        """
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        size = f"{self.frames} frames of {self.width}x{self.height}, {self.rays} rays"
        key = f"{name}, {steps} steps, {size}"
        checkpoint = self.work / f"{key}.ckpt"
        if key in results and (checkpoint.is_file() or source is not None):
            return results[key]
        origin = None if source is None else self.work / f"{source}, {size}.ckpt"
        job = Job(folder, "every-2", steps=steps, checkpoint=origin, rays=self.rays, **settings)
        pipeline, seconds = train(job)
        torch.save({"pipeline": pipeline.state_dict()}, checkpoint)
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        results[key] = {"seconds": seconds, "scenes": evaluate(pipeline)}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(key, results[key], flush=True)
        return results[key]

    @torch.no_grad()
    def view(self, folder: Path, job: str, scene: str = "scene") -> torch.Tensor:
        """Render and classes of a held-out view in the middle, with the weights that a job left.

        Args:
            folder: that the job was trained on.
            job: its name.
            scene: which of its scenes.
        """
        pipeline = Job(folder, "every-2").config().pipeline.setup(device="cpu", test_mode="val")
        size = f"{self.frames} frames of {self.width}x{self.height}, {self.rays} rays"
        state = torch.load(self.work / f"{job}, {size}.ckpt", map_location="cpu", weights_only=True)["pipeline"]
        pipeline.load_state_dict(state)
        names = getattr(pipeline.model, "names", ["scene"])
        own = [
            camera
            for camera, batch in pipeline.eval().datamanager.fixed_indices_eval_dataloader
            if names[batch.get("scene", 0)] == scene
        ]
        outputs = pipeline.model.get_outputs_for_camera(own[len(own) // 2])
        return torch.cat([outputs["rgb"], outputs["semantics_colormap"]], dim=1)


def main(
    work: Path = Path("outputs/many_scenes"),
    frames: int = 12,
    width: int = 64,
    height: int = 48,
    rays: int = 384,
    steps: int = 800,
    adaptation: tuple[int, ...] = (20, 40, 80, 160),
    seeds: tuple[int, ...] = (0, 1, 2),
    pictures: Path | None = None,
) -> None:
    """Train what is missing, print the tables.

    Args:
        work: folder for scenes and checkpoints.
        frames: of each scene.
        width: px.
        height: px.
        rays: of each scene in a step.
        steps: of a whole training.
        adaptation: steps of adaptation and of the same training from scratch.
        seeds: of these; the tables have their means.
        pictures: where to draw mIoU against steps.
    """
    bench = Bench(work, frames, width, height, rays)
    alone = {name: bench.run(name, bench.scene(name), steps)["scenes"]["scene"] for name in PAIR}
    pair = bench.scene(PAIR[0]).parent
    rows = [("a model each", alone)]
    for shared in ("networks", "semantics"):
        rows.append((f"one model, shared {shared}", bench.run(f"both, {shared}", pair, steps, shared=shared)["scenes"]))
    print(f"\n| | {' | '.join(f'{name}: PSNR, dB | mIoU' for name in PAIR)} |\n|---|{'---|---|' * len(PAIR)}")
    for name, found in rows:
        print(f"| {name} | {' | '.join('{psnr:.2f} | {miou:.3f}'.format(**found[scene]) for scene in PAIR)} |")
    unseen = bench.scene(UNSEEN)
    source = f"both, networks, {steps} steps"
    whole = bench.run(f"{UNSEEN} from scratch", unseen, steps)["scenes"]["scene"]
    curves: dict[str, list[dict[str, float]]] = {"adapted": [], "from scratch": []}
    for count in adaptation:
        for name, origin in (("adapted", source), ("from scratch", None)):
            found = [
                bench.run(f"{UNSEEN} {name}{f', seed {seed}' if seed else ''}", unseen, count, origin, seed=seed)
                for seed in seeds
            ]
            scores = [entry["scenes"]["scene"] for entry in found]
            curves[name].append({key: float(np.mean([score[key] for score in scores])) for key in ("psnr", "miou")})
    print(f"\n{UNSEEN}, {steps} steps from scratch: {whole['psnr']:.2f} dB, mIoU {whole['miou']:.3f}\n")
    print("| steps | adapted: PSNR, dB | mIoU | of the whole training's | from scratch: PSNR, dB | mIoU |")
    print("|---|---|---|---|---|---|")
    for count, one, other in zip(adaptation, curves["adapted"], curves["from scratch"], strict=True):
        part = one["miou"] / whole["miou"]
        cells = f"{one['psnr']:.2f} | {one['miou']:.3f} | {part:.0%} | {other['psnr']:.2f} | {other['miou']:.3f}"
        print(f"| {count} | {cells} |")
    print(f"\n{machine()}")
    if pictures is not None:
        views = [bench.view(pair, f"both, networks, {steps} steps", name) for name in PAIR]
        views += [bench.view(unseen, f"{UNSEEN} adapted, {count} steps") for count in adaptation[:3:2]]
        save(torch.cat([torch.cat(views[:2], dim=1), torch.cat(views[2:], dim=1)]), pictures / "many_scenes.jpg", 3)
        draw(curves, adaptation, whole["miou"], steps, pictures)


def draw(
    curves: dict[str, list[dict[str, float]]], steps: tuple[int, ...], whole: float, length: int, folder: Path
) -> None:
    """Draws mIoU against steps, adapted and from scratch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for name, found in curves.items():
        axes.plot(steps, [entry["miou"] for entry in found], "o-", label=name)
    axes.axhline(whole, color="gray", linestyle=":", label=f"from scratch, {length} steps")
    axes.axhline(0.95 * whole, color="gray", linestyle="--", label="95 % of it")
    axes.set_xlabel("steps on the new scene")
    axes.set_ylabel("mIoU")
    axes.set_ylim(0, 1)
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "adaptation.png", dpi=90)


if __name__ == "__main__":
    tyro.cli(main)
