"""Real scenes left out of the training, one after the other: trains gsn-tiny on the others and on synthetic scenes.

    python benchmarks/gsn_rotations.py outputs/RUN/config.yml SYNTHETIC fern mold_gold_cape dtu_scan65 --steps 750

Every rotation starts from RUN (gsn-tiny, trained on SYNTHETIC alone) and draws from the real scenes as often as from
the synthetic ones together. Half way to the end the rates fall, and features count more. It goes on where it was cut;
a rotation that has its steps is not trained again. Then `gsn_zero_shot.py` measures the scene that was left out.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import tyro

from semfield_ns.gsn.dataparser import scene_name
from semfield_ns.gsn.library import find_scenes
from semfield_ns.gsn.runs import newest_checkpoint, read_run


def newest(run: Path, start: Path) -> Path:
    """The newest checkpoint of a run that may not have begun yet."""
    return newest_checkpoint(run) if run.is_file() and any(run.parent.glob("*/step-*.ckpt")) else start


def step_of(checkpoint: Path) -> int:
    """The step at which a checkpoint was saved."""
    return int(checkpoint.stem.partition("-")[2])


def main(
    load_config: Annotated[Path, tyro.conf.Positional],
    synthetic: Annotated[Path, tyro.conf.Positional],
    real: Annotated[list[Path], tyro.conf.Positional],
    steps: int = 1000,
    feature_loss: float = 8.0,
    output_dir: Path = Path("outputs/gsn_rotations"),
    pictures: Path | None = None,
    max_images: int = 100,
) -> None:
    """Train and measure all rotations.

    Args:
        load_config: config.yml of the run on synthetic scenes.
        synthetic: its scenes.
        real: at least two real scenes.
        steps: beyond that run.
        feature_loss: weight of the features in the second half.
        output_dir: for runs.
        pictures: folder for comparison pictures.
        max_images: held-out images of each scene, at most.
    """
    start = newest_checkpoint(load_config)
    read_run(load_config)
    scripts = Path(sys.executable).parent
    for left_out in real:
        name = left_out.resolve().name
        scenes, others = output_dir / "scenes" / name, [path.resolve() for path in real if path != left_out]
        scenes.mkdir(parents=True, exist_ok=True)
        some = [path.resolve() for path in find_scenes(synthetic)]
        for path in (*some, *others):
            if not (scenes / path.name).exists():
                (scenes / path.name).symlink_to(path)
        weights = [f"{scene_name(scenes / p.name, scenes)}={max(1, len(some) // len(others))}" for p in others]
        run = output_dir / name / "gsn-tiny" / "run" / "config.yml"
        for until, weight in ((steps // 2, 1.0), (steps, feature_loss)):
            checkpoint = newest(run, start)
            left = step_of(start) + until - step_of(checkpoint)
            if left <= 0:
                continue
            command = [
                *(str(scripts / "ns-train"), "gsn-tiny", "--data", str(scenes), "--output-dir", str(output_dir)),
                *(
                    "--experiment-name",
                    name,
                    "--timestamp",
                    "run",
                    "--vis",
                    "tensorboard",
                    "--machine.seed",
                    str(until),
                ),
                *("--load-checkpoint", str(checkpoint), "--max-num-iterations", str(left), "--steps-per-save", "50"),
                *(
                    "--pipeline.datamanager.seed",
                    str(step_of(checkpoint)),
                    "--pipeline.model.feature-loss",
                    str(weight),
                ),
            ]
            for group in ("encoder", "trunk", "head"):
                command += [f"--optimizers.{group}.scheduler.halve-every", "1500" if weight == 1.0 else "600"]
            command += ["--pipeline.datamanager.scene-weights", *weights]
            subprocess.run(command, check=True)
        zero_shot = [sys.executable, str(Path(__file__).with_name("gsn_zero_shot.py")), str(run), str(left_out)]
        zero_shot += ["--output-dir", str(output_dir / "attached"), "--max-images", str(max_images)]
        subprocess.run(zero_shot + ([] if pictures is None else ["--pictures", str(pictures)]), check=True)


if __name__ == "__main__":
    tyro.cli(main)
