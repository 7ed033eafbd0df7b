"""Runs for tests: made by the installed commands, on a synthetic scene, as small as they can be."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from semfield_ns.scenes.synthetic import write_scene

COMMANDS = Path(sys.executable).parent


def run_command(arguments: Sequence[str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs a command that is installed beside this Python, on one thread; fails with its output if it fails."""
    result = subprocess.run(
        [str(COMMANDS / arguments[0]), *arguments[1:]],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, f"{' '.join(arguments)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


def train_tiny_run(folder: Path, steps: int = 40, method: str = "semantic-flow-tiny") -> Path:
    """Trains on eight small frames of the demo scene, every second one labelled, and returns the run's config.yml."""
    scene = write_scene("demo", folder / "scene", num_frames=8, width=64, height=48, samples_per_axis=1)
    run_command(
        [
            *("ns-train", method, "--output-dir", str(folder), "--experiment-name", "tiny", "--timestamp", "run"),
            *("--machine.device-type", "cpu", "--machine.seed", "0", "--max-num-iterations", str(steps)),
            *("--steps-per-eval-batch", "20", "--steps-per-eval-image", "30"),
            *(("--pipeline.model.stage-one-steps", "15") if method == "semantic-flow-tiny" else ()),
            *("--vis", "tensorboard", "--data", str(scene)),
            *("--pipeline.datamanager.dataparser.labels", "every-2"),
        ]
    )
    return folder / "tiny" / method / "run" / "config.yml"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
