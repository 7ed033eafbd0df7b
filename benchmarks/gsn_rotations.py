"""Real scenes left out of the training, one after the other: trains gsn-tiny on the others and on synthetic scenes.

    python benchmarks/gsn_rotations.py outputs/RUN/config.yml SYNTHETIC fern mold_gold_cape dtu_scan65 --steps 750

Every rotation starts from RUN (gsn-tiny, trained on SYNTHETIC alone) and draws from the real scenes as often as from
the synthetic ones together. The rates are those that RUN ended with, and are halved three times towards the end. It
resumes where it was cut; a rotation that has its steps is not trained again. Then `gsn_zero_shot.py` measures the scene
that was left out. Nothing is chosen by looking at it: steps and weights are the same for all.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semfield_ns.gsn.runs import newest_checkpoint, read_run
from semfield_ns.scenes.collection import find_scenes

PIECES = ((0, 0.0), (1, 2 / 3), (2, 0.8), (3, 0.93))
"""How often the rates have been halved, and from which share of the steps on."""


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
    steps: int = 750,
    feature_loss: float = 8.0,
    frame: Literal["scene", "view"] = "view",
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
        feature_loss: weight of the features.
        frame: coordinates in which the network receives positions.
        output_dir: for runs.
        pictures: folder for comparison pictures.
        max_images: held-out images of each scene, at most.
    """
    start = newest_checkpoint(load_config)
    stage_one = read_run(load_config).pipeline.model.stage_one_steps  # type: ignore[attr-defined]
    scripts = Path(sys.executable).parent
    for left_out in real:
        name = left_out.resolve().name
        scenes, others = output_dir / "scenes" / name, [path.resolve() for path in real if path != left_out]
        scenes.mkdir(parents=True, exist_ok=True)
        some = [path.resolve() for path in find_scenes(synthetic).values()]
        for path in (*some, *others):
            if not (scenes / path.name).exists():
                (scenes / path.name).symlink_to(path)
        weights = [f"{path.name}={max(1, len(some) // len(others))}" for path in others]
        run = output_dir / name / "gsn-tiny" / "run" / "config.yml"
        ends = [share for _, share in PIECES[1:]] + [1.0]
        for (halvings, share), end in zip(PIECES, ends, strict=True):
            checkpoint = newest(run, start)
            left = step_of(start) + round(end * steps) - step_of(checkpoint)
            if left <= 0:
                continue
            # Halvings are counted from the beginning of the second stage.
            since = step_of(start) + round(share * steps) - stage_one
            every = since // halvings if halvings else 1_000_000
            command = [str(scripts / "ns-train"), "gsn-tiny", "--data", str(scenes), "--output-dir", str(output_dir)]
            command += ["--experiment-name", name, "--timestamp", "run", "--vis", "tensorboard"]
            command += ["--load-checkpoint", str(checkpoint), "--max-num-iterations", str(left)]
            command += ["--steps-per-save", "100", "--machine.seed", str(halvings)]
            command += ["--pipeline.datamanager.seed", str(step_of(checkpoint))]
            command += ["--pipeline.model.feature-loss", str(feature_loss), "--pipeline.model.frame", frame]
            for group in ("encoder", "trunk", "head"):
                command += [f"--optimizers.{group}.scheduler.halve-every", str(every)]
            command += ["--pipeline.datamanager.scene-weights", *weights]
            subprocess.run(command, check=True)
        zero_shot = [sys.executable, str(Path(__file__).with_name("gsn_zero_shot.py")), str(run), str(left_out)]
        zero_shot += ["--output-dir", str(output_dir / "attached"), "--max-images", str(max_images)]
        subprocess.run(zero_shot + ([] if pictures is None else ["--pictures", str(pictures)]), check=True)


if __name__ == "__main__":
    tyro.cli(main)
