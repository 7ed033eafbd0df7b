"""Speed and memory of GSN's network: a plain implementation, the exact one, and the fast one, in turn in one process.

    python benchmarks/gsn_render.py                                  # 2 threads, official sizes, random weights
    python benchmarks/gsn_render.py --compile --device cuda
    python benchmarks/gsn_render.py --load-config RUN --data SCENES  # also what the fast path loses on a trained model

Rays a second, features included, 10 source views of 378x504. Plain and exact give the same numbers (the difference is
printed). Fast renders a whole picture: a first look at every 4th pixel, a few samples around what it found for every
pixel, features at every 4th pixel.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from nerfstudio.cameras.rays import RayBundle

from semfield_ns.gsn.accumulation import summed
from semfield_ns.gsn.model import GSNModel
from semfield_ns.gsn.network import OFFICIAL, GSNNetwork, NetworkConfig
from semfield_ns.gsn.projection import SourceViews, tabled
from semfield_ns.gsn.rendering import RaySettings, render_chunks, render_image
from semfield_ns.scene_model import finished

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.gsn.scenes import random_rays, random_views, reference_of, reference_render

BOUNDS = (1.2, 6.0)
PICTURE = (96, 128)
FAST = RaySettings(mode="guided", samples=32, fine_samples=8, coarse_stride=4, feature_stride=4)


@dataclass
class Way:
    """One way to render: a function of the number of rays, and how many it is timed with."""

    name: str
    run: Callable[[], Any]
    rays: int


def picture(device: str) -> RayBundle:
    """Rays of a camera at the origin."""
    height, width = PICTURE
    y, x = torch.meshgrid(torch.linspace(-0.35, 0.35, height), torch.linspace(-0.4, 0.4, width), indexing="ij")
    directions = torch.stack([x, -y, -torch.ones_like(x)], dim=-1)
    norm = directions.norm(dim=-1, keepdim=True)
    bundle = RayBundle(
        origins=torch.zeros(height, width, 3),
        directions=directions / norm,
        pixel_area=torch.ones(height, width, 1),
        metadata={"directions_norm": norm},
    )
    return bundle.to(device)


def half(device: str) -> AbstractContextManager[Any]:
    """Products in bfloat16."""
    return torch.autocast(device, torch.bfloat16)


def timed(run: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds by the clock, and of processor time (which other work on the machine disturbs less)."""
    if device == "cuda":
        torch.cuda.synchronize()
    start, processor = time.perf_counter(), time.process_time()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - processor


def to_device(views: SourceViews, device: str) -> SourceViews:
    """All tensors of the views on a device."""
    return views._replace(
        images=views.images.to(device),
        camera_to_world=views.camera_to_world.to(device),
        intrinsics=views.intrinsics.to(device),
        tokens=tuple(grid.to(device) for grid in views.tokens),
    )


