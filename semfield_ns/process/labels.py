"""Labels that people made of some frames, in the formats of the tools they use, as class ids of the picked frames.

An image is matched to a frame by its name: that of the original image, that of the picked frame (0007), or a number
that ends the name and is the frame's in the video.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Int

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_image, read_json, write_json, write_text
from semfield_ns.process.flow import flow_file, read_frame
from semfield_ns.process.frames import Rgb, frame_name
from semfield_ns.process.registration import FrameNames, match_images, match_name
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
        path: a COCO or clicks .json; or a folder: CVAT's "Segmentation mask" (labelmap.txt, SegmentationClass/), brush
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
    if path.is_file():
        meta = read_json(path)
        if isinstance(meta, dict) and "clicks" in meta:
            found = _from_clicks(path, meta, size, images, flow, frames)
        elif isinstance(meta, dict) and "annotations" in meta and "categories" in meta:
            found = _from_coco(path, meta, frames, size)
        else:
            raise SemfieldError(f'{path} is neither COCO ("categories", "annotations") nor clicks ("clicks").')
    else:
        found = _from_folder(path, frames, size)
    if not found.labels:
        raise SemfieldError(
            f"{path} has no label of a picked frame: its images must be named as the frames (0000.png), or end in the "
            "number of the frame in the video."
        )
    return found


def _from_folder(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    pngs = sorted(path.glob("*.png"))
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and any(folder.glob("*.png")))
    if (path / "labelmap.txt").is_file():
        return _from_cvat(path, frames, size)
    if any(_LABEL_STUDIO.search(png.name) for png in pngs):
        return _from_label_studio(path, pngs, frames, size)
    if (path / "classes.json").is_file():
        label_map = LabelMap.from_transforms(read_json(path / "classes.json"), str(path / "classes.json"))
        return Imported(label_map, _read_ids(label_map, pngs, frames, size), "PNGs of class ids")
    if folders:
        return _from_tracks(path, folders, frames, size)
    if pngs:
        return _from_object_ids(path, pngs, frames, size)
    raise SemfieldError(f"{path} has no labels in a known format: see docs/own_video.md for the formats.")


# --- masks -----------------------------------------------------------------------------------------------------------


def _from_cvat(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """CVAT "Segmentation mask 1.1", which is Pascal VOC: colours by labelmap.txt."""
    movers = path / "foreground_object.txt"
    names = _labelmap_names(path / "labelmap.txt")
    moving = _lines(movers) if movers.is_file() else [name for name in names if name.lower() in MOVERS]
    label_map = LabelMap(tuple(SemanticClass(name, color, name in moving) for name, color in names.items()))
    folder = path / "SegmentationClass"
    pngs = sorted((folder if folder.is_dir() else path).glob("*.png"))
    return Imported(label_map, _read_ids(label_map, pngs, frames, size), "CVAT segmentation masks")


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
    return classes


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def _read_ids(
    label_map: LabelMap, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]
) -> dict[int, Ids]:
    return {
        number: label_map.read(png, size[::-1], f"label image of frame {number}", resize=True)
        for number, png in match_images(pngs, frames).items()
    }


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
        number_of = {task: match_name(str(names.get(str(task), "-")), frames) for task in tasks}
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
        number = number_of[task]
        if number is not None:
            target = labels.setdefault(number, np.zeros(size[::-1], dtype=np.int64))
            target[_read_mask(png, size)] = ids[tag]
    return Imported(LabelMap(tuple(classes)), labels, "Label Studio brush labels")


def _read_mask(path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    image = read_image(path, "mask")
    values = np.array(image if image.mode in ("1", "L", "P") else image.convert("L")).astype(np.uint8)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST) > 0)


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
    return [str(given.get(key, given.get(key.lstrip("0"), f"object {key.lstrip('0') or key}"))) for key in keys]


def _from_tracks(path: Path, folders: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """SAM 2 with a folder for each object: a mask a frame. What is followed is taken to move."""
    names = _object_names(path, [folder.name for folder in folders])
    distinct = sorted(set(names), key=names.index)
    classes = [BACKGROUND, *_new_classes(distinct, moving=True)]
    labels: dict[int, Ids] = {}
    for folder, name in zip(folders, names, strict=True):
        for png in sorted(folder.glob("*.png")):
            number = match_name(png.name, frames)
            if number is not None:
                target = labels.setdefault(number, np.zeros(size[::-1], dtype=np.int64))
                target[_read_mask(png, size)] = 1 + distinct.index(name)
    return Imported(LabelMap(tuple(classes)), labels, "SAM 2 tracks")


def _from_object_ids(path: Path, pngs: Sequence[Path], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """SAM 2 with one PNG of object ids a frame, 0 for none."""
    read: dict[int, np.ndarray] = {}
    for number, png in match_images(pngs, frames).items():
        image = read_image(png, "object ids")
        if image.mode not in ("1", "L", "P"):
            raise SemfieldError(f"{png} is a {image.mode} image: PNGs of object ids are grey or have a palette.")
        read[number] = cv2.resize(np.array(image).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    objects = sorted({int(v) for ids in read.values() for v in np.unique(ids)} - {0})
    names = _object_names(path, [str(v) for v in objects])
    distinct = sorted(set(names), key=names.index)
    table = np.zeros(256, dtype=np.int64)
    table[objects] = [1 + distinct.index(name) for name in names]
    classes = [BACKGROUND, *_new_classes(distinct, moving=True)]
    return Imported(LabelMap(tuple(classes)), {n: table[ids] for n, ids in read.items()}, "SAM 2 object ids")


# --- COCO ------------------------------------------------------------------------------------------------------------


def _from_coco(path: Path, meta: dict[str, Any], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """COCO instances: polygons, or run lengths with or without compression. Small things lie on top of large ones."""
    try:
        categories = {entry["id"]: str(entry["name"]) for entry in meta["categories"]}
        pictures = {entry["id"]: entry for entry in meta["images"]}
        annotations = sorted(meta["annotations"], key=lambda entry: -float(entry.get("area", 0)))
        names = [categories[key] for key in sorted(categories)]
        with_background = "background" not in names
        classes = [BACKGROUND] * with_background + _new_classes(names)
        place = {key: i + with_background for i, key in enumerate(sorted(categories))}
        labels: dict[int, Ids] = {}
        for entry in annotations:
            picture = pictures[entry["image_id"]]
            number = match_name(picture["file_name"], frames)
            if number is not None:
                shape = int(picture["height"]), int(picture["width"])
                mask = coco_mask(entry["segmentation"], *shape).astype(np.uint8)
                mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
                target = labels.setdefault(number, np.zeros(size[::-1], dtype=np.int64))
                target[mask > 0] = place[entry["category_id"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SemfieldError(f"{path} is not valid COCO: {type(error).__name__} {error}.") from error
    return Imported(LabelMap(tuple(classes)), labels, "COCO")


def coco_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """A mask of COCO: a list of polygons [x, y, x, y, ...], or {"size", "counts"} with run lengths down the columns.

    Raises ValueError for anything else.
    """
    if isinstance(segmentation, list):
        canvas = np.zeros((height, width), dtype=np.uint8)
        for polygon in segmentation:
            corners = np.array(polygon, dtype=np.float64).reshape(-1, 2)
            cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], (1.0,))
        return canvas > 0
    counts = segmentation["counts"]
    if isinstance(counts, str):
        counts = decompressed_counts(counts)
    if list(segmentation["size"]) != [height, width] or sum(counts) != height * width:
        raise ValueError(f"run lengths of {segmentation['size']} for an image of {height} x {width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def decompressed_counts(text: str) -> list[int]:
    """Run lengths from COCO's string: five bits a character, low first; from the third on as differences to the last
    but one.
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[place]) - 48
            value |= (code & 0x1F) << shift
            shift += 5
            more = bool(code & 0x20)
            place += 1
            if not more and code & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


# --- clicks ----------------------------------------------------------------------------------------------------------


def _from_clicks(
    path: Path, meta: dict[str, Any], size: tuple[int, int], images: Path, flow: Path, frames: Sequence[FrameNames]
) -> Imported:
    """{"classes": [{"name", "color", "dynamic"}], "clicks": {"0007": [["person", x, y], ...]}}, px of the frames."""
    entries = meta.get("classes")
    if not isinstance(entries, list) or not isinstance(meta["clicks"], dict):
        raise SemfieldError(f'{path} needs a list "classes" and an object "clicks" (frame -> [[class, x, y], ...]).')
    numbered = [{"id": i, **entry} for i, entry in enumerate(entries)]
    label_map = LabelMap.from_transforms({"classes": numbered}, str(path))
    labels: dict[int, Ids] = {}
    for name, clicks in meta["clicks"].items():
        number = match_name(name, frames)
        if number is None:
            raise SemfieldError(f'{path}: "{name}" is no picked frame (0000 to {frame_name(len(frames) - 1)}).')
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
"""
    write_text(folder / "README.txt", text)
