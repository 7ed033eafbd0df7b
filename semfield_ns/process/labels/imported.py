"""Labels by the number of the frame, and what all formats need to make them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int

from semfield_ns.errors import SemfieldError
from semfield_ns.io import natural_key
from semfield_ns.scenes.labels import LabelMap, SemanticClass

Ids = Int[np.ndarray, "H W"]
BACKGROUND = SemanticClass("background", (0, 0, 0))
_MOVERS = """
person people pedestrian man woman child rider bicyclist cyclist car truck bus train motorcycle bicycle bike animal dog
cat horse bird cow sheep ball balloon boat airplane skateboard robot
"""
MOVERS = frozenset(_MOVERS.split())
"""names of classes that move unless the labels say otherwise"""
_WIDE = 65535  # the id of "no label" where there are more classes than a byte can count


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


def named_classes(names: Sequence[str]) -> LabelMap:
    """The background, and a class for each name."""
    return label_map_of([BACKGROUND, *new_classes(names)])


def new_classes(names: Sequence[str], moving: bool = False) -> list[SemanticClass]:
    from semfield_ns.rendering.palette import default_palette

    colors = default_palette(len(names) + 1)[1:]
    return [
        SemanticClass(name, (int(r), int(g), int(b)), moving or name.lower() in MOVERS)
        for name, (r, g, b) in zip(names, colors, strict=True)
    ]


def label_map_of(classes: Sequence[SemanticClass]) -> LabelMap:
    return LabelMap(tuple(classes), ignore_index=255 if len(classes) < 256 else _WIDE)


def fitted(values: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
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


def pngs_of(folder: Path, depth: str = "") -> list[Path]:
    """PNGs of a folder, or (depth "**") of those below it too, in the order of the numbers in their names."""
    found = [file for file in folder.glob(f"{depth}/*".lstrip("/")) if file.suffix.lower() == ".png"]
    return sorted(found, key=lambda file: natural_key(file.relative_to(folder).as_posix()))