@torch.no_grad()
def speed(samples: int, rounds: int, chunk: int, compiled: bool, device: str) -> None:
    """Prints rays a second."""
    torch.manual_seed(0)
    network = GSNNetwork(NetworkConfig(**OFFICIAL | {"tokens_through_image": False})).eval().to(device)
    views = network.encode(to_device(random_views(10, 378, 504), device))
    trunk, head = (module.to(device) for module in reference_of(network))  # type: ignore[union-attr]
    enlarged = F.interpolate(views.tokens[0], size=(378, 504), mode="bilinear", align_corners=False)
    rays = [x.to(device) for x in random_rays(256 if device == "cpu" else 4096, samples)]
    bundle = picture(device)

    def plain(start: int, size: int) -> dict[str, torch.Tensor]:
        return reference_render(trunk, head, *(x[start : start + size] for x in rays), views, enlarged)

    # Once a picture, as `render_image` does; the plain way has its enlarged tokens beforehand, too.
    start = time.perf_counter()
    tables = tabled(views)
    network.fold()
    print(f"tables of 10 views and folded weights, once a picture: {time.perf_counter() - start:.3f} s")

    def exact(start: int, size: int) -> dict[str, torch.Tensor]:
        return finished(render_chunks(network, *(x[start : start + size] for x in rays), tables, True, chunk))

    def all_rays(render: Callable[[int, int], Any], size: int) -> Callable[[], None]:
        return lambda: [render(start, size) for start in range(0, len(rays[0]), size)] and None

    def fast() -> None:
        finished(render_image(network, bundle, BOUNDS, views, FAST, True, chunk))

    def fast_half() -> None:
        with half(device):
            fast()

    # The same arithmetic: tokens through the image for both.
    network.config.tokens_through_image = True
    expected, found = plain(0, 64), exact(0, 64)
    network.config.tokens_through_image = False
    for name in ("rgb", "features"):
        print(f"{name}: exact and plain differ by {float((expected[name] - found[name]).abs().max()):.1e}")
    ways = [
        Way("plain, 64 rays at once", all_rays(plain, 64), len(rays[0])),
        Way("exact", all_rays(exact, len(rays[0])), len(rays[0])),
        Way("fast", fast, PICTURE[0] * PICTURE[1]),
        Way("fast, products in bfloat16", fast_half, PICTURE[0] * PICTURE[1]),
    ]
    if compiled:
        network.use_compiled()
        start = timed(ways[1].run, device)[0] + timed(fast, device)[0]
        print(f"compiling, or reading what was compiled before: {start:.1f} s")
    seconds: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            clock, processor = timed(way.run, device)
            if number:  # the first round warms up
                seconds[way.name].append((clock / way.rays, processor / way.rays))
    print(f"\nS = {samples}, V = 10, {torch.get_num_threads()} threads, {device}, compiled: {compiled}\n")
    print("| | rays/s, median | slowest to fastest | times plain | rays a processor second | times plain |")
    print("|---|---|---|---|---|---|")
    base: list[float] = []
    for way in ways:
        clock, processor = ([pair[i] for pair in seconds[way.name]] for i in range(2))
        middle = [statistics.median(clock), statistics.median(processor)]
        base = base or middle
        print(
            f"| {way.name} | {1 / middle[0]:.0f} | {1 / max(clock):.0f} to {1 / min(clock):.0f} "
            f"| {base[0] / middle[0]:.1f} | {1 / middle[1]:.0f} | {base[1] / middle[1]:.1f} |"
        )


