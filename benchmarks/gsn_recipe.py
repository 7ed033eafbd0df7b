"""The recipe of the weights that come with the package, and of the same without each real scene in turn.

    python benchmarks/gsn_recipe.py outputs/gsn_recipe fern horns blowtorch mold_gold_cape dtu_scan65 --device cuda

1. Synthetic scenes of many kinds, with true depth (`semfield synthetic varied`, and some of `static`).
2. gsn-tiny on these alone.
3. For every real scene: the same weights trained further on the synthetic scenes and on the other real ones, which are
   drawn half of the time. The scene that is left out is then measured by `gsn_zero_shot.py`.

The settings are the same for all and were fixed before anything was measured. A part that is done is not done again;
runs of the third part are trained --jobs at a time. `gsn_weights.py` packs a run into the package.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from semfield_ns.gsn.runs import newest_checkpoint
from semfield_ns.io import write_json
from semfield_ns.method_configs.gsn import gsn_tiny
from semfield_ns.scenes.synthetic import write_scene

FIRST_SEED = 1000
"""of the scenes: tests and other benchmarks use small ones"""
STATIC_SHARE = 5
"""every so many scenes is one of `static`"""
FEATURE_LOSS, DEPTH_LOSS = 2.0, 0.1
STAGE_ONE_SHARE = 0.6
"""of the steps on synthetic scenes, without features"""
HALVED_EVERY = 0.2
"""of a run's steps: rates"""
FACTORS = {"encoder": 0.25, "trunk": 0.25, "head": 1.0}
"""of the preset's rates in the second stage, on synthetic scenes alone"""
FURTHER_FACTORS = {"encoder": 0.4, "trunk": 0.4, "head": 0.5}
"""of the same, on synthetic and real ones"""


def write_synthetic(number: int, folder: Path, size: int, views: int) -> None:
    """One of the synthetic scenes."""
    name = "static" if number % STATIC_SHARE == 0 else "varied"
    write_scene(name, folder / f"{name}_{number:03d}", FIRST_SEED + number, views, size, size * 3 // 4, 2)


def configured(folder: Path, name: str, device: str, rays: int, steps: int, further: bool) -> Any:
    """The configuration of a run."""
    config = deepcopy(gsn_tiny.config)
    config.output_dir, config.experiment_name, config.timestamp = folder, name, "run"
    config.vis, config.max_num_iterations, config.steps_per_save = "tensorboard", steps, max(steps // 4, 1)
    config.steps_per_eval_batch, config.save_only_latest_checkpoint = 10 * steps, True
    config.machine.device_type, config.machine.seed = device, 1 if further else 0
    config.logging.local_writer.enable = False
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.data = manager.dataparser.data = folder / "scenes" / name
    manager.train_num_rays_per_batch, manager.image_budget, manager.seed = rays, 4096, config.machine.seed
    model.stage_one_steps = 0 if further else round(STAGE_ONE_SHARE * steps)
    model.feature_loss, model.depth_loss = FEATURE_LOSS, DEPTH_LOSS
    synthetic = sum(1 for path in manager.data.iterdir() if path.name.startswith(("static_", "varied_")))
    real = sorted(path.name for path in manager.data.iterdir() if not path.name.startswith(("static_", "varied_")))
    manager.scene_weights = tuple(f"{scene}={synthetic / len(real):.3f}" for scene in real)
    factors = FURTHER_FACTORS if further else FACTORS
    for group, optimizer in config.optimizers.items():
        optimizer["scheduler"].stage_two_factor = factors[group]
        optimizer["scheduler"].halve_every = round(HALVED_EVERY * steps)
    return config


def train(folder: Path, name: str, device: str, rays: int, steps: int, start: Path | None) -> None:
    """Trains a run, from scratch or from the weights of a checkpoint."""
    torch.set_num_threads(1 if device == "cuda" else torch.get_num_threads())
    config = configured(folder, name, device, rays, steps, start is not None)
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    if start is not None:
        trainer.pipeline.load_pipeline(torch.load(start, map_location="cpu", weights_only=True)["pipeline"], 0)
    step, begun = trainer.train_iteration, 0.0

    def counted(number: int) -> Any:
        nonlocal begun
        result = step(number)
        begun = begun or time.perf_counter()  # before the first one, pictures are described
        return result

    trainer.train_iteration = counted
    trainer.train()
    took = time.perf_counter() - begun
    config.save_config()
    checkpoint = newest_checkpoint(config.get_base_dir() / "config.yml")
    found = {"steps": steps, "rays": rays, "seconds": round(took, 1), "file": str(checkpoint)}
    write_json(folder / f"{name}.json", found)


def linked(folder: Path, name: str, scenes: list[Path]) -> None:
    """A folder of links to the scenes of a run."""
    (folder / "scenes" / name).mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        link = folder / "scenes" / name / scene.name
        if not link.exists():
            link.symlink_to(scene.resolve())


def alone(arguments: list[str]) -> None:
    """Runs this script in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([sys.executable, __file__, *arguments], check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {done.returncode}.")


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    real: Annotated[list[Path], tyro.conf.Positional],
    device: str = "cpu",
    scenes: int = 120,
    views: int = 20,
    size: int = 200,
    steps: int = 8000,
    further_steps: int = 4000,
    rays: int = 2048,
    jobs: int = 1,
    measure: bool = True,
    only: str = "",
    start: Path | None = None,
) -> None:
    """Follow the recipe.

    Args:
        folder: for scenes and runs.
        real: at least two real scenes.
        device: of torch.
        scenes: synthetic ones.
        views: of a synthetic scene, beside held-out ones.
        size: px, width of their pictures.
        steps: on synthetic scenes alone.
        further_steps: on synthetic and real ones.
        rays: a step.
        jobs: processes that make scenes, and runs of the third part that are trained at a time.
        measure: measure the scenes that were left out.
        only: for processes of this script: the run that it trains.
        start: the checkpoint that it starts from.
    """
    if only:
        train(folder, only, device, rays, steps, start)
        return
    made = folder / "synthetic"
    with ProcessPoolExecutor(jobs) as pool:
        list(pool.map(write_synthetic, range(scenes), [made] * scenes, [size] * scenes, [views] * scenes))
    synthetic = sorted(made.iterdir())
    linked(folder, "base", synthetic)
    shared = ["--device", device, "--rays", str(rays)]
    listed = [str(path) for path in real]
    if not (folder / "base.json").exists():
        alone([str(folder), *listed, *shared, "--only", "base", "--steps", str(steps)])
    checkpoint = json.loads((folder / "base.json").read_text())["file"]

    def further(left_out: Path) -> None:
        name = f"without_{left_out.name}"
        linked(folder, name, [*synthetic, *(path for path in real if path != left_out)])
        if not (folder / f"{name}.json").exists():
            settings = ["--only", name, "--steps", str(further_steps), "--start", checkpoint]
            alone([str(folder), *listed, *shared, *settings])

    with ThreadPoolExecutor(jobs) as threads:
        list(threads.map(further, real))
    for left_out in real if measure else ():
        run = folder / f"without_{left_out.name}" / "gsn-tiny" / "run" / "config.yml"
        command = [sys.executable, str(Path(__file__).with_name("gsn_zero_shot.py")), str(run), str(left_out)]
        subprocess.run([*command, "--output-dir", str(folder / "attached")], check=True)


if __name__ == "__main__":
    tyro.cli(main)
