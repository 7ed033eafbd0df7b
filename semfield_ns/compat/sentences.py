"""Sentences for errors that reach Nerfstudio's commands."""

import difflib
import errno
import pickle
import re
import traceback
from pathlib import Path
from types import FrameType, TracebackType

from semfield_ns.compat.owner import is_ours
from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import NO_CONFIG, run_config

_NOT_WRITTEN = (errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ENOSPC, errno.ENOTDIR, errno.EROFS)


def error_sentence(error: BaseException, trace: TracebackType | None = None) -> str | None:
    """What to tell a user about an uncaught error, or None when it is not one meant for users."""
    # Errors of data loader workers and of spawned processes carry the worker's traceback in their message.
    text = str(error)
    from_worker = re.search(r"\n\S*SemfieldError: (.+)\s*\Z", text, re.DOTALL)
    if from_worker:
        return from_worker.group(1).strip()
    if isinstance(error, SemfieldError):
        return text
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    known = (_unreadable_config, _unreadable_checkpoint, _unreadable_camera_path, _missing_gpu, _unwritable)
    return next((sentence for tell in known if (sentence := tell(error, frames))), None)


def _unreadable_config(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a config.yml that Nerfstudio cannot read (whose method nobody knows then), else None."""
    setups = [frame for frame in frames if frame.f_code.co_name == "eval_setup"]
    if not setups:
        return None
    values = setups[0].f_locals
    # Nerfstudio asserts that what it read is a configuration; later errors are those of the run.
    no_configuration = frames[-1] is setups[0] and isinstance(error, AssertionError) and "pipeline" not in values
    if frames[-1] is setups[0] and isinstance(error, KeyError):
        return f"{values['config_path']} is of the method {error}, which is not installed: install its package."
    if "config" in values and not no_configuration:
        return None
    path: Path = values["config_path"]
    if not path.is_file():
        try:
            return f"{path} is a folder: give the config.yml of the run, {run_config(path)}."
        except SemfieldError as unknown:
            return str(unknown)
    return f"{path} {NO_CONFIG}"


def _unreadable_checkpoint(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a checkpoint of ours that Nerfstudio does not find or `torch.load` cannot read, else None."""
    names = ("eval_load_checkpoint", "_load_checkpoint", "_read_checkpoint")
    loaders = [frame for frame in frames if frame.f_code.co_name in names]
    if not loaders:
        return None
    values = loaders[0].f_locals
    # A function of (config, pipeline) where a run is opened; a method of the trainer when one is resumed or adapted.
    # Then there may be no pipeline yet.
    owner = values.get("self")
    config = values.get("config", getattr(owner, "config", None))
    pipeline = values.get("pipeline") or getattr(owner, "pipeline", None) or getattr(config, "pipeline", None)
    if not is_ours(pipeline):
        return None
    path: Path | None = values.get("load_path") or getattr(config, "load_checkpoint", None)
    in_torch_load = any(frame.f_globals.get("__name__") == "torch.serialization" for frame in frames)
    # Nerfstudio asserts that the file exists, and takes the last of a listing that may be empty or fail.
    # So do the names of the files in it, which are to have numbers.
    in_loader = frames[-1] in loaders or frames[-1].f_code.co_name == "<genexpr>"
    in_loader = in_loader and isinstance(error, AssertionError | IndexError | ValueError | OSError)
    wrong = _wrong_checkpoint_path(path, getattr(config, "load_dir", None)) if in_loader or in_torch_load else None
    if wrong is not None:
        return wrong
    if in_loader or (in_torch_load and isinstance(error, FileNotFoundError)):
        place = path or f"in {getattr(config, 'load_dir', None)}"
        return f"There is no checkpoint {place}: train until the first one is saved."
    if (
        path is not None
        and path.is_file()
        and (path.suffix != ".ckpt" or (frames[-1] in loaders and isinstance(error, KeyError | TypeError)))
    ):
        return f"{path} is not a checkpoint of Nerfstudio: give a .ckpt file that ns-train saved."
    if in_torch_load and isinstance(error, RuntimeError | EOFError | OSError | KeyError | pickle.UnpicklingError):
        return f"Cannot read the checkpoint {path}: it is damaged or incomplete; delete it and use an older one."
    return None


def _wrong_checkpoint_path(checkpoint: Path | None, folder: Path | None) -> str | None:
    """A sentence for options that name a folder where a file is wanted, or the other way round, or nothing at all."""
    if folder is not None and folder.is_file():
        return f"{folder} is a file: give the folder that it is in as --load-dir, or the file as --load-checkpoint."
    if folder is not None and not folder.exists():
        return f"There is no folder {folder} of checkpoints{_meant(folder) or '.'}"
    if folder is not None and not any(folder.glob("step-*.ckpt")):
        below = next(iter(sorted(folder.glob("**/step-*.ckpt"))), None)
        hint = f": give {below.parent}" if below else ": train until the first one is saved"
        return f"There is no checkpoint in {folder}{hint}."
    if checkpoint is not None and checkpoint.is_dir():
        newest = next(iter(sorted(checkpoint.glob("**/step-*.ckpt"), reverse=True)), None)
        hint = f"give a checkpoint in it, such as {newest}" if newest else "give a checkpoint, which is a .ckpt file"
        return f"{checkpoint} is a folder: {hint}."
    if checkpoint is not None and not checkpoint.exists() and (meant := _meant(checkpoint)):
        return f"There is no checkpoint {checkpoint}{meant}"
    return None


def _meant(path: Path) -> str:
    """The path with the nearest name, as a question; nothing if none is near."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f": did you mean {path.parent / near[0]}?" if near else ""


def _unreadable_camera_path(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a camera path that `ns-render` cannot read for a run of ours, else None."""
    for frame in frames:
        path: Path | None = getattr(frame.f_locals.get("self"), "camera_path_filename", None)
        if path is None or not is_ours(frame.f_locals.get("pipeline")):
            continue
        rendering = any(later.f_code.co_name == "_render_trajectory_video" for later in frames)
        if not rendering and isinstance(
            error, OSError | ValueError | LookupError | TypeError | AttributeError | RuntimeError
        ):
            what = "has no cameras" if isinstance(error, RuntimeError | IndexError) else "is not a camera path"
            return f"{path} {what}: make one in the viewer or with semfield camera-path."
    return None


def _missing_gpu(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a training of ours on a machine without a GPU, where Nerfstudio expects one, else None."""
    configs = [frame.f_locals.get("config") for frame in frames if frame.f_code.co_name == "train_loop"]
    ours = any(is_ours(getattr(config, "pipeline", None)) for config in configs)
    if ours and re.search("Found no NVIDIA driver|Torch not compiled with CUDA|No CUDA GPUs are available", str(error)):
        return "No NVIDIA GPU was found: add --machine.device-type cpu to train on the processor."
    if ours and re.search(r"\bmps\b|\bMPS\b", str(error)):
        return (
            "The device mps (of Macs) is not there, or lacks something that is needed: add --machine.device-type cpu."
        )
    return None


def _unwritable(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a file or folder that one of Nerfstudio's commands cannot write for a run of ours, else None."""
    if not isinstance(error, OSError) or not error.filename or error.errno not in _NOT_WRITTEN:
        return None
    values = [frame.f_locals for frame in frames]
    if any(is_ours(v.get("pipeline") or getattr(v.get("config"), "pipeline", None)) for v in values):
        return f"Cannot write {error.filename} ({error.strerror}): free some space or choose another folder."
    return None
