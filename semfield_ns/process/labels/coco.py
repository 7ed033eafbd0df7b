"""Labels as COCO: polygons, run lengths and boxes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from semfield_ns.errors import SemfieldError
from semfield_ns.io import natural_key
from semfield_ns.process.labels.imported import BACKGROUND, Ids, Imported, fitted, label_map_of, new_classes
from semfield_ns.process.names import FrameNames, match_names
from semfield_ns.scenes.labels import IGNORE


def from_coco(path: Path, meta: dict[str, Any], frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    """COCO instances: polygons, or run lengths with or without compression. Small things lie on top of large ones.

    What is annotated by a box alone lies somewhere in it: the box is left without a label.
    """
    try:
        # Some programs write numbers of categories and images as text in one place; Roboflow lists some names twice.
        name_of = {str(entry["id"]): str(entry["name"] or "") for entry in meta["categories"]}
        names = list(dict.fromkeys(name_of[key] for key in sorted(name_of, key=natural_key)))
        classes = [BACKGROUND] * ("background" not in names) + new_classes(names)
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
            parts.setdefault(number, []).append((fitted(mask.astype(np.uint8), size, where) > 0, value))
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
    return Imported(label_map_of(classes), labels, what)


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
