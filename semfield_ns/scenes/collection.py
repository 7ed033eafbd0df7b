"""Several scenes together: where they lie, and the one list of classes that they share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.formats import is_scene
from semfield_ns.scenes.labels import IGNORE, LabelMap, SemanticClass


def one_scene(path: Path) -> bool:
    """Whether a path is one scene: a transforms.json, or a folder that looks like a layout."""
    return path.is_file() or is_scene(path)


def find_scenes(root: Path) -> dict[str, Path]:
    """The scene that a folder is, or those one or two levels below it, in the order of their names.

    Args:
        root: a scene (its folder or transforms.json), or a folder of scenes.

    Returns:
        Name -> folder. Names are relative to `root`.

    Raises:
        SemfieldError: there is none.
    """
    root = Path(root)
    if one_scene(root):
        return {root.resolve().stem if root.is_file() else root.resolve().name: root}
    if not root.is_dir():
        raise SemfieldError(f"There is no folder {root}: give a scene, or a folder of scenes.")
    below = [path for depth in ("*", "*/*") for path in root.glob(depth) if path.is_dir() and is_scene(path)]
    # A folder inside a scene is a part of it.
    found = [path for path in below if path.parent not in below]
    if not found:
        raise SemfieldError(
            f"{root} holds no scene: no transforms.json, poses_bounds.npy or COLMAP model up to two folders below it."
        )
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def choose_scenes(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """The named scenes below a root, in the order given; all of them if none is named.

    Raises:
        SemfieldError: a name that is not there, or is given twice.
    """
    found = find_scenes(root)
    for name in names:
        if name not in found:
            raise SemfieldError(f"There is no scene {name} in {root}: choose among {', '.join(found)}.")
        if list(names).count(name) > 1:
            raise SemfieldError(f"The scene {name} is named twice.")
    return {name: found[name] for name in names} if names else found


@dataclass(frozen=True)
class MemberLabelMap(LabelMap):
    """The class list of several scenes as one of them reads it: its label images keep its own ids and colours."""

    own: LabelMap = field(kw_only=True)

    def read(self, *args: Any, **kwargs: Any) -> Int[np.ndarray, "H W"]:
        """Class ids of a label image, as `LabelMap.read` gives them, in the numbers of the shared list."""
        ids = self.own.read(*args, **kwargs)
        table = np.array([self.names.index(name) for name in self.own.names])
        return np.where(ids == IGNORE, IGNORE, table[ids])


def merge_classes(label_maps: Mapping[str, LabelMap | None]) -> tuple[SemanticClass, ...]:
    """One list with every class of every scene, matched by name, in the order in which they first appear.

    Args:
        label_maps: name of a scene -> its classes, or None if it has none.

    Raises:
        SemfieldError: two scenes give one class different colours, or do not agree on whether it moves.
    """
    merged: dict[str, tuple[str, SemanticClass]] = {}
    for scene, label_map in label_maps.items():
        for entry in label_map.classes if label_map is not None else ():
            first, known = merged.setdefault(entry.name, (scene, entry))
            if known != entry:
                what = "the colour" if known.color != entry.color else "whether it is dynamic"
                raise SemfieldError(
                    f'The scenes {first} and {scene} do not agree on {what} of the class "{entry.name}": '
                    "make their class lists equal, or rename one of the two classes."
                )
    return tuple(entry for _, entry in merged.values())


def shared_label_map(own: LabelMap | None, classes: Iterable[SemanticClass]) -> LabelMap | None:
    """How a scene with the list `own` (or none) reads labels into a shared list of classes.

    Raises:
        SemfieldError: it has a class that the shared list lacks.
    """
    classes = tuple(classes)
    if not classes:
        return own
    ignored = max(255, len(classes))
    if own is None:
        return LabelMap(classes, ignored)
    names = {entry.name for entry in classes}
    if unknown := [name for name in own.names if name not in names]:
        raise SemfieldError(
            f'The scene has the class "{unknown[0]}", which the shared list does not: '
            "it has changed since the model was trained."
        )
    return MemberLabelMap(classes, ignored, own=own)
