"""The config.yml of a run, by the folder that it is in: `outputs/SCENE/METHOD/TIME`, or one above that has no other.

Runs and scenes that were moved together, or that are opened from another folder, are found from the config.yml.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semfield_ns.errors import SemfieldError

CONFIG = "config.yml"
CHECKPOINTS = "nerfstudio_models"
LISTED = 10
"""runs that an error names"""
NO_CONFIG = "cannot be read as the config.yml of a run: give the file of that name that training wrote."
"""what to say of a file, after its name"""
_BEGINNING = "!!python/object"
"""of what Nerfstudio writes for a run, and no other program for anything"""


def run_config(run: Path) -> Path:
    """The config.yml that a run is opened by.

    Args:
        run: the file itself, whatever its name is, the folder that it is in, or a folder with one run below it.

    Raises:
        SemfieldError: there is no such file or folder, no run in it, or several of them.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        raise SemfieldError(f"{run} does not exist: give the folder of a trained run, or its config.yml.")
    if (run / CONFIG).is_file():
        return run / CONFIG
    found = list(_runs_below(run))
    if not found:
        raise SemfieldError(f"There is no run in {run}: give the folder of a trained run, or its config.yml.")
    if len(found) == 1:
        return found[0]
    found.sort(key=lambda config: config.stat().st_mtime, reverse=True)
    lines = [f"  {config.parent}" for config in found[:LISTED]]
    if len(found) > LISTED:
        lines.append(f"  and {len(found) - LISTED} more")
    raise SemfieldError("\n".join([f"There are {len(found)} runs in {run}: give one of them, newest first:", *lines]))


def checkpoint_folder(named: Path, config: Path) -> Path:
    """Where the checkpoints of a run are: where its config says, or beside it if that is nowhere.

    Args:
        named: by the configuration, from the folder that training was started in.
        config: the config.yml.

    Raises:
        SemfieldError: they are in neither place.
    """
    beside = config.parent / named.name
    for folder in (named, beside):
        if folder.is_dir():
            return folder
    places = f"neither in {named} nor in {beside}" if named.resolve() != beside.resolve() else f"not in {named}"
    raise SemfieldError(
        f"The checkpoints of {config} are {places}: put that folder beside the config.yml, or train until the first "
        "one is saved."
    )


def find_scene(settings: Any, config: Path) -> None:
    """Finds the scene of a run again that is not where the configuration says, and changes the configuration.

    Args:
        settings: Nerfstudio's configuration of the run.
        config: the config.yml that it was read from.

    Raises:
        SemfieldError: the scene is not below any of the folders that the config.yml is in either.
    """
    manager = settings.pipeline.datamanager
    for owner in (manager, getattr(manager, "dataparser", None)):
        data = getattr(owner, "data", None)
        if data is None or Path(data) == Path() or Path(data).exists():
            continue
        above = config.resolve().parents
        places = [folder / data for folder in above] if not Path(data).is_absolute() else []
        # outputs/SCENE is not the scene, but a folder that the run is in.
        found = next((place for place in places if place.exists() and place not in above), None)
        if found is None:
            raise SemfieldError(
                f"The scene {data} of the run {config.parent} is not there any more: put it back, or write where it is "
                f'now as "data" in {config}.'
            )
        setattr(owner, "data", found)  # noqa: B010


def write_config(config: Any) -> Path:
    """Writes the config.yml of a run, whose configuration names the folder."""
    import yaml

    from semfield_ns.io import write_text

    path = config.get_base_dir() / CONFIG
    write_text(path, yaml.dump(config))
    return path


def write_run(config: Any, step: int, state: Mapping[str, Any]) -> Path:
    """Writes a run folder whose checkpoint has the state of a pipeline and nothing of a training; its config.yml."""
    import torch

    from semfield_ns.io import atomic_path

    content = {"step": step, "pipeline": state, "optimizers": {}, "schedulers": {}, "scalers": {}}
    with atomic_path(config.get_base_dir() / CHECKPOINTS / f"step-{step:09d}.ckpt") as temporary:
        torch.save(content, temporary)
    return write_config(config)


def _runs_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        config = Path(place, CONFIG)
        if CONFIG in files and _is_run(config):
            folders.clear()  # what is in the folder of a run belongs to it
            yield config
        else:
            folders[:] = [name for name in folders if not name.startswith(".")]


def _is_run(config: Path) -> bool:
    try:
        with config.open(encoding="utf-8") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING
    except (OSError, UnicodeDecodeError):
        return False
