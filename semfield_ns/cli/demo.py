"""`semfield demo`: a synthetic video, a training on it, its evaluation and a video of the result, in minutes."""

import json
import math
import os
import re
import shutil
import zipfile
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from semfield_ns.cli.hints import viewer_line
from semfield_ns.cli.progress import Progress
from semfield_ns.cli.steps import Step, StepRunner, read_marker, run_child, step_keys, tool, wait_for_earlier
from semfield_ns.errors import SemfieldError

OUTPUT_NAMES = ("rgb", "semantics_colormap", "flow_forward", "depth")
EXPERIMENT = "synthetic"
TIMESTAMP = "run"
STEPS_PER_SAVE = 250
RAYS_PER_SECOND_TAG = "Train Rays / Sec"


def demo(
    output_dir: Path = Path("outputs/demo"),
    scene: str = "demo",
    method: str = "semantic-flow-splat-tiny",
    width: int | None = None,
    labels: str = "every-2",
    max_iterations: int | None = None,
    seconds: float = 2.0,
    fps: float = 12.0,
    seed: int = 0,
) -> None:
    """Train on a synthetic scene, evaluate, and render a video.

    A demo that was stopped resumes when the command is repeated.

    Args:
        output_dir: Folder for everything that the demo writes.
        scene: Name of the synthetic scene; semfield synthetic --help lists them.
        method: Method to train with ns-train.
        width: Width of the images in pixels; the height is 3/4 of it. By default 320 for Gaussians, 160 for fields.
        labels: Training frames that have labels: all, every-N, or another schedule of the data parser.
        max_iterations: Training steps. By default, those of the method.
        seconds: Length of the video in seconds.
        fps: Frames per second of the video.
        seed: Seed of the scene and of the training.
    """
    if shutil.which("ffmpeg") is None:
        raise SemfieldError(
            "The demo ends with a video, and there is no ffmpeg on the PATH, nor that of imageio-ffmpeg: "
            "install ffmpeg and try again."
        )
    if method not in (known := {entry.name for entry in entry_points(group="nerfstudio.method_configs")}):
        raise SemfieldError(f"There is no method {method!r}: choose one of {', '.join(sorted(known))}.")
    width = width or (320 if "splat" in method else 160)
    plan = DemoPlan(output_dir, scene, method, width, labels, max_iterations, seconds, fps, seed)
    StepRunner(plan.markers).run_all(plan.steps())
    plan.print_summary()


