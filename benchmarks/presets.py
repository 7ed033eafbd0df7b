"""Every preset on one device: seconds a step, pictures a second, memory, and what a step asks of the device.

    python benchmarks/presets.py                                   # on CUDA, all presets
    python benchmarks/presets.py --device cpu --presets gsn-tiny --steps 8 --warm-up 4

Each preset trains in a process of its own on a scene made here, with the trainer's precision and with bfloat16
autocast; those of gsn distil --teacher, which needs no weights. A step is counted when the device has finished it. Rows
are kept in --results as they come, and are not measured again; a preset that fails says why in its row. Prints a
Markdown table; with --profiles, a table of the kernels of ten steps for each preset.
"""

import json
import random
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro
from gpu import memory, synchronised
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from training import machine

from semfield_ns.io import write_json
from semfield_ns.method_configs import gsn, semantic_flow, semantic_flow_splat
from semfield_ns.scenes.synthetic import write_scene

SPECIFICATIONS = (
    *(semantic_flow.semantic_flow, semantic_flow.semantic_flow_paper, semantic_flow.semantic_flow_tiny),
    *(semantic_flow_splat.semantic_flow_splat, semantic_flow_splat.semantic_flow_splat_tiny),
    *(gsn.gsn, gsn.gsn_paper, gsn.gsn_tiny),
)
CONFIGS = {entry.config.method_name: entry.config for entry in SPECIFICATIONS}
COLUMNS = ("preset", "autocast", "set-up s", "ms a step", "rays/s", "launches", "waits", "s a picture", "GiB", "loss")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def prepared(method: str, scene: Path, device: str, teacher: str) -> Any:
    """The pipeline of a preset on a scene, or on a folder of them for gsn."""
    config = deepcopy(CONFIGS[method])
    if method.startswith("gsn"):
        config.pipeline.model.teacher = teacher
    manager = config.pipeline.datamanager
    manager.data = manager.dataparser.data = scene
    for seeded in (torch.manual_seed, random.seed, np.random.seed):
        seeded(0)
    return config.pipeline.setup(device=device, test_mode="val"), config


