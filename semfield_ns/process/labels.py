"""Labels that people made of some frames, in the formats of the tools they use, as class ids of the picked frames.

Which frame an image is of, its name says (`names`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Int

from semfield_ns.errors import SemfieldError
from semfield_ns.io import natural_key, read_image, read_json, read_mask, write_json, write_text
from semfield_ns.process.flow import flow_file, read_frame
from semfield_ns.process.frames import Rgb, frame_name
from semfield_ns.process.names import FrameNames, match_images, match_names
from semfield_ns.scenes.flow import read_flow, warp_labels
from semfield_ns.scenes.labels import IGNORE, LabelMap, SemanticClass

Ids = Int[np.ndarray, "H W"]

BACKGROUND = SemanticClass("background", (0, 0, 0))
_MOVERS = """
person people pedestrian man woman child rider bicyclist cyclist car truck bus train motorcycle bicycle bike animal dog
cat horse bird cow sheep ball balloon boat airplane skateboard robot
"""
MOVERS = frozenset(_MOVERS.split())
"""names of classes that move unless the labels say otherwise"""

_REACH = 8  # frames that a clicked label is carried
_SIMILAR = 22.0  # distance in Lab up to which a pixel belongs to the clicked thing
_OTHERS = {
    ".xml": 'CVAT\'s XML: export its "Segmentation mask 1.1"',
    ".txt": "text files, such as YOLO's: export COCO",
    ".json": "JSON files of single images, such as LabelMe's: convert them to one COCO file",
    ".jpg": "JPEGs, which change labels: save them as PNG",
    ".jpeg": "JPEGs, which change labels: save them as PNG",
    ".npy": "arrays: save them as PNG",
    ".zip": "an archive: unpack it",
}
"""what else tools leave, by suffix, and what to do"""
_WIDE = 65535  # the id of "no label" where there are more classes than a byte can count
_LABEL_STUDIO = re.compile(r"task-(\d+)-.*?tag-(.+?)-(\d+)\.png$")


@dataclass(frozen=True)
class Imported:
    """Labels by the number of the frame."""

    label_map: LabelMap
    labels: dict[int, Ids]
    """IGNORE (-1) where there is no label"""
    origin: str
    """the format, for the report"""
    carried: int = 0
    """how many of the frames were labelled by flow from others"""


def import_labels(
    path: Path, frames: Sequence[FrameNames], size: tuple[int, int], images: Path, flow: Path
) -> Imported:
    """Read labels in any of the formats.

    Args:
        path: a PNG of object ids, of the first frame unless its name is that of another; a COCO or clicks .json; or a
            folder: CVAT's "Segmentation mask" (labelmap.txt, SegmentationClass/), brush
            PNGs of Label Studio, tracks of SAM 2 (a folder of masks for each object, or PNGs of object ids), or PNGs of
            class ids with a classes.json.
        frames: the picked frames.
        size: (width, height) of the picked frames.
        images: their folder, for clicks.
        flow: folder of the flow between them, for clicks.
    Raises: SemfieldError for an unknown format, an unknown class or image, or where no label is of a picked frame.
    """
    path = Path(path)
    if not path.exists():
        raise SemfieldError(f"The labels {path} do not exist: give a folder of masks or a .json file.")
    if path.suffix.lower() == ".png":
        found = _from_one_mask(path, frames, size)
    elif path.is_file() and path.suffix.lower() != ".json":
        raise _unknown(path, [path])
    elif path.is_file():
        meta = read_json(path)
        if isinstance(meta, dict) and "clicks" in meta:
            found = _from_clicks(path, meta, size, images, flow, frames)
        elif isinstance(meta, dict) and "annotations" in meta and "categories" in meta:
            found = _from_coco(path, meta, frames, size)
        else:
            raise SemfieldError(
                f'{path} is neither COCO ("categories", "annotations") nor clicks ("clicks"): export COCO.'
            )
    else:
        found = _from_folder(path, frames, size)
    if not found.labels:
        raise SemfieldError(
            f"{path} has no label of a picked frame: its images must be named as the frames (0000.png) or as the "
            "original images, or have numbers in their names that count the frames of the source, all in the same way."
        )
    return found


def _from_folder(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    inside = [folder for folder in path.iterdir() if folder.is_dir()]
    if not (path / "labelmap.txt").is_file() and len(inside) == 1 and (inside[0] / "labelmap.txt").is_file():
        path = inside[0]  # archives are unpacked into a folder of their own
    pngs = _pngs(path)
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and _pngs(folder))
    if (path / "labelmap.txt").is_file():
        return _from_cvat(path, frames, size)
    if any(_LABEL_STUDIO.search(png.name) for png in pngs):
        return _from_label_studio(path, pngs, frames, size)
    if (path / "classes.json").is_file():
        label_map = LabelMap.from_transforms(read_json(path / "classes.json"), str(path / "classes.json"))
        return Imported(label_map, _read_ids(path, label_map, _pngs(path, "**"), frames, size), "PNGs of class ids")
    if folders:
        return _from_tracks(path, folders, frames, size)
    if pngs:
        return _from_object_ids(path, pngs, frames, size)
    raise _unknown(path, path.rglob("*"))


def _unknown(path: Path, files: Iterable[Path]) -> SemfieldError:
    """What to say of labels that are none of the formats, by the suffixes of the files."""
    advice = next((_OTHERS[suffix] for file in files if (suffix := file.suffix.lower()) in _OTHERS), None)
    found = f"it holds {advice}" if advice else "see docs/own_video.md for the formats"
    return SemfieldError(f"{path} has no labels in a known format: {found}.")


def _pngs(folder: Path, depth: str = "") -> list[Path]:
    """PNGs of a folder, or (depth "**") of those below it too, in the order of the numbers in their names."""
    found = [file for file in folder.glob(f"{depth}/*".lstrip("/")) if file.suffix.lower() == ".png"]
    return sorted(found, key=lambda file: natural_key(file.relative_to(folder).as_posix()))


def _label_map(classes: Sequence[SemanticClass]) -> LabelMap:
    return LabelMap(tuple(classes), ignore_index=255 if len(classes) < 256 else _WIDE)


def _fitted(values: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    """Labels or a mask at the size (width, height) of the frames.

    Raises SemfieldError where the picture has another shape: it is not of the whole frame, or lies on its side.
    """
    height, width = values.shape[:2]
    if abs(width * size[1] - height * size[0]) > 1.5 * max(width, height, *size):
        raise SemfieldError(
            f"{where} has {width}x{height} pixels, the frames {size[0]}x{size[1]}: it has another shape than they, so "
            "it is cropped or turned; label whole frames."
        )
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST))


# --- masks -----------------------------------------------------------------------------------------------------------


def _from_cvat(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """CVAT "Segmentation mask 1.1", which is Pascal VOC: colours by labelmap.txt."""
    movers = path / "foreground_object.txt"
    names = _labelmap_names(path / "labelmap.txt")
    moving = _lines(movers) if movers.is_file() else [name for name in names if name.lower() in MOVERS]
    label_map = _label_map([SemanticClass(name, color, name in moving) for name, color in names.items()])
    folder = path / "SegmentationClass"
    pngs = _pngs(folder if folder.is_dir() else path, "**")
    return Imported(label_map, _read_ids(path, label_map, pngs, frames, size), "CVAT segmentation masks")


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


def _read_ids(
    path: Path, label_map: LabelMap, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]
) -> dict[int, Ids]:
    found = {}
    for number, png in match_images(pngs, frames, str(path)).items():
        ids = label_map.read(png, where=f"label image of frame {frame_name(number)}")
        found[number] = _fitted(ids.astype(np.int32), size, str(png)).astype(np.int64)
    return found


def _from_label_studio(
    path: Path, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]
) -> Imported:
    """Brush labels: one PNG for each task, tag and stroke. Which image a task shows is in tasks.json (id -> name).

    Without tasks.json the tasks must be as many as the frames, in their order.
    """
    parts = [(int(found[1]), found[2], png) for png in pngs if (found := _LABEL_STUDIO.search(png.name))]
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
    classes = [BACKGROUND, *_new_classes(sorted({tag for _, tag, _ in parts}))]
    ids = {c.name: i for i, c in enumerate(classes)}
    labels: dict[int, Ids] = {}
    for task, tag, png in parts:
        number = number_of.get(task)
        if number is not None:
            target = labels.setdefault(number, np.zeros(size[::-1], dtype=np.int64))
            target[_mask(png, size)] = ids[tag]
    return Imported(_label_map(classes), labels, "Label Studio brush labels")


def _mask(path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    return _fitted(read_mask(path).astype(np.uint8), size, str(path)) > 0


def named_classes(names: Sequence[str]) -> LabelMap:
    """The background, and a class for each name."""
    return _label_map([BACKGROUND, *_new_classes(names)])


def _new_classes(names: Sequence[str], moving: bool = False) -> list[SemanticClass]:
    from semfield_ns.rendering.palette import default_palette

    colors = default_palette(len(names) + 1)[1:]
    return [
        SemanticClass(name, (int(r), int(g), int(b)), moving or name.lower() in MOVERS)
        for name, (r, g, b) in zip(names, colors, strict=True)
    ]


def _object_names(path: Path, keys: Sequence[str]) -> list[str]:
    """Names of tracked objects: names.json ({"1": "person"}), or "object 1"."""
    given = read_json(path / "names.json") if (path / "names.json").is_file() else {}
    if not isinstance(given, dict):
        raise SemfieldError(f'{path / "names.json"} is not an object such as {{"1": "person"}}.')
    return [str(given.get(key, given.get(key.lstrip("0"), f"object {key.lstrip('0') or key}"))) for key in keys]


def _from_tracks(path: Path, folders: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """SAM 2 with a folder for each object: a mask a frame. What is followed is taken to move."""
    names = _object_names(path, [folder.name for folder in folders])
    distinct = sorted(set(names), key=names.index)
    classes = [BACKGROUND, *_new_classes(distinct, moving=True)]
    labels: dict[int, Ids] = {}
    # All objects are of the same frames, and tell together what their names mean.
    files = sorted({png.name for folder in folders for png in _pngs(folder)}, key=natural_key)
    number_of = dict(zip(files, match_names(files, frames, str(path)), strict=True))
    for folder, name in zip(folders, names, strict=True):
        for png in _pngs(folder):
            number = number_of[png.name]
            if number is not None:
                target = labels.setdefault(number, np.zeros(size[::-1], dtype=np.int64))
                target[_mask(png, size)] = 1 + distinct.index(name)
    return Imported(_label_map(classes), labels, "SAM 2 tracks")


def _from_one_mask(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
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
    return _of_objects(path.parent, {number or 0: _fitted(ids.astype(np.int32), size, str(path))}, "a mask")


def _from_object_ids(path: Path, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """SAM 2 with one PNG of object ids a frame, 0 for none."""
    read: dict[int, np.ndarray] = {}
    for number, png in match_images(pngs, frames, str(path)).items():
        image = read_image(png, "object ids")
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise SemfieldError(f"{png} is a {image.mode} image: PNGs of object ids are grey or have a palette.")
        read[number] = _fitted(np.array(image).astype(np.int32), size, str(png))
    return _of_objects(path, read, "SAM 2 object ids")


def _of_objects(path: Path, read: dict[int, np.ndarray], origin: str) -> Imported:
    objects = sorted({int(v) for ids in read.values() for v in np.unique(ids)} - {0})
    if read and not objects:
        raise SemfieldError(f"{path} shows no object: 0 is the background, and all pixels are 0.")
    names = _object_names(path, [str(v) for v in objects])
    distinct = sorted(set(names), key=names.index)
    table = np.zeros(max(objects, default=0) + 1, dtype=np.int64)
    table[objects] = [1 + distinct.index(name) for name in names]
    classes = [BACKGROUND, *_new_classes(distinct, moving=True)]
    return Imported(_label_map(classes), {n: table[ids] for n, ids in read.items()}, origin)


# --- COCO ------------------------------------------------------------------------------------------------------------


def _from_coco(path: Path, meta: dict[str, Any], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """COCO instances: polygons, or run lengths with or without compression. Small things lie on top of large ones.

    What is annotated by a box alone lies somewhere in it: the box is left without a label.
    """
    try:
        # Some programs write numbers of categories and images as text in one place; Roboflow lists some names twice.
        name_of = {str(entry["id"]): str(entry["name"] or "") for entry in meta["categories"]}
        names = list(dict.fromkeys(name_of[key] for key in sorted(name_of, key=natural_key)))
        classes = [BACKGROUND] * ("background" not in names) + _new_classes(names)
        place = {entry.name: i for i, entry in enumerate(classes)}
        pictures = {str(entry["id"]): entry for entry in meta["images"]}
        if not meta["annotations"]:
            raise SemfieldError(f"{path} has no annotations: label some frames first.")
        for key, known in (("image_id", pictures), ("category_id", name_of)):
            lost = next((entry[key] for entry in meta["annotations"] if str(entry[key]) not in known), None)
            if lost is not None:
                raise SemfieldError(f'{path}: an annotation has the "{key}" {lost}, which is not listed.')
        used = list(dict.fromkeys(str(entry["image_id"]) for entry in meta["annotations"]))
        files = [str(pictures[key]["file_name"]) for key in used]
        number_of = dict(zip(used, match_names(files, frames, str(path)), strict=True))
        parts: dict[int, list[tuple[np.ndarray, int]]] = {}
        boxes = 0
        for entry in meta["annotations"]:
            number, picture = number_of[str(entry["image_id"])], pictures[str(entry["image_id"])]
            if number is None:
                continue
            shape, outline = (int(picture["height"]), int(picture["width"])), entry.get("segmentation")
            mask = coco_mask(outline, *shape) if outline else _box(entry["bbox"], *shape)
            boxes += not outline
            where = f"{path}: {picture['file_name']}"
            value = place[name_of[str(entry["category_id"])]] if outline else IGNORE
            parts.setdefault(number, []).append((_fitted(mask.astype(np.uint8), size, where) > 0, value))
    except SemfieldError:
        raise
    except KeyError as error:
        raise SemfieldError(f"{path} is not valid COCO: the key {error} is missing.") from error
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise SemfieldError(f"{path} is not valid COCO: {error}.") from error
    labels: dict[int, Ids] = {}
    for number, found in parts.items():
        labels[number] = np.full(size[::-1], place["background"], dtype=np.int64)
        for mask, value in sorted(found, key=lambda part: (part[1] != IGNORE, -part[0].sum())):
            labels[number][mask] = value
    what = f"COCO ({boxes} boxes without an outline are left unlabelled)" if boxes else "COCO"
    return Imported(_label_map(classes), labels, what)


def _box(box: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels that a box [x, y, width, height] touches."""
    x, y, wide, high = (float(value) for value in box)
    mask = np.zeros((height, width), dtype=bool)
    mask[max(0, int(y)) : int(np.ceil(y + high)), max(0, int(x)) : int(np.ceil(x + wide))] = True
    return mask