def training_memory(way: str, rays: int, samples: int, answer: Any) -> None:
    """Megabytes a ray that a forward and a backward pass add to a process, and their seconds of processor time."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = GSNNetwork(NetworkConfig(**OFFICIAL | {"tokens_through_image": False}))
    with torch.no_grad():
        views = network.encode(random_views(10, 96, 128))
    trunk, head = reference_of(network)
    origins, directions, depths = random_rays(rays, samples)
    enlarged = F.interpolate(views.tokens[0], size=(96, 128))

    def step(count: int) -> None:
        size = -(-count // (4 if "quarter" in way else 1))

        def losses() -> Iterator[dict[str, torch.Tensor]]:
            for start in range(0, count, size):
                part = slice(start, min(start + size, count))
                some = origins[part], directions[part], depths[part]
                if way == "plain":
                    outputs = reference_render(trunk, head, *some, views, enlarged)
                else:
                    outputs = network.render(*some, views)
                yield {name: outputs[name].square().sum() / count for name in ("rgb", "features")}

        weights = [*trunk.parameters(), *head.parameters()] if way == "plain" else list(network.parameters())
        sum(summed(losses(), weights).values()).backward()

    step(1)
    # A process starts with its parent's peak: it is set back to what is used now (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    seconds = timed(lambda: step(rays), "cpu")[1]
    answer.put(((peak_memory() - before) / rays, seconds / rays))


def peak_memory() -> float:
    """Largest resident memory of this process so far, megabytes."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def memory(samples: int = 192, rays: int = 32) -> None:
    """Prints megabytes a ray in training; each measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    print(f"\n| training, S = {samples}, V = 10, {rays} rays | MB a ray | rays a processor second |\n|---|---|---|")
    for way in ("plain", "exact", "exact, a quarter of the rays in memory"):
        answer = context.Queue()
        process = context.Process(target=training_memory, args=(way, rays, samples, answer))
        process.start()
        megabytes, seconds = answer.get()
        print(f"| {way} | {megabytes:.1f} | {1 / seconds:.1f} |", flush=True)
        process.join()


@torch.no_grad()
def quality(load_config: Path, data: Sequence[Path], output_dir: Path, max_images: int) -> None:
    """Prints what fast paths lose on a trained model, against uniform samples: mean over views, and the worst one."""
    from semfield_ns.gsn.runs import attach, open_run

    ways = {
        "exact, 64 uniform samples": (replace(FAST, mode="uniform", samples=64), "float32"),
        "fast": (FAST, "float32"),
        "fast, products in bfloat16": (FAST, "bfloat16"),
        "fast, features at every pixel": (replace(FAST, feature_stride=1), "float32"),
    }
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for path in data:
        model = open_run(attach(load_config, path, output_dir))
        scene = model.library.scenes[model.shown]
        for index in scene.held_out[:max_images]:
            for name, (settings, precision) in ways.items():
                model.config.rays, model.config.precision = settings, precision  # type: ignore[assignment]
                figures[name].append(judge(model, index))
    exact = np.array(figures["exact, 64 uniform samples"])
    print(f"\n{len(data)} scenes, {len(exact)} held-out views\n")
    print("| | PSNR, dB | lost | at most | cosine to the teacher | lost | at most | rays/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in figures.items():
        mean, lost = np.mean(rows, axis=0), exact - np.array(rows)
        texts = [f"{mean[0]:.2f} | {lost[:, 0].mean():.2f} | {lost[:, 0].max():.2f}"]
        texts += [f"{mean[1]:.4f} | {lost[:, 1].mean():.4f} | {lost[:, 1].max():.4f} | {mean[2]:.0f}"]
        print(f"| {name} | {' | '.join(texts)} |", flush=True)


def judge(model: GSNModel, index: int) -> tuple[float, float, float]:
    """PSNR, cosine to the teacher and rays a second of one held-out image of the shown scene."""
    truth = model.library.image(model.shown, index).float() / 255
    start = time.perf_counter()
    raw = model.raw_outputs_for_camera(model.library.scenes[model.shown].cameras[torch.tensor([index])])
    seconds = time.perf_counter() - start
    error = (raw["rgb"].float().clamp(0, 1) - truth).square().mean()
    teacher = model.distilled[0].upright(model.shown, index, (truth.shape[0], truth.shape[1]))
    cosine = float(F.cosine_similarity(raw["features"].float(), teacher, dim=-1).mean())
    return float(-10 * torch.log10(error)), cosine, truth.shape[0] * truth.shape[1] / seconds


def main(
    samples: int = 64,
    rounds: int = 5,
    threads: int = 2,
    chunk: int = 4096,
    compile: bool = False,
    device: str = "cpu",
    with_memory: bool = True,
    load_config: Path | None = None,
    data: tuple[Path, ...] = (),
    output_dir: Path = Path("outputs/render_benchmark"),
    max_images: int = 3,
) -> None:
    """Measure.

    Args:
        samples: S of plain and exact.
        rounds: each way is timed so often, in turn.
        threads: of the CPU.
        chunk: rays at once, at most, of exact and fast.
        compile: compile the softmax over views.
        device: cpu or cuda.
        with_memory: measure training memory too (CPU).
        load_config: config.yml of a trained run of gsn.
        data: scenes for it, which it was not trained on.
        output_dir: for the attached run.
        max_images: held-out images of each scene.
    """
    torch.set_num_threads(threads)
    speed(samples, rounds, chunk, compile, device)
    if with_memory and device == "cpu":
        memory()
    if load_config is not None:
        quality(load_config, data, output_dir, max_images)


if __name__ == "__main__":
    tyro.cli(main)
