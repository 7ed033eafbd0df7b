"""A method on a GPU, in one call: training to a quality, pictures a second, and memory.

    python benchmarks/gpu.py                       # on CUDA, with semantic-flow-splat
    python benchmarks/gpu.py --method semantic-flow-tiny --goal 99 --most-steps 1600 --every 800 --sizes
    python benchmarks/gpu.py --device cpu --goal 28 --most-steps 400 --sizes 26000   # the same on a CPU

Makes the demo scene, trains until held-out views reach --goal (looked at every --every steps, which is not counted),
then renders random Gaussians. Where there is CUDA, both rasterisers are compared as well. Prints Markdown.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from gaussians import judge, train
from rasteriser import CHANNELS, INTRINSICS, POSE, WIDTH, scene
from training import machine

from semfield_ns.gaussians.rasterize import render
from semfield_ns.gaussians.values import Gaussians
from semfield_ns.scenes.synthetic import write_scene


def synchronised(device: str) -> float:
    """Seconds on the clock, once the device has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def memory(device: str) -> str:
    """The most that was taken since the start, of the GPU or of the process."""
    if device.startswith("cuda"):
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of GPU memory"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of the process"


class Reached(Exception):
    """Training is as good as it has to be."""


def training(method: str, device: str, folder: Path, goal: float, every: int, most_steps: int) -> None:
    """Trains on the demo, and prints a row each time that it is looked at."""
    data = write_scene("demo", folder / "demo", width=160, height=120)
    print(f"{method} on demo, 160x120, labels of every second frame:\n")
    print("| steps | s | PSNR of held-out views | mIoU |\n|---|---|---|---|")
    spent, since = 0.0, time.perf_counter()

    def look(step: int, pipeline) -> None:
        nonlocal spent, since
        spent += synchronised(device) - since
        pipeline.state_dict()  # what is worked out for a checkpoint
        found = judge(pipeline.eval(), data)
        print(f"| {step} | {spent:.1f} | {found['psnr']:.2f} | {found['miou']:.3f} |", flush=True)
        if found["psnr"] >= goal:
            raise Reached
        pipeline.train()
        since = synchronised(device)

    def before(step: int, pipeline) -> None:
        nonlocal since
        if step == 0:
            since = synchronised(device)
        elif step % every == 0:
            look(step, pipeline)

    try:
        pipeline, _, _ = train(method, data, 0, most_steps, device=device, before=before, labels="every-2")
        look(most_steps, pipeline)
    except Reached:
        pass
    print(f"\n{memory(device)}.\n")


def rate(picture: Callable[[], object], device: str, seconds: float = 2.0) -> float:
    """Pictures a second."""
    picture(), picture()
    start, count = synchronised(device), 0
    while synchronised(device) - start < seconds:
        picture()
        count += 1
    return count / (synchronised(device) - start)


def pictures(device: str, sizes: tuple[int, ...]) -> None:
    """Prints pictures a second of random Gaussians, and of pictures with their gradients."""
    print(f"| Gaussians | picture, {CHANNELS} channels | pictures/s | with gradients |\n|---|---|---|---|")
    for number in sizes:
        values = scene(number).to(device)
        parts = [getattr(values, name).detach() for name in ("means", "quaternions", "scales", "opacities", "channels")]
        for width in (160, 504, 960):
            factor = width / WIDTH
            intrinsics = tuple(factor * value for value in INTRINSICS)

            def seen(gaussians: Gaussians, width: int = width, intrinsics: tuple = intrinsics):
                return render(gaussians, POSE.to(device), intrinsics, width, width * 3 // 4)

            @torch.no_grad()
            def forward(seen: Callable = seen, parts: list = parts) -> None:
                seen(Gaussians(*parts))

            def both(seen: Callable = seen, parts: list = parts) -> None:
                found = seen(Gaussians(*(part.clone().requires_grad_() for part in parts)))
                (found.channels.sum() + found.accumulation.sum()).backward()

            rates = f"{rate(forward, device):.1f} | {rate(both, device):.1f}"
            print(f"| {number:,} | {width}x{width * 3 // 4} | {rates} |", flush=True)
    print(f"\n{memory(device)}.\n")


def agreement() -> None:
    """Prints how far the rasterisers of GPU and CPU are apart."""
    values = scene(26_000)
    found = [
        render(values.to(device), POSE.to(device), INTRINSICS, WIDTH, WIDTH * 3 // 4) for device in ("cpu", "cuda")
    ]
    apart = (found[0].channels - found[1].channels.cpu()).abs().detach().numpy()
    print(
        f"Rasterisers of CPU and GPU: {apart.mean():.2e} apart in the mean, {np.percentile(apart, 99.9):.2e} at most "
    )
    print("in 99.9 % of the values.\n")


def main(
    device: str = "cuda",
    goal: float = 32.0,
    every: int = 200,
    most_steps: int = 4000,
    method: str | None = None,
    sizes: tuple[int, ...] = (26_000, 100_000, 500_000),
) -> None:
    """Measure.

    Args:
        device: Of torch.
        goal: PSNR of held-out views at which training ends, dB.
        every: Steps after which it is looked at.
        most_steps: The most steps; on Gaussians, the schedule is as long.
        method: A preset; semantic-flow-splat by default, on a CPU its tiny one.
        sizes: Numbers of random Gaussians.
    """
    torch.manual_seed(0)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    print(f"# {name}\n")
    if device.startswith("cuda") and sizes:
        agreement()
    with TemporaryDirectory() as folder:
        method = method or f"semantic-flow-splat{'' if device.startswith('cuda') else '-tiny'}"
        training(method, device, Path(folder), goal, every, most_steps)
    if sizes:
        pictures(device, sizes)
    print(machine())


if __name__ == "__main__":
    tyro.cli(main)