def coco_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """A mask of COCO: a list of polygons [x, y, x, y, ...], or {"size", "counts"} with run lengths down the columns.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(segmentation, list):
        from pycocotools import mask as coco

        if not isinstance(segmentation[0], list):
            segmentation = [segmentation]
        for polygon in segmentation:
            if len(polygon) < 6 or len(polygon) % 2:
                raise ValueError(f"a polygon of {len(polygon)} numbers")
            if not np.isfinite(polygon).all():
                raise ValueError("a polygon with NaN or infinity")
        if max(max(polygon) for polygon in segmentation) <= 1 < min(height, width):
            raise ValueError("polygons in shares of the picture instead of pixels")
        return np.asarray(coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width))) > 0)
    counts = segmentation["counts"]
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"run lengths of {segmentation['size']} for an image of {height} x {width}")
    runs = np.array(counts if isinstance(counts, list) else _run_lengths(str(counts)), dtype=np.int64)
    if runs.sum() != height * width or runs.min() < 0:
        raise ValueError(f"{runs.sum()} run lengths for an image of {height} x {width}")
    return np.repeat(np.arange(len(runs)) % 2 > 0, runs).reshape(width, height).T


def _run_lengths(text: str) -> list[int]:
    """Compressed run lengths: digits of 5 bits from "0" on, the lowest first; from the third on, differences to the
    last but one.
    """
    runs: list[int] = []
    value, bits = 0, 0
    for character in text:
        digit = ord(character) - ord("0")
        value, bits = value | (digit & 31) << bits, bits + 5
        if not digit & 32:
            value -= (digit & 16) << (bits - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, bits = 0, 0
    return runs


# --- clicks ----------------------------------------------------------------------------------------------------------


def _from_clicks(
    path: Path, meta: dict[str, Any], size: tuple[int, int], images: Path, flow: Path, frames: Sequence[FrameNames]
) -> Imported:
    """{"classes": [{"name", "color", "dynamic"}], "clicks": {"0007": [["person", x, y], ...]}}, px of the frames."""
    entries = meta.get("classes")
    if not isinstance(entries, list) or not isinstance(meta["clicks"], dict):
        raise SemfieldError(f'{path} needs a list "classes" and an object "clicks" (frame -> [[class, x, y], ...]).')
    numbered = [{"id": i} | (entry if isinstance(entry, dict) else {"name": entry}) for i, entry in enumerate(entries)]
    label_map = LabelMap.from_transforms({"classes": numbered}, str(path))
    labels: dict[int, Ids] = {}
    numbers = match_names(list(meta["clicks"]), frames, str(path))
    for (name, clicks), number in zip(meta["clicks"].items(), numbers, strict=True):
        if number is None:
            raise SemfieldError(f'{path}: "{name}" is no picked frame (0000 to {frame_name(len(frames) - 1)}).')
        if not isinstance(clicks, list):
            raise SemfieldError(f"{path}, frame {name}: the clicks {clicks!r} are no list [[class, x, y], ...].")
        seeds = [_seed(path, name, click, label_map, size) for click in clicks]
        labels[number] = grow(read_frame(images, number), seeds)
    clicked = len(labels)
    labels = carried(labels, len(frames), lambda a, b: read_flow(flow_file(flow, a, b)) if flow.is_dir() else None)
    return Imported(label_map, labels, "clicks", len(labels) - clicked)


def _seed(path: Path, name: str, click: Any, label_map: LabelMap, size: tuple[int, int]) -> tuple[int, int, int]:
    try:
        what, x, y = click
        x, y = int(x), int(y)
    except (TypeError, ValueError) as error:
        raise SemfieldError(f"{path}, frame {name}: the click {click!r} is not [class, x, y].") from error
    if what not in label_map.names:
        raise SemfieldError(f'{path}, frame {name}: a click names the class "{what}", which "classes" does not list.')
    if not (0 <= x < size[0] and 0 <= y < size[1]):
        raise SemfieldError(f"{path}, frame {name}: the click {click!r} is outside of the {size[0]}x{size[1]} pixels.")
    return label_map.names.index(what), x, y


def grow(rgb: Rgb, seeds: Sequence[tuple[int, int, int]], radius: float = 0.02) -> Ids:
    """Regions around clicks (class, x, y): a watershed between all clicks on the edges of the picture, of which what
    has another colour than the surroundings of its click is left without a label.

    radius: of those surroundings, as a share of the width.
    """
    from skimage.color import rgb2lab
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    lab = cv2.GaussianBlur(rgb2lab(rgb).astype(np.float32), (0, 0), 1.5)
    markers = np.zeros(rgb.shape[:2], dtype=np.int32)
    reach = max(2, round(radius * rgb.shape[1]))
    for place, (_, x, y) in enumerate(seeds, start=1):
        markers[y, x] = place
    edges = np.sqrt(sum(sobel(lab[..., c]) ** 2 for c in range(3)))
    regions = watershed(edges, markers)
    result = np.full(regions.shape, IGNORE, dtype=np.int64)
    for place, (identity, x, y) in enumerate(seeds, start=1):
        rows, columns = slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)
        own = regions[rows, columns] == place
        typical = np.median(lab[rows, columns][own], axis=0)
        close = np.linalg.norm(lab - typical, axis=-1) < _SIMILAR
        result[(regions == place) & close] = identity
    return result


def carried(labels: dict[int, Ids], count: int, flow: Callable[[int, int], Any], reach: int = _REACH) -> dict[int, Ids]:
    """Labels of the frames between: those of the nearest labelled frame on either side, followed from frame to frame;
    where the two sides disagree there is none.

    flow: (frame, neighbour) -> flow and its mask, or None.
    """
    sides: dict[int, list[Ids]] = {}
    for start in labels:
        for step in (-1, 1):
            current = labels[start]
            for number in range(start + step, start + step * (reach + 1), step):
                if not 0 <= number < count or number in labels:
                    break
                found = flow(number, number - step)
                if found is None:
                    break
                current = warp_labels(current, *found)
                sides.setdefault(number, []).append(current)
    result = dict(labels)
    for number, found in sides.items():
        merged = found[0]
        for other in found[1:]:
            merged = np.where(merged == IGNORE, other, np.where((other == IGNORE) | (other == merged), merged, IGNORE))
        if (merged != IGNORE).any():
            result[number] = merged
    return result


# --- template --------------------------------------------------------------------------------------------------------


def write_template(folder: Path, images: Path, count: int) -> None:
    """What a person needs to label some frames: which ones, and examples of the files."""
    best = [frame_name(int(n)) for n in np.unique(np.linspace(0, count - 1, min(4, count)).round())]
    classes = [
        {"name": "background", "color": [0, 0, 0], "dynamic": False},
        {"name": "person", "color": [224, 56, 56], "dynamic": True},
    ]
    write_json(folder / "clicks.json", {"classes": classes, "clicks": {name: [] for name in best}})
    text = f"""Label some frames, and repeat the command with --labels.

Frames: ../{images.name}/*.png. Labels of {", ".join(best)} serve best: they are spread over the video.

- Clicks: copy clicks.json, list your classes, and for each frame clicks [class, x, y] in pixels of the frame.
- CVAT: make a task of the frames, export "Segmentation mask 1.1", unpack it: --labels that folder.
- COCO (CVAT, Label Studio, Roboflow): --labels instances.json.
- Label Studio brush: export "Brush labels to PNG", --labels that folder with a tasks.json ({{"12": "{best[0]}.png"}}).
- SAM 2: a folder of masks for each object, or PNGs of object ids; names.json ({{"1": "person"}}) names them.

Keep the names of the frames. Where the original images have names like them, add --frame-names picked.
"""
    write_text(folder / "README.txt", text)