@dataclass
class DemoPlan:
    """The steps of a demo and where their results go."""

    output_dir: Path
    scene: str
    method: str
    width: int
    labels: str
    max_iterations: int | None
    seconds: float
    fps: float
    seed: int

    def __post_init__(self) -> None:
        self.markers = self.output_dir / ".steps"
        self.scene_dir = self.output_dir / "scene"
        self.run_dir = self.output_dir / EXPERIMENT / self.method / TIMESTAMP
        self.config = self.run_dir / "config.yml"
        self.checkpoints = self.run_dir / "nerfstudio_models"
        self.evaluation = self.output_dir / "evaluation.json"
        self.evaluation_dir = self.output_dir / "evaluation"
        self.confusion_counts = self.evaluation_dir / "confusion_matrix.json"
        self.path = self.output_dir / "camera_path.json"
        self.video = self.output_dir / "rgb_semantics_flow_depth.mp4"
        self.figures = self.output_dir / "training_curves.png", self.output_dir / "confusion_matrix.png"
        self.metrics = self.output_dir / "metrics.json"

    def log(self, name: str) -> Path:
        return self.output_dir / "logs" / f"{name}.log"

    def steps(self) -> list[Step]:
        """The work, in order."""
        from semfield_ns import __version__

        path_inputs = {"seconds": self.seconds, "fps": self.fps}
        figures = (*self.figures, self.metrics)
        return [
            Step(
                "scene",
                f"Writing the synthetic scene {self.scene!r}",
                {"version": __version__, "scene": self.scene, "seed": self.seed, "width": self.width},
                (self.scene_dir / "transforms.json",),
                self.write_scene,
            ),
            Step(
                "train",
                f"Training {self.method} (ns-train)",
                {"method": self.method, "labels": self.labels, "iterations": self.max_iterations},
                (self.config, self.checkpoints),
                self.train,
            ),
            Step(
                "evaluate",
                "Evaluating on held-out views (ns-eval)",
                {},
                (self.evaluation, self.confusion_counts),
                self.evaluate,
            ),
            Step("camera-path", "Laying out the camera path", path_inputs, (self.path,), self.write_path),
            Step("render", f"Rendering {' | '.join(OUTPUT_NAMES)} (ns-render)", {}, (self.video,), self.render),
            Step("figures", "Drawing figures", {}, figures, self.draw),
        ]

    def write_scene(self, progress: Progress) -> None:
        from semfield_ns.scenes.synthetic import write_scene

        size = {"width": self.width, "height": self.width * 3 // 4}
        write_scene(
            self.scene, self.scene_dir, seed=self.seed, progress=lambda done, total: progress(done / total), **size
        )

    def train(self, progress: Progress) -> None:
        """Trains from the start, or from the last checkpoint of a training with the same inputs that was killed."""
        from semfield_ns.io import write_json

        wait_for_earlier(self.log("train"))
        key = step_keys(self.steps())["train"]
        begun = self.markers / "train.begun.json"
        record = read_marker(begun)
        if record.get("key") != key:
            if self.run_dir.exists() and not record:
                raise SemfieldError(f"{self.run_dir} was not made by a demo: choose another --output-dir.")
            shutil.rmtree(self.run_dir, ignore_errors=True)
            record = {"key": key, "iterations": self.max_iterations}
            write_json(begun, record)

        command = [
            *(tool("ns-train"), self.method),
            *("--output-dir", str(self.output_dir), "--experiment-name", EXPERIMENT, "--timestamp", TIMESTAMP),
            *("--vis", "tensorboard", "--viewer.quit-on-train-completion", "True"),
            *("--machine.seed", str(self.seed), "--machine.device-type", device_type()),
            *("--steps-per-save", str(STEPS_PER_SAVE)),
            *("--logging.local-writer.max-log-size", "0"),
            *("--data", str(self.scene_dir), "--pipeline.datamanager.dataparser.labels", self.labels),
        ]
        iterations, checkpoint, done = record["iterations"], *newest_checkpoint(self.checkpoints)
        if checkpoint is not None:
            # A resumed run writes its own config.yml, with the iterations that were left: the total is in the first.
            if iterations is None:
                iterations = configured_iterations(self.config)
                write_json(begun, record | {"iterations": iterations})
            if done >= iterations:
                return
            command += ["--load-checkpoint", str(checkpoint), "--max-num-iterations", str(iterations - done)]
        elif iterations is not None:
            command += ["--max-num-iterations", str(iterations)]
        session = (iterations - done) / iterations if iterations else 1.0
        run_child(command, self.log("train"), lambda share: progress(share * session), "The training", bars=False)

    def evaluate(self, progress: Progress) -> None:
        self.confusion_counts.unlink(missing_ok=True)
        command = [tool("ns-eval"), "--load-config", str(self.config), "--output-path", str(self.evaluation)]
        command += ["--render-output-path", str(self.evaluation_dir)]
        run_child(command, self.log("evaluate"), progress, "The evaluation")

    def write_path(self, progress: Progress) -> None:
        from contextlib import redirect_stdout

        from semfield_ns.cli.camera_path import camera_path

        self.log("camera-path").parent.mkdir(parents=True, exist_ok=True)
        with self.log("camera-path").open("w", encoding="utf-8") as sink, redirect_stdout(sink):
            camera_path(self.config, self.path, kind="train", seconds=self.seconds, fps=self.fps)

    def render(self, progress: Progress) -> None:
        partial = self.video.with_name(f".{self.video.name}")
        command = [tool("ns-render"), "camera-path", "--load-config", str(self.config)]
        command += ["--camera-path-filename", str(self.path), "--output-path", str(partial)]
        command += ["--rendered-output-names", *OUTPUT_NAMES]
        run_child(command, self.log("render"), progress, "The rendering")
        os.replace(partial, self.video)

    def draw(self, progress: Progress) -> None:
        from semfield_ns.evaluation.report import (
            confusion_matrix_png,
            logged_seconds,
            read_scalars,
            training_curves_png,
        )
        from semfield_ns.io import write_json
        from semfield_ns.metrics.confusion import ConfusionMatrix

        curves, confusion = self.figures
        training_curves_png(self.run_dir, curves)
        matrix, names = ConfusionMatrix.load(self.confusion_counts)
        confusion_matrix_png(matrix, names, confusion)

        results = json.loads(self.evaluation.read_text(encoding="utf-8"))["results"]
        scalars = read_scalars(self.run_dir)
        rates = sorted(scalars.get(RAYS_PER_SECOND_TAG, ([], []))[1])
        summary: dict[str, Any] = {name: results[name] for name in ("psnr", "ssim", "miou", "accuracy")}
        summary["train_seconds"] = round(logged_seconds(self.run_dir), 1)
        summary["rays_per_second"] = round(rates[len(rates) // 2]) if rates else None
        summary["train_steps"] = newest_checkpoint(self.checkpoints)[1]
        summary |= {"scene": self.scene, "method": self.method, "labels": self.labels, "seed": self.seed}
        rest = {name: value for name, value in results.items() if name not in summary and math.isfinite(value)}
        write_json(self.metrics, summary | rest)

    def print_summary(self) -> None:
        """Figures, where everything is, and what to type next."""
        from rich.console import Console

        metrics = json.loads(self.metrics.read_text(encoding="utf-8"))
        rows = {
            "held-out views": "PSNR {psnr:.2f} dB, SSIM {ssim:.3f}, mIoU {miou:.3f}".format(**metrics),
            "training": "{train_steps} steps, {train_seconds:.0f} s, {rays_per_second} rays/s".format(**metrics),
            "video": self.video,
            "training curves": self.figures[0],
            "confusion matrix": self.figures[1],
            "all figures": self.metrics,
            "scene": self.scene_dir,
        }
        console = Console(soft_wrap=True, highlight=False, markup=False)
        for name, value in rows.items():
            console.print(f"  {name:<18}{value}")
        console.print("To see it in the browser:")
        console.print(viewer_line(self.config), style="bold")


def device_type() -> str:
    """What to train on; Nerfstudio takes CUDA for granted."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def newest_checkpoint(folder: Path) -> tuple[Path | None, int]:
    """The last whole checkpoint in a run's folder and the number of training steps it has behind it; (None, 0) if none.

    A checkpoint is a zip archive whose directory comes last: one that was cut off while it was written has none.
    """
    found = [path for path in folder.glob("step-*.ckpt") if zipfile.is_zipfile(path)]
    if not found:
        return None, 0
    newest = max(found, key=checkpoint_step)
    return newest, checkpoint_step(newest) + 1


def checkpoint_step(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.stem.removeprefix("step-"))


def configured_iterations(config: Path) -> int:
    """`max_num_iterations` of a run's config.yml (read as text: loading one imports all of Nerfstudio)."""
    found = re.search(r"^max_num_iterations: (\d+)$", config.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        raise SemfieldError(f"{config} has no max_num_iterations: delete the folder {config.parent} and try again.")
    return int(found.group(1))
