"""Memory of training against the length of a video: `python benchmarks/long_video.py --output docs/images`.

    python benchmarks/long_video.py --method semantic-flow-splat-tiny --width 320 --height 240

Writes synthetic scenes of several lengths, trains a few steps on each in a process of its own, and prints the peak of
what a process cannot give back (anonymous memory) and of what it has mapped from files. Results are kept in
benchmarks/results/long_video.json; lengths that are there are not measured again.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tyro

RESULTS = Path(__file__).parent / "results" / "long_video.json"


def resident() -> dict[str, float]:
    """MiB of this process by kind: anonymous, mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}
    return {"anonymous": values["RssAnon"], "files": values["RssFile"]}


def measure(method: str, frames: int, width: int, height: int, budget: int, steps: int) -> dict[str, float]:
    """Trains and watches the memory of this process.

    Args:
        method: a tiny preset.
        frames: of the video.
        width: px.
        height: px.
        budget: of decoded frames, MB.
        steps: of training, the first half of them stage 1.
    """
    from copy import deepcopy

    import torch
    from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
    from nerfstudio.engine.optimizers import Optimizers

    from semfield_ns.method_configs.semantic_flow import semantic_flow_tiny
    from semfield_ns.method_configs.semantic_flow_splat import semantic_flow_splat_tiny

    with tempfile.TemporaryDirectory() as folder:
        # The writer keeps nothing of what it wrote, but Python keeps memory: it has a process of its own.
        write = f"from semfield_ns.scenes.synthetic import write_scene; write_scene('demo', {folder + '/scene'!r}, "
        write += f"num_frames={frames}, width={width}, height={height}, samples_per_axis=1)"
        subprocess.run([sys.executable, "-c", write], check=True)
        on_rays = method == "semantic-flow-tiny"
        config = deepcopy((semantic_flow_tiny if on_rays else semantic_flow_splat_tiny).config)
        config.pipeline.datamanager.data = Path(folder) / "scene"
        config.pipeline.datamanager.memory_budget = budget
        config.pipeline.datamanager.window_steps = 10
        config.pipeline.datamanager.dataparser.labels = "every-4"
        if on_rays:
            config.pipeline.model.stage_one_steps = steps // 2
        before, peak, done = resident(), {"anonymous": 0.0, "files": 0.0}, threading.Event()

        def watch() -> None:
            while not done.is_set():
                for kind, value in resident().items():
                    peak[kind] = max(peak[kind], value)
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        torch.manual_seed(0)
        pipeline = config.pipeline.setup(device="cpu", test_mode="val")
        groups = pipeline.get_param_groups()
        optimizers = Optimizers({name: config.optimizers[name] for name in groups}, groups)
        attributes = TrainingCallbackAttributes(
            optimizers=optimizers, grad_scaler=None, pipeline=pipeline, trainer=None
        )
        callbacks = pipeline.get_training_callbacks(attributes)
        pipeline.train()
        start = time.perf_counter()
        for step in range(steps):
            for callback in callbacks:
                callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
            optimizers.zero_grad_all()
            sum(pipeline.get_train_loss_dict(step)[1].values()).backward()
            optimizers.optimizer_step_all()
        seconds = (time.perf_counter() - start) / steps
        done.set()
        watcher.join()
        parameters = sum(p.numel() for p in pipeline.model.parameters())
        # Weights, their gradients and the two moments of Adam.
        learned = parameters * 16 / 2**20
    return {
        "before": before["anonymous"],
        "anonymous": peak["anonymous"],
        "files": peak["files"],
        "learned": learned,
        "step": seconds,
    }


def main(
    method: str = "semantic-flow-tiny",
    lengths: tuple[int, ...] = (12, 60, 240),
    budgets: tuple[int, ...] = (64, 1_000_000),
    width: int = 192,
    height: int = 144,
    steps: int = 40,
    output: Path | None = None,
    one: bool = False,
) -> None:
    """Measure, print a table, draw.

    Args:
        method: a tiny preset.
        lengths: of the videos, frames.
        budgets: MB; the last one is meant to be no limit.
        width: of the pictures, px.
        height: of the pictures, px.
        steps: of training.
        output: folder for the picture.
        one: measure the first length and budget in this process, and print the result as JSON.
    """
    if one:
        print("RESULT " + json.dumps(measure(method, lengths[0], width, height, budgets[0], steps)))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for budget in budgets:
        for frames in lengths:
            key = f"{frames} frames of {width}x{height}, budget {budget} MB, {steps} steps"
            key = key if method == "semantic-flow-tiny" else f"{method}, {key}"
            if key in results:
                continue
            arguments = [
                "--method",
                method,
                "--lengths",
                frames,
                "--budgets",
                budget,
                "--width",
                width,
                "--height",
                height,
                "--steps",
                steps,
            ]
            command = [sys.executable, __file__, *map(str, arguments), "--one"]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            line = next(line for line in printed.splitlines() if line.startswith("RESULT "))
            results[key] = {
                "method": method,
                "size": [width, height],
                "frames": frames,
                "budget": budget,
                **json.loads(line.removeprefix("RESULT ")),
            }
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(key, results[key], flush=True)
    print("| budget, MB | frames | anonymous, MiB | of it before training | weights and optimiser | files mapped |")
    print("|---|---|---|---|---|---|")
    rows = [row for row in results.values() if row.get("method") == method and row.get("size") == [width, height]]
    for row in rows:
        cells = (row["anonymous"], row["before"], row["learned"], row["files"])
        print(f"| {row['budget']} | {row['frames']} | {' | '.join(f'{cell:.0f}' for cell in cells)} |")
    if output is not None:
        draw(rows, budgets, output)


def draw(results: list[dict], budgets: tuple[int, ...], output: Path) -> None:
    """Anonymous memory beyond that of the imported libraries, against frames, a line a budget."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for budget in budgets:
        rows = sorted((row for row in results if row["budget"] == budget), key=lambda row: row["frames"])
        name = f"budget {budget} MB" if budget < 100_000 else "no budget"
        used = [row["anonymous"] - row["before"] for row in rows]
        axes.plot([row["frames"] for row in rows], used, "o-", label=name)
    axes.set_xlabel("frames")
    axes.set_ylabel("peak memory of training, MiB")
    axes.set_ylim(bottom=0)
    axes.legend()
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "long_video.png", dpi=90)


if __name__ == "__main__":
    tyro.cli(main)
