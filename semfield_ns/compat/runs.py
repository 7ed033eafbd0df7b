"""Nerfstudio's runs: checkpoints that are read safely, saved on Ctrl-C, and found where they were moved to."""

import sys
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from semfield_ns.compat.commands import Interrupted
from semfield_ns.compat.owner import is_ours
from semfield_ns.run_folder import checkpoint_folder, find_scene

WORTH_SAVING_SECONDS = 60.0
"""of training, from which on Ctrl-C saves a checkpoint"""


@cache
def save_when_stopped() -> None:
    """Lets Ctrl-C during a training of ours that has run for more than a minute save a checkpoint."""
    from nerfstudio.engine.trainer import Trainer

    train = Trainer.train

    def stoppable(self: Any) -> None:
        begun = time.monotonic()
        try:
            train(self)
        except (Interrupted, KeyboardInterrupt):
            step = getattr(self, "step", None)
            long = time.monotonic() - begun > WORTH_SAVING_SECONDS
            if step is not None and long and is_ours(self.pipeline):
                if not (self.checkpoint_dir / f"step-{step:09d}.ckpt").exists():
                    self.save_checkpoint(step)
                print(f"To go on: --load-dir {self.checkpoint_dir}", file=sys.stderr, flush=True)
            raise

    Trainer.train = stoppable  # type: ignore[method-assign]


@cache
def open_moved_runs() -> None:
    """Lets whoever opens a run by its config.yml find checkpoints and scenes that were moved with it.

    Nerfstudio's `eval_setup`, which all its commands call, looks from the folder that training was started in.
    """
    from nerfstudio.configs.experiment_config import ExperimentConfig

    named = ExperimentConfig.get_checkpoint_dir

    def get_checkpoint_dir(self: ExperimentConfig) -> Path:
        frames = (frame for frame, _ in traceback.walk_stack(None))
        caller = next((frame for frame in frames if frame.f_code.co_name == "eval_setup"), None)
        own = named(self)
        if caller is None or not is_ours(getattr(self, "pipeline", None)):
            return own
        config: Path = caller.f_locals["config_path"]
        find_scene(self, config)
        return checkpoint_folder(own, config)

    ExperimentConfig.get_checkpoint_dir = get_checkpoint_dir  # type: ignore[method-assign]


@cache
def allow_nerfstudio_checkpoints() -> None:
    """Let `torch.load(weights_only=True)`, the default since torch 2.6, read what Nerfstudio's trainer saves.

    Its checkpoints hold numpy scalars in the states of the learning-rate schedulers. Numbers only: arrays of Python
    objects stay forbidden. Checkpoints name numpy's module as it was called where they were written.
    """
    import numpy as np
    import torch

    major, minor = torch.__version__.split(".")[:2]
    if (int(major), int(minor)) < (2, 6):
        return
    scalar: Any = np.float64(0.0).__reduce__()[0]
    numbers = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.float16, np.float32, np.float64)
    torch.serialization.add_safe_globals(
        [
            np.dtype,
            *(type(np.dtype(number)) for number in numbers),
            (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar"),
        ]
    )
