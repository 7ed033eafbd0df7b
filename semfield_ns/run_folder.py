"""The config.yml of a run, by the folder that it is in: `outputs/SCENE/METHOD/TIME`, or one above that has no other."""

import os
from collections.abc import Iterator
from pathlib import Path

from semfield_ns.errors import SemfieldError

CONFIG = "config.yml"
LISTED = 10
"""runs that an error names"""
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
