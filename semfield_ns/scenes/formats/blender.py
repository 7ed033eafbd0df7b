"""Scenes rendered by Blender: transforms_train.json and its like, without a transforms.json (NeRF, D-NeRF)."""

from pathlib import Path
from typing import Any

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_json
from semfield_ns.scenes.formats.transforms import assembled
from semfield_ns.scenes.scene import Scene

_SPLITS = ("train", "val", "test")
_TRAIN = "transforms_train.json"


def is_blender(path: Path) -> bool:
    """Whether a folder has the file of such a training set."""
    return (path / _TRAIN).is_file()


def read_blender(path: Path) -> Scene:
    """Read a scene whose splits are files of their own; pictures are named without suffixes.

    Raises:
        SemfieldError: as `read_transforms` does.
    """
    meta: dict[str, Any] = {"frames": []}
    for split in _SPLITS:
        file = path / f"transforms_{split}.json"
        if not file.is_file():
            continue
        part = read_json(file)
        if not isinstance(part, dict) or not isinstance(part.get("frames"), list):
            raise SemfieldError(f'{file} has no list "frames".')
        own = {key: value for key, value in part.items() if key != "frames"}
        entries = [own | entry if isinstance(entry, dict) else entry for entry in part["frames"]]
        if all(isinstance(entry, dict) and "time" in entry for entry in entries):
            entries = sorted(entries, key=lambda entry: entry["time"])
        meta["frames"] += entries
        meta[f"{split}_filenames"] = [entry.get("file_path") for entry in entries if isinstance(entry, dict)]
    return assembled(path / _TRAIN, meta)
