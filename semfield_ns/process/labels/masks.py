"""Labels as pictures: of CVAT, Label Studio and SAM 2, one mask, PNGs of class ids."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from semfield_ns.errors import SemfieldError
from semfield_ns.io import natural_key, read_image, read_json, read_mask
from semfield_ns.process.frames import frame_name
from semfield_ns.process.labels.imported import (
    BACKGROUND,
    MOVERS,
    Ids,
    Imported,
    fitted,
    label_map_of,
    new_classes,
    pngs_of,
)
from semfield_ns.process.names import FrameNames, match_images, match_names
from semfield_ns.scenes.labels import LabelMap, SemanticClass

LABEL_STUDIO = re.compile(r"task-(\d+)-.*?tag-(.+?)-(\d+)\.png$")


def from_cvat(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """CVAT "Segmentation mask 1.1", which is Pascal VOC: colours by labelmap.txt."""
    movers = path / "foreground_object.txt"
    names = _labelmap_names(path / "labelmap.txt")
    moving = _lines(movers) if movers.is_file() else [name for name in names if name.lower() in MOVERS]
    label_map = label_map_of([SemanticClass(name, color, name in moving) for name, color in names.items()])
    folder = path / "SegmentationClass"
    pngs = pngs_of(folder if folder.is_dir() else path, "**")
    return Imported(label_map, read_ids(path, label_map, pngs, frames, size), "CVAT segmentation masks")


def _labelmap_names(path: Path) -> dict[str, tuple[int, int, int]]:
    classes = {}
    for line in _lines(path):
        if not line.startswith("#"):
            try:
                name, color = line.split(":")[:2]
                r, g, b = (int(v) for v in color.split(","))
            except ValueError as error:
                raise SemfieldError(f'{path}: the line "{line}" is not of the form name:r,g,b:: .') from error
            classes[name.strip()] = (r, g, b)
    if not classes:
        raise SemfieldError(f"{path} lists no class; write one a line as name:r,g,b:: .")
    return classes


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def read_ids(
    path: Path, label_map: LabelMap, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]
) -> dict[int, Ids]:
    found = {}
    for number, png in match_images(pngs, frames, str(path)).items():
        ids = label_map.read(png, where=f"label image of frame {frame_name(number)}")
        found[number] = fitted(ids.astype(np.int32), size, str(png)).astype(np.int64)
    return found


def from_label_studio(
    path: Path, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]
) -> Imported:
    """Brush labels: one PNG for each task, tag and stroke. Which image a task shows is in tasks.json (id -> name).

    Without tasks.json the tasks must be as many as the frames, in their order.
    """
    parts = [(int(found[1]), found[2], png) for png in pngs if (found := LABEL_STUDIO.search(png.name))]
    tasks = sorted({task for task, _, _ in parts})
    if (path / "tasks.json").is_file():
        names = read_json(path / "tasks.json")
        if not isinstance(names, dict):
            raise SemfieldError(f'{path / "tasks.json"} is not an object such as {{"12": "0007.png"}}.')
        named = [task for task in tasks if str(task) in names]
        numbers = match_names([str(names[str(task)]) for task in named], frames, str(path / "tasks.json"))
        number_of: dict[int, int | None] = dict(zip(named, numbers, strict=True))
    elif len(tasks) == len(frames):
        number_of = {task: frame.number for task, frame in zip(tasks, frames, strict=True)}
    else:
        raise SemfieldError(
            f"{path} has {len(tasks)} tasks for {len(frames)} frames: put a tasks.json beside them that says which "
            'image each task shows, such as {"12": "0007.png"}.'
        )
    classes = [BACKGROUND, *new_classes(sorted({tag for _, tag, _ in parts}))]
    ids = {c.name: i for i, c in enumerate(classes)}
    labels: dict[int, Ids] = {}
    for task, tag, png in parts:
        number = number_of.get(task)
        if number is not None:
            target = labels.setdefault(number, np.zeros(size[::-1], dtype=np.int64))
            target[_mask(png, size)] = ids[tag]
    return Imported(label_map_of(classes), labels, "Label Studio brush labels")


def _mask(path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    return fitted(read_mask(path).astype(np.uint8), size, str(path)) > 0


def _object_names(path: Path, keys: Sequence[str]) -> list[str]:
    """Names of tracked objects: names.json ({"1": "person"}), or "object 1"."""
    given = read_json(path / "names.json") if (path / "names.json").is_file() else {}
    if not isinstance(given, dict):
        raise SemfieldError(f'{path / "names.json"} is not an object such as {{"1": "person"}}.')
    return [str(given.get(key, given.get(key.lstrip("0"), f"object {key.lstrip('0') or key}"))) for key in keys]


def from_tracks(path: Path, folders: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """SAM 2 with a folder for each object: a mask a frame. What is followed is taken to move."""
    names = _object_names(path, [folder.name for folder in folders])
    distinct = sorted(set(names), key=names.index)
    classes = [BACKGROUND, *new_classes(distinct, moving=True)]
    labels: dict[int, Ids] = {}
    # All objects are of the same frames, and tell together what their names mean.
    files = sorted({png.name for folder in folders for png in pngs_of(folder)}, key=natural_key)
    number_of = dict(zip(files, match_names(files, frames, str(path)), strict=True))
    for folder, name in zip(folders, names, strict=True):
        for png in pngs_of(folder):
            number = number_of[png.name]
            if number is not None:
                target = labels.setdefault(number, np.zeros(size[::-1], dtype=np.int64))
                target[_mask(png, size)] = 1 + distinct.index(name)
    return Imported(label_map_of(classes), labels, "SAM 2 tracks")


def from_one_mask(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """One image of object ids, or of black and white, of the frame of its name; of the first if it is called otherwise.

    White that is blurred at its edges is one object, not many.
    """
    image = read_image(path, "mask")
    ids = np.array(image)
    if ids.ndim == 3 and np.array_equal(ids[..., 0], ids[..., 1]) and np.array_equal(ids[..., 0], ids[..., 2]):
        ids = ids[..., 0]
    if ids.ndim != 2:
        raise SemfieldError(
            f"{path} is a {image.mode} image in colours: give a mask of object ids, or of black and white."
        )
    if image.mode != "P" and ids.max(initial=0) == 255:
        ids = (ids > 127).astype(np.int32)
    number = match_names([path.name], frames, str(path))[0]
    return _of_objects(path.parent, {number or 0: fitted(ids.astype(np.int32), size, str(path))}, "a mask")


def from_object_ids(path: Path, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """SAM 2 with one PNG of object ids a frame, 0 for none."""
    read: dict[int, np.ndarray] = {}
    for number, png in match_images(pngs, frames, str(path)).items():
        image = read_image(png, "object ids")
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise SemfieldError(f"{png} is a {image.mode} image: PNGs of object ids are grey or have a palette.")
        read[number] = fitted(np.array(image).astype(np.int32), size, str(png))
    return _of_objects(path, read, "SAM 2 object ids")


def _of_objects(path: Path, read: dict[int, np.ndarray], origin: str) -> Imported:
    objects = sorted({int(v) for ids in read.values() for v in np.unique(ids)} - {0})
    if read and not objects:
        raise SemfieldError(f"{path} shows no object: 0 is the background, and all pixels are 0.")
    names = _object_names(path, [str(v) for v in objects])
    distinct = sorted(set(names), key=names.index)
    table = np.zeros(max(objects, default=0) + 1, dtype=np.int64)
    table[objects] = [1 + distinct.index(name) for name in names]
    classes = [BACKGROUND, *new_classes(distinct, moving=True)]
    return Imported(label_map_of(classes), {n: table[ids] for n, ids in read.items()}, origin)
