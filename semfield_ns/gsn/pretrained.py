"""Small weights that come with the package: `gsn-tiny`, so that nobody has to train before a first look.

`pack` made them from a run; `unpack` makes a run of them.

The file is a numpy archive: a tensor of a pipeline's state an entry, floats in half precision where they are many.
"""

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from nerfstudio.engine.trainer import TrainerConfig

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.runs import newest_checkpoint, read_run, write_run
from semfield_ns.io import write_npz

TINY = Path(__file__).parent / "weights" / "gsn_tiny.npz"
"""Weights for the preset gsn-tiny."""

_FEW = 256
"""Tensors of so many numbers keep single precision: norms, biases, means."""


def pack(load_config: Path, file: Path) -> int:
    """Writes the weights of a run's newest checkpoint to an archive.

    Args:
        load_config: config.yml of a run of gsn.
        file: the archive, `.npz`.

    Returns:
        Its size in bytes.
    """
    read_run(load_config)
    state = torch.load(newest_checkpoint(load_config), map_location="cpu", weights_only=True)["pipeline"]
    many = {key for key, value in state.items() if value.is_floating_point() and value.numel() > _FEW}
    write_npz(file, **{key: (value.half() if key in many else value).numpy() for key, value in state.items()})
    return file.stat().st_size


def unpack(preset: TrainerConfig, output_dir: Path, file: Path = TINY) -> Path:
    """Writes a run folder with the packed weights. It has no scene yet: attach it to one.

    Args:
        preset: the configuration that the weights belong to.
        output_dir: the run goes to `output_dir/pretrained/METHOD/run`; an earlier one is replaced.
        file: the archive.

    Returns:
        The config.yml of the run.

    Raises:
        SemfieldError: the archive is missing.
    """
    if not file.is_file():
        raise SemfieldError(f"The weights {file} are missing: reinstall the package, or train gsn-tiny yourself.")
    with np.load(file, allow_pickle=False) as archive:
        state = {key: torch.from_numpy(archive[key]) for key in archive.files}
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    config = deepcopy(preset)
    config.output_dir, config.experiment_name, config.timestamp = Path(output_dir).resolve(), "pretrained", "run"
    return write_run(config, config.max_num_iterations - 1, state)
