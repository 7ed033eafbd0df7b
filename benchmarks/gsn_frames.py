"""Seconds a picture and rays a second of training of GSN's full network, with all that can be switched: one call.

    python benchmarks/gsn_frames.py --device cuda                                    # 504x378, 10 source views
    python benchmarks/gsn_frames.py --width 48 --height 36 --rays 16 --rounds 1      # the same on a CPU, for a look

Pictures have colours, depth and 64-channel features; their source views have been encoded, as for all pictures of a
scene but the first. Exact: uniform samples for every pixel, as many as --samples. Guided: a first look at every 4th
pixel, 24 samples around what it found for every pixel, as the preset `gsn`. Steps of training encode the views. Weights
are random: the time does not depend on them.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import tyro
from nerfstudio.cameras.rays import RayBundle

from semfield_ns.gsn.network import OFFICIAL, GSNNetwork, NetworkConfig
from semfield_ns.gsn.projection import SourceViews
from semfield_ns.gsn.rendering import RaySettings, render_image, render_rays
from semfield_ns.scene_model import finished

BOUNDS = (1.2, 6.0)
FOCAL = 0.8  # of the width


def make_views(count: int, height: int, width: int, device: str) -> SourceViews:
    """Random pictures of cameras around the origin that look along -z, with tokens of every 8th pixel."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.eye(4).repeat(count, 1, 1)[:, :3]
    pose[:, :, 3] = 0.2 * torch.randn(count, 3, generator=generator)
    tokens = torch.randn(count, 64, -(-height // 8), -(-width // 8), generator=generator)
    focal = FOCAL * width
    return SourceViews(
        images=torch.rand(count, 3, height, width, generator=generator).to(device),
        camera_to_world=pose.to(device),
        intrinsics=torch.tensor([focal, focal, width / 2, height / 2]).expand(count, 4).contiguous().to(device),
        tokens=(torch.nn.functional.normalize(tokens, dim=1).to(device),),
    )


def make_rays(height: int, width: int, device: str) -> RayBundle:
    """Of a camera at the origin."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    focal = FOCAL * width
    directions = torch.stack([(x - width / 2) / focal, (height / 2 - y) / focal, -torch.ones_like(x)], dim=-1)
    norm = directions.norm(dim=-1, keepdim=True)
    bundle = RayBundle(
        origins=torch.zeros(height, width, 3),
        directions=directions / norm,
        pixel_area=torch.ones(height, width, 1),
        metadata={"directions_norm": norm},
    )
    return bundle.to(device)


def measure(run: Callable[[], Any], device: str, rounds: int) -> tuple[float, float, float]:
    """Seconds of the first call and of later ones (median), and the largest memory in use in GB (nan: a CPU)."""
    seconds = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    return seconds[0], statistics.median(seconds[1:]), memory


def main(
    device: Literal["cpu", "cuda"] = "cpu",
    width: int = 504,
    height: int = 378,
    views: int = 10,
    samples: tuple[int, ...] = (192, 64),
    rays: int = 512,
    chunk: int = 4096,
    rounds: int = 3,
    compile: tuple[bool, ...] = (False, True),
) -> None:
    """Measure everything.

    Args:
        device: cpu or cuda.
        width: of source views and of the picture.
        height: see width.
        views: source views.
        samples: of exact pictures and of training rays.
        rays: of a training step.
        chunk: rays at once in pictures.
        rounds: of each measurement, after a first one.
        compile: without and with the compiled softmax over views.
    """
    torch.manual_seed(0)
    network = GSNNetwork(NetworkConfig(**OFFICIAL | {"tokens_through_image": False})).to(device).eval()
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {width}x{height}, V = {views}\n")
    bare, bundle = make_views(views, height, width, device), make_rays(height, width, device)
    with torch.no_grad():
        encoded = network.encode(bare)
    settings = {f"exact, S = {count}": RaySettings(mode="uniform", samples=count) for count in samples}
    settings["guided, 64 + 24"] = RaySettings(mode="guided", samples=64, fine_samples=24)
    types = (torch.float32, torch.bfloat16)

    print("| picture | precision | compiled | first, s | s a picture | GB |\n|---|---|---|---|---|---|")
    for (way, setting), dtype, compiled in itertools.product(settings.items(), types, compile):
        network.use_compiled(compiled)

        def render(setting: RaySettings = setting, dtype: torch.dtype = dtype) -> None:
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                finished(render_image(network, bundle, BOUNDS, encoded, setting, True, chunk))

        first, later, memory = measure(render, device, rounds)
        print(f"| {way} | {str(dtype)[6:]} | {compiled} | {first:.1f} | {later:.2f} | {memory:.1f} |", flush=True)

    print("\n| training | precision | compiled | first step, s | rays/s | GB |\n|---|---|---|---|---|---|")
    some = bundle.flatten()[torch.randperm(height * width)[:rays].to(device)]
    network.train()
    for count, dtype, compiled in itertools.product(samples, types, compile):
        network.use_compiled(compiled)
        setting = RaySettings(mode="uniform", samples=count)

        def step(setting: RaySettings = setting, dtype: torch.dtype = dtype) -> None:
            network.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                outputs = render_rays(network, some, BOUNDS, network.encode(bare), setting, True, training=True)
            (outputs["rgb"].square().mean() + outputs["features"].square().mean()).backward()

        first, later, memory = measure(step, device, rounds)
        figures = f"{first:.1f} | {rays / later:.0f} | {memory:.1f}"
        print(f"| {rays} rays, S = {count} | {str(dtype)[6:]} | {compiled} | {figures} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
