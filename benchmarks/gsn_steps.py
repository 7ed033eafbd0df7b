"""Rays a second of gsn in training, and what it learns by them: beside the code of another clone, in one run.

    python benchmarks/gsn_steps.py speed --parent ../before        # 1008x756, 10 source views; minutes on two cores
    python benchmarks/gsn_steps.py curves --parent ../before       # small pictures, same seeds

speed: steps of the first stage (the preset's network, rays and optimisers) on a synthetic scene, in alternating
processes. Every target has its 10 nearest views as sources, and uniform and guided rays take turns, as they do at
random. Everything that a process spends on a step counts, reading of pictures included.

curves: a preset with a few rays a target on three scenes of 120x90 pixels, trained with one target a step and with
--targets of them. After every --every steps: rays so far, seconds, the mean loss since the last row, and PSNR of one
held-out view of each scene.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro
from presets import CONFIGS, prepared, trained_step
from training import machine

from semfield_ns.gsn import datamanager
from semfield_ns.gsn.sources import nearest_views
from semfield_ns.scenes.synthetic import write_scene

HERE = Path(__file__).parents[1]


def clock() -> tuple[float, float]:
    """Seconds on the wall, and of the processor."""
    return time.perf_counter(), time.process_time()


def training(preset: str, data: Path, seed: int) -> tuple[Any, Any, list[int]]:
    """The pipeline of a preset, a function that makes a step, and a list that gets the rays of every step."""
    CONFIGS[preset].pipeline.datamanager.seed = seed
    pipeline, config = prepared(preset, data, "cpu", "classical")
    torch.manual_seed(seed)
    next_train, rays = pipeline.datamanager.next_train, []

    def counted(number: int) -> Any:
        bundle, batch = next_train(number)
        rays.append(len(batch["indices"]))
        return bundle, batch

    pipeline.datamanager.next_train = counted
    pipeline.train()
    return pipeline, trained_step(pipeline, config, False, "cpu"), rays


def nearest(target: int, centres: Any, candidates: list[int], count: int, generator: Any) -> list[int]:
    """Instead of `draw_sources`: always as many."""
    return nearest_views(centres[target], centres, [index for index in candidates if index != target], count)


def timed_steps(preset: str, data: Path, steps: int, threads: int) -> None:
    """Prints a line of JSON for every step: rays, seconds on the wall and of the processor."""
    torch.set_num_threads(threads)
    rand, coins = torch.rand, cycle((0.25, 0.25, 0.75, 0.75))
    torch.rand = lambda *size, **kw: torch.tensor(next(coins)) if size == ((),) else rand(*size, **kw)
    datamanager.draw_sources = nearest  # type: ignore[assignment]
    _, step, rays = training(preset, data, 0)
    for number in range(steps):
        start = clock()
        step(number)
        wall, processor = (end - begin for begin, end in zip(start, clock(), strict=True))
        print(json.dumps({"rays": rays[-1], "wall": wall, "processor": processor}), flush=True)
    print(json.dumps({"machine": machine()}))


def learned(preset: str, data: Path, steps: int, every: int, rays: int, targets: int, seed: int, threads: int) -> None:
    """Prints a line of JSON for every row of a curve."""
    torch.set_num_threads(threads)
    manager = CONFIGS[preset].pipeline.datamanager
    manager.train_num_rays_per_batch = rays
    if "max_targets" in {field.name for field in fields(manager)}:  # there is no such thing in older code
        datamanager.targets_worth = lambda *_: targets
    pipeline, step, counts = training(preset, data, seed)
    wall = processor = 0.0
    losses = []
    for number in range(steps):
        start = clock()
        losses.append(step(number))
        end = clock()
        wall, processor = wall + end[0] - start[0], processor + end[1] - start[1]
        if (number + 1) % every == 0:
            loss, losses = float(torch.stack(losses).mean()), []
            figures = {"step": number + 1, "rays": sum(counts), "wall": wall, "processor": processor, "loss": loss}
            with torch.random.fork_rng():
                print(json.dumps(figures | {"psnr": held_out(pipeline.eval())}), flush=True)
            pipeline.train()


@torch.no_grad()
def held_out(pipeline: Any) -> float:
    """Mean PSNR of the first held-out view of each scene."""
    model, found = pipeline.model, []
    for scene, posed in enumerate(model.library.scenes):
        model.show(scene)
        shown = model.raw_outputs_for_camera(posed.cameras[torch.tensor([posed.held_out[0]])])["rgb"].clamp(0, 1)
        error = (shown - model.library.image(scene, posed.held_out[0]).float() / 255).square().mean()
        found.append(float(-10 * torch.log10(error)))
    return sum(found) / len(found)


@contextmanager
def package_of(clone: Path) -> Iterator[Path]:
    """A folder for PYTHONPATH that holds the package of a clone as an installation would, its presets inside."""
    with TemporaryDirectory() as temporary:
        package = Path(temporary) / "semfield_ns"
        package.mkdir()
        parts = [part for part in (clone / "semfield_ns").resolve().iterdir() if part.name != "method_configs"]
        for part in (*parts, (clone / "method_configs").resolve()):
            (package / part.name).symlink_to(part)
        yield Path(temporary)


def ask(clone: Path, way: str, **options: Any) -> list[dict]:
    """The rows that this script prints in a process of its own, with the code of a clone."""
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with package_of(clone) as path:
        command = [sys.executable, __file__, way, *flags]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(path)}, stdout=subprocess.PIPE, text=True, check=True
        )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def speed(
    parent: Path | None = None,
    preset: str = "gsn",
    width: int = 1008,
    frames: int = 24,
    rounds: int = 3,
    steps: int = 2,
    threads: int = 2,
) -> None:
    """Print seconds a step and rays a second.

    Args:
        parent: A clone with other code to measure beside this one.
        preset: Of gsn.
        width: Of the pictures, pixels; the height is three quarters of it.
        frames: Of the scene.
        rounds: Processes of each code, taking turns.
        steps: Of a process.
        threads: Of torch.
    """
    clones = ({"parent": parent} if parent else {}) | {"this": HERE}
    found: dict[str, list[dict]] = {name: [] for name in clones}
    memory = {}
    with TemporaryDirectory() as temporary:
        size = {"num_frames": frames, "width": width, "height": width * 3 // 4, "samples_per_axis": 1}
        write_scene("static", Path(temporary) / "static", **size)
        for _ in range(rounds):
            for name, clone in clones.items():
                rows = ask(clone, "timed-steps", preset=preset, data=temporary, steps=steps, threads=threads)
                where = rows.pop()["machine"]
                memory[name] = where.rpartition("peak memory ")[2]
                total = {key: sum(row[key] for row in rows) for key in ("rays", "wall", "processor")}
                found[name].append(total)
                print(f"- {name}: {total['rays']} rays, {total['wall']:.0f} s, {total['processor']:.0f} processor s")
                sys.stdout.flush()
    print(
        f"\n| {width}x{width * 3 // 4}, {preset} | rays a step | s a step | processor s a step | rays/s (range) "
        "| rays/processor s (range) | peak memory |\n|---|---|---|---|---|---|---|"
    )
    for name, totals in found.items():
        step = [median(total[key] for total in totals) / steps for key in ("rays", "wall", "processor")]
        rates = [[total["rays"] / total[key] for total in totals] for key in ("wall", "processor")]
        shown = [f"{median(some):.1f} ({min(some):.1f} to {max(some):.1f})" for some in rates]
        print(f"| {name} | {step[0]:.0f} | {step[1]:.0f} | {step[2]:.0f} | {shown[0]} | {shown[1]} | {memory[name]} |")
    print(f"\n{where.partition('; peak')[0]}")


def curves(
    parent: Path | None = None,
    preset: str = "gsn-tiny",
    targets: int = 8,
    rays: int = 128,
    steps: int = 400,
    every: int = 100,
    seeds: tuple[int, ...] = (0, 1),
    threads: int = 1,
) -> None:
    """Print what is learned by how many steps, rays and seconds.

    Args:
        parent: A clone with other code to train beside this one.
        preset: Of gsn.
        targets: Of a step.
        rays: Of a target.
        steps: Of each training.
        every: Steps from row to row.
        seeds: One training each.
        threads: Of torch.
    """
    ways = {"parent": (parent, 1)} if parent else {}
    ways |= {"this, 1 target": (HERE, 1), f"this, {targets} targets": (HERE, targets)}
    print("| | seed | steps | rays | s | processor s | loss | PSNR, dB |\n|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as temporary:
        for number in range(3):
            write_scene("static", Path(temporary) / f"{number}", seed=number, num_frames=24, width=120, height=90)
        options = {"preset": preset, "data": temporary, "steps": steps, "every": every, "rays": rays}
        for seed in seeds:
            for name, (clone, count) in ways.items():
                assert clone is not None
                for row in ask(clone, "learned", **options, targets=count, seed=seed, threads=threads):
                    figures = f"{row['wall']:.0f} | {row['processor']:.0f} | {row['loss']:.5f} | {row['psnr']:.2f}"
                    print(f"| {name} | {seed} | {row['step']} | {row['rays']:,} | {figures} |", flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"speed": speed, "curves": curves, "timed-steps": timed_steps, "learned": learned}
    )