def trained_step(pipeline: Any, config: Any, autocast: bool, device: str) -> Callable[[int], float]:
    """A function that makes one step of training, and returns the loss."""
    groups = pipeline.get_param_groups()
    optimizers = Optimizers({name: config.optimizers[name] for name in groups}, groups)
    attributes = TrainingCallbackAttributes(optimizers=optimizers, grad_scaler=None, pipeline=pipeline, trainer=None)
    callbacks = pipeline.get_training_callbacks(attributes)
    kind = device.split(":")[0]

    def step(number: int) -> torch.Tensor:
        for callback in callbacks:
            callback.run_callback_at_location(number, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        optimizers.zero_grad_all()
        with torch.autocast(kind, dtype=torch.bfloat16) if autocast else nullcontext():
            _, losses, _ = pipeline.get_train_loss_dict(number)
            total = sum(losses.values())
        total.backward()
        optimizers.optimizer_step_all()
        for scheduler in optimizers.schedulers.values():
            scheduler.step()
        for callback in callbacks:
            callback.run_callback_at_location(number, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
        return total.detach()

    return step


def stalls(step: Callable[[int], Any], number: int) -> str:
    """Where a step on CUDA waits for the device: lines of the package, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step(number)
    torch.cuda.set_sync_debug_mode("default")
    lines = Counter(f"{Path(entry.filename).name}:{entry.lineno}" for entry in caught)
    return "\n".join(f"{count} {line}" for line, count in lines.most_common())


def counted(step: Callable[[int], Any], first: int, number: int, device: str) -> tuple[float, float, str]:
    """Kernel launches and waits for the device in a step, and the table of kernels of `number` steps."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        for index in range(number):
            step(first + index)
        synchronised(device)
    rows = found.key_averages()
    launches = sum(row.count for row in rows if row.key.startswith("cudaLaunchKernel")) / number
    waits = sum(row.count for row in rows if row.key in WAITS) / number
    return launches, waits, rows.table(sort_by="cuda_time_total" if cuda else "cpu_time_total", row_limit=30)


def measure(
    method: str,
    scene: Path,
    device: str,
    teacher: str,
    autocast: bool,
    steps: int,
    warm_up: int,
    profiles: Path | None,
) -> dict:
    """One row."""
    start = time.perf_counter()
    pipeline, config = prepared(method, scene, device, teacher)
    set_up = synchronised(device) - start
    pipeline.train()
    step = trained_step(pipeline, config, autocast, device)
    # The stage in which everything is learned.
    first = getattr(config.pipeline.model, "stage_one_steps", 0)
    seconds = []
    for number in range(warm_up + steps):
        start = synchronised(device)
        loss = float(step(first + number))
        seconds.append(synchronised(device) - start)
    rays = getattr(config.pipeline.datamanager, "train_num_rays_per_batch", None)
    if rays is None:
        camera = pipeline.datamanager.train_dataset.cameras[0]
        rays = int(camera.height * camera.width)
    middle = float(np.median(seconds[warm_up:]))
    launches, waits, table = counted(step, first + warm_up + steps, 10 if device.startswith("cuda") else 1, device)
    if profiles is not None:
        profiles.mkdir(parents=True, exist_ok=True)
        if device.startswith("cuda"):
            table += f"\n\nWhere a step waits for the device:\n{stalls(step, first + warm_up + steps + 11)}\n"
        (profiles / f"{method}{'-autocast' if autocast else ''}.txt").write_text(table)
    pipeline.eval()
    camera = pipeline.datamanager.train_dataset.cameras[:1].to(device)
    with torch.no_grad():
        pipeline.model.get_outputs_for_camera(camera)
        start = synchronised(device)
        pipeline.model.get_outputs_for_camera(camera)
        picture = synchronised(device) - start
    return {
        "preset": method,
        "autocast": "bfloat16" if autocast else "as set",
        "set-up s": f"{set_up:.1f}",
        "ms a step": f"{1000 * middle:.1f}",
        "rays/s": f"{rays / middle:,.0f}",
        "launches": f"{launches:,.0f}",
        "waits": f"{waits:,.1f}",
        "s a picture": f"{picture:.3f}",
        "GiB": memory(device).split()[0],
        "loss": f"{loss:.3f}",
    }


def in_a_process(arguments: list[str], seconds: float) -> dict:
    """The row that this script finds in a process of its own, or what went wrong."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not ready after {seconds:.0f} s"}
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return {"error": lines[-1][:200] if lines else f"exit code {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(
    device: str = "cuda",
    presets: tuple[str, ...] = tuple(CONFIGS),
    width: int = 320,
    frames: int = 24,
    scenes: int = 3,
    teacher: str = "classical",
    steps: int = 50,
    warm_up: int = 20,
    seconds: float = 120.0,
    autocast: tuple[bool, ...] = (False, True),
    results: Path = Path("outputs/presets.json"),
    profiles: Path | None = None,
    data: Path | None = None,
    only: str = "",
) -> None:
    """Measure.

    Args:
        device: Of torch.
        presets: Which.
        width: Of the frames, pixels; the height is three quarters of it.
        frames: Of a scene.
        scenes: For gsn.
        teacher: Of gsn.
        steps: Measured.
        warm_up: Steps before.
        seconds: A preset may take.
        autocast: With bfloat16, without, or both.
        results: Where rows are kept.
        profiles: Folder for tables of kernels.
        data: Where the scenes are written; a temporary folder if not given.
        only: For processes of this script: the one preset that it measures.
    """
    with TemporaryDirectory() as temporary:
        folder = data or Path(temporary)
        if only:
            of_gsn = only.startswith("gsn")
            scene = folder / ("static" if of_gsn else "demo")
            print(json.dumps(measure(only, scene, device, teacher, autocast[0], steps, warm_up, profiles)))
            return
        size = {"num_frames": frames, "width": width, "height": width * 3 // 4}
        if not (folder / "demo").exists():
            write_scene("demo", folder / "demo", **size)
        for number in range(scenes):
            if not (folder / "static" / f"{number}").exists():
                write_scene("static", folder / "static" / f"{number}", seed=number, **size)
        rows = json.loads(results.read_text()) if results.exists() else {}
        settings = ["--device", device, "--data", str(folder), "--steps", str(steps), "--warm-up", str(warm_up)]
        settings += ["--teacher", teacher]
        settings += ["--profiles", str(profiles)] if profiles else []
        for preset in presets:
            for mixed in autocast:
                key = f"{preset}, {device}, {width}x{width * 3 // 4}, {'bfloat16' if mixed else 'as set'}"
                if "error" in rows.get(key, {"error": ""}):
                    print(key, file=sys.stderr, flush=True)
                    rows[key] = in_a_process([*settings, "--only", preset, "--autocast", str(mixed)], seconds)
                    results.parent.mkdir(parents=True, exist_ok=True)
                    write_json(results, rows)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for key, row in rows.items():
        print(
            f"| {' | '.join(row[name] for name in COLUMNS)} |" if "error" not in row else f"| {key}: {row['error']} |"
        )
    print(f"\n{torch.cuda.get_device_name() if device.startswith('cuda') else 'CPU'}. {machine()}")


if __name__ == "__main__":
    tyro.cli(main)
