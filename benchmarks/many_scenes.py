"""One model of two scenes against a model each, and adaptation to a scene that neither has seen.

    python benchmarks/many_scenes.py --pictures docs/images

Every job (a training with its evaluation) is kept in benchmarks/results/many_scenes.json under its own settings, and
its checkpoint in --work: a run that was cut off resumes. Prints Markdown tables.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from captions import pixels, save, titled_grid
from training import Job, machine, train

from semfield_ns.metrics.confusion import ConfusionMatrix
from semfield_ns.scenes.synthetic import write_scene

RESULTS = Path(__file__).parent / "results" / "many_scenes.json"
PAIR = ("demo", "demo-b")
UNSEEN = {"fast": PAIR, "demo-b": ("demo", "fast")}
"""Scene that a model has not seen -> the scenes that it has learned. `fast` is the room of `demo` with other motions;
`demo-b` shares nothing with the other two but the classes."""


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

    def scenes(self, *names: str) -> Path:
        """Writes scenes if need be, into a folder of their own."""
        root = self.work / f"{self.frames}x{self.width}x{self.height}" / "+".join(names)
        folders = [
            write_scene(name, root / name, 0, self.frames, self.width, self.height, samples_per_axis=2)
            for name in names
        ]
        return root if len(names) > 1 else folders[0]

    def run(
        self, name: str, folder: Path, steps: int, source: str | None = None, needed: bool = False, **settings
    ) -> dict:
        """Trains one job, or looks its result up.

        Args:
            name: of the job.
            folder: a scene or a folder of scenes.
            steps: of training.
            source: name of the job whose checkpoint is adapted.
            needed: its checkpoint too.
            settings: of `Job`.
        """
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        size = f"{self.frames} frames of {self.width}x{self.height}, {self.rays} rays"
        key = f"{name}, {steps} steps, {size}"
        checkpoint = self.work / f"{key}.ckpt"
        if key in results and (checkpoint.is_file() or not needed):
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

    def mean(
        self, name: str, scene: str, steps: int, seeds: tuple[int, ...], source: str | None = None
    ) -> dict[str, float]:
        """PSNR and mIoU of a job on one scene, the mean over seeds."""
        found = [
            self.run(f"{name}{f', seed {seed}' if seed else ''}", self.scenes(scene), steps, source, seed=seed)
            for seed in seeds
        ]
        scores = [entry["scenes"]["scene"] for entry in found]
        return {key: float(np.mean([score[key] for score in scores])) for key in ("psnr", "miou")}

    @torch.no_grad()
    def view(self, folder: Path, job: str, scene: str = "scene") -> list[np.ndarray]:
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
        return [pixels(outputs[key]).repeat(3, 0).repeat(3, 1) for key in ("rgb", "semantics_colormap")]


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
        seeds: of these and of the whole training from scratch; the tables have their means.
        pictures: where to draw mIoU against steps.
    """
    bench = Bench(work, frames, width, height, rays)
    alone = {name: bench.run(name, bench.scenes(name), steps)["scenes"]["scene"] for name in PAIR}
    rows = [("a model each", alone)]
    for shared in ("networks", "semantics"):
        together = bench.run(f"{'+'.join(PAIR)}, {shared}", bench.scenes(*PAIR), steps, shared=shared)
        rows.append((f"one model, shared {shared}", together["scenes"]))
    print(f"\n| | {' | '.join(f'{name}: PSNR, dB | mIoU' for name in PAIR)} |\n|---|{'---|---|' * len(PAIR)}")
    for name, found in rows:
        print(f"| {name} | {' | '.join('{psnr:.2f} | {miou:.3f}'.format(**found[scene]) for scene in PAIR)} |")
    shares: dict[str, list[float]] = {}
    for unseen, known in UNSEEN.items():
        whole = bench.mean(unseen, unseen, steps, seeds)
        bench.run(f"{'+'.join(known)}, networks", bench.scenes(*known), steps, needed=True)
        source = f"{'+'.join(known)}, networks, {steps} steps"
        print(f"\n{unseen}, {steps} steps from scratch: {whole['psnr']:.2f} dB, mIoU {whole['miou']:.3f}\n")
        print(f"| steps | adapted from {' + '.join(known)}: PSNR, dB | mIoU | of the whole training's | from scratch |")
        print("|---|---|---|---|---|")
        for count in adaptation:
            adapted = bench.mean(f"{unseen} adapted from {'+'.join(known)}", unseen, count, seeds, source)
            scratch = bench.mean(f"{unseen} from scratch", unseen, count, seeds)
            part = adapted["miou"] / whole["miou"]
            print(f"| {count} | {adapted['psnr']:.2f} | {adapted['miou']:.3f} | {part:.0%} | {scratch['miou']:.3f} |")
            shares.setdefault(f"{unseen}, adapted", []).append(part)
            shares.setdefault(f"{unseen}, from scratch", []).append(scratch["miou"] / whole["miou"])
    print(f"\n{machine()}")
    if pictures is not None:
        views = [bench.view(bench.scenes(*PAIR), f"{'+'.join(PAIR)}, networks, {steps} steps", name) for name in PAIR]
        unseen, known = list(UNSEEN.items())[-1]
        job, source = f"{unseen} adapted from {'+'.join(known)}", f"{'+'.join(known)}, networks, {steps} steps"
        for count in adaptation[:3:2]:
            bench.run(job, bench.scenes(unseen), count, source, needed=True)
        views += [bench.view(bench.scenes(unseen), f"{job}, {count} steps") for count in adaptation[:3:2]]
        titles = [*PAIR, *(f"{unseen},\n{count} steps" for count in adaptation[:3:2])]
        save(titled_grid(views, titles, ("colour", "classes")), pictures / "many_scenes.jpg")
        draw(shares, adaptation, pictures)


def draw(shares: dict[str, list[float]], steps: tuple[int, ...], folder: Path) -> None:
    """Draws mIoU, as a part of that of a whole training, against steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for number, (name, parts) in enumerate(shares.items()):
        axes.plot(steps, parts, "o-" if "adapted" in name else "o:", color=f"C{number // 2}", label=name)
    axes.axhline(0.95, color="gray", linestyle="--", label="95 %")
    axes.set_xlabel("steps on the new scene")
    axes.set_ylabel("mIoU, part of a whole training's")
    axes.set_ylim(0, 1.05)
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "adaptation.png", dpi=90)


if __name__ == "__main__":
    tyro.cli(main)
