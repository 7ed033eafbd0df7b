"""Time of pictures of Gaussians on the CPU, and of their gradients, beside another implementation.

    python benchmarks/rasteriser.py [--baseline FILE] [--sizes 26000 100000] [--repeats 15]

Gaussians of random shapes and opacities before a 504x378 camera, with 12 channels. The baseline is a Python file with
`render(means, quaternions, scales, opacities, channels, camera_to_world, fx, fy, cx, cy, width, height)`, which
returns the picture and the transmittance first; what it imports from beside it is found. Both get the same tensors, by
turns; numba caches what it compiles beside the file, or in NUMBA_CACHE_DIR. Prints medians of wall time and of
processor time of all threads, and the ratio of wall times.
"""

import importlib
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from datetime import date
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from semfield_ns.gaussians.rasterize import render
from semfield_ns.gaussians.values import Gaussians

WIDTH, HEIGHT, CHANNELS = 504, 378, 12
INTRINSICS = (420.0, 420.0, WIDTH / 2, HEIGHT / 2)
POSE = torch.eye(4)


def scene(num: int) -> Gaussians:
    """A third of the Gaussians on a wall behind, the others in a box; each is a few pixels wide."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(num, 3, generator=generator) * torch.tensor([8.0, 6.0, 5.0]) - torch.tensor([4.0, 3.0, 7.5])
    means[: num // 3, 2] = -7.5
    size = 4.0 / num**0.5
    return Gaussians(
        means.requires_grad_(),
        torch.randn(num, 4, generator=generator).requires_grad_(),
        (size * (0.5 + torch.rand(num, 3, generator=generator))).requires_grad_(),
        torch.rand(num, generator=generator).requires_grad_(),
        torch.rand(num, CHANNELS, generator=generator).requires_grad_(),
    )


def ours(gaussians: Gaussians) -> tuple[Tensor, Tensor]:
    found = render(gaussians, POSE, INTRINSICS, WIDTH, HEIGHT)
    return found.channels, found.accumulation


def other(path: Path) -> Callable[[Gaussians], tuple[Tensor, Tensor]]:
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)

    def run(gaussians: Gaussians) -> tuple[Tensor, Tensor]:
        values = [getattr(gaussians, field.name) for field in fields(gaussians)]
        picture, light, *_ = module.render(*values, POSE, *INTRINSICS, WIDTH, HEIGHT)
        return picture, 1 - light[..., None]

    return run


def timed(run: Callable[[Gaussians], tuple[Tensor, Tensor]], gaussians: Gaussians, gradients: bool) -> np.ndarray:
    """Wall and processor milliseconds."""
    for field in fields(gaussians):
        getattr(gaussians, field.name).grad = None
    wall, processor = time.perf_counter(), time.process_time()
    with torch.set_grad_enabled(gradients):
        picture, accumulation = run(gaussians)
        if gradients:
            torch.autograd.backward([picture, accumulation], [torch.ones_like(picture), torch.ones_like(accumulation)])
    return 1e3 * np.array([time.perf_counter() - wall, time.process_time() - processor])


def processor_name() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main(baseline: Path | None = None, sizes: tuple[int, ...] = (26_000, 100_000), repeats: int = 15) -> None:
    print(f"{date.today()}, {processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    runs = {"cpu": ours} if baseline is None else {"cpu": ours, "baseline": other(baseline)}
    for num in sizes:
        gaussians = scene(num)
        print(f"{num} Gaussians, {WIDTH}x{HEIGHT}, {CHANNELS} channels")
        for gradients in (False, True):
            times: dict[str, list[np.ndarray]] = {name: [] for name in runs}
            for turn in range(repeats + 2):
                for name, run in runs.items():
                    found = timed(run, gaussians, gradients)
                    if turn >= 2:
                        times[name].append(found)
            medians = {name: np.median(found, axis=0) for name, found in times.items()}
            for name, (wall, processor) in medians.items():
                print(
                    f"  {'forward+backward' if gradients else 'forward':16} {name:9} {wall:7.1f} ms wall, "
                    f"{processor:7.1f} ms processor, {1e3 / wall:6.1f} pictures/s, "
                    f"{wall / medians['cpu'][0]:.2f} times cpu's wall time"
                )


if __name__ == "__main__":
    tyro.cli(main)
