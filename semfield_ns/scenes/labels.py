"""Class lists with a palette, and label images read into class ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import LOSSY, capital, read_image, require_file

IGNORE = -1
"""Class id of a pixel without a label, in every tensor and array of this package."""

_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_COLOR_MODES = ("RGB", "RGBA")


@dataclass(frozen=True)
class SemanticClass:
    """One class of a scene."""

    name: str
    """what people call it"""
    color: tuple[int, int, int]
    """palette colour, 0 to 255"""
    dynamic: bool = False
    """whether things of this class move by themselves"""


@dataclass(frozen=True)
class LabelMap:
    """The classes of a scene; a class's id is its place in `classes`."""

    classes: tuple[SemanticClass, ...]
    """classes in the order of their ids, from 0"""
    ignore_index: int = 255
    """the id that means "no label" in label images; IGNORE (-1) once they are read"""

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        if not names:
            raise SemfieldError("A label map needs at least one class.")
        if not all(name.strip() for name in names):
            raise SemfieldError("The label map has a class without a name: name each class.")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise SemfieldError(
                f'The label map names the class "{repeated[0]}" twice: give each class a name of its own.'
            )
        if 0 <= self.ignore_index < len(names):
            raise SemfieldError(
                f'The ignore_index {self.ignore_index} of the label map is also the id of "{names[self.ignore_index]}".'
            )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        """Class names in the order of their ids."""
        return [c.name for c in self.classes]

    @property
    def colors(self) -> UInt8[np.ndarray, "C 3"]:
        """Palette."""
        return np.array([c.color for c in self.classes], dtype=np.uint8)

    @property
    def dynamic(self) -> np.ndarray:
        """(C,) bool: which classes move."""
        return np.array([c.dynamic for c in self.classes], dtype=bool)

    # --- reading and writing the class list ---

    @classmethod
    def from_transforms(cls, semantics: Any, where: str = "semantics") -> "LabelMap":
        """From the `semantics` object of a transforms.json. `where` names the file in errors."""
        if not isinstance(semantics, dict) or not isinstance(semantics.get("classes"), list):
            raise SemfieldError(f'{where}: "semantics" must be an object with a list "classes".')
        entries = semantics["classes"]
        try:
            by_id = {int(entry["id"]): entry for entry in entries}
            shares = _are_shares(entry["color"] for entry in entries if "color" in entry)
            classes = tuple(_class_from_entry(by_id[i], i, shares) for i in sorted(by_id))
        except (KeyError, TypeError, ValueError) as error:
            raise SemfieldError(
                f'{where}: each of semantics.classes needs "id", "name" and a "color" [r, g, b] of 0 to 255 ({error}).'
            ) from error
        if sorted(by_id) != list(range(len(entries))):
            raise SemfieldError(f"{where}: the ids of semantics.classes must be 0 to {len(entries) - 1}, each once.")
        ignore_index = semantics.get("ignore_index", 255)
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
            raise SemfieldError(f"{where}: semantics.ignore_index must be a whole number, not {ignore_index!r}.")
        return cls(classes, ignore_index)

    def to_transforms(self) -> dict[str, Any]:
        """The `semantics` object of a transforms.json."""
        classes = [
            {"id": i, "name": c.name, "color": list(c.color), "dynamic": c.dynamic} for i, c in enumerate(self.classes)
        ]
        return {"classes": classes, "ignore_index": self.ignore_index}

    @classmethod
    def from_nvidia(cls, labelmap: Path, foreground: Path) -> "LabelMap":
        """From labelmap.txt (a header, then `name:r,g,b::`) and foreground_object.txt (dynamic names, one a line)."""
        entries = _nvidia_entries(labelmap)
        names = [name for name, _ in entries]
        lines = _text_lines(foreground)
        dynamic = [line for line in lines if line and not line.startswith("#")]
        if unknown := [name for name in dynamic if name not in names]:
            raise SemfieldError(f'{foreground} names the class "{unknown[0]}", which {labelmap} does not list.')
        return cls(tuple(SemanticClass(name, color, name in dynamic) for name, color in entries))

    # --- reading label images ---

    def read(
        self, path: Path, size: tuple[int, int] | None = None, where: str = "label image", resize: bool = False
    ) -> Int[np.ndarray, "H W"]:
        """Read a label image: class ids (grey or palette PNG) or palette colours (RGB).

        A palette that holds the colours of classes counts by its colours: programs that make files smaller change ids.

        Args:
            path: the image.
            size: (height, width) it must have.
            where: whose label it is, for errors.
            resize: bring it to `size` by nearest neighbour instead of raising.
        Returns: int64 (H,W) class ids, IGNORE (-1) where there is no label.
        Raises: SemfieldError for an unreadable file, another size, an unknown id or an unknown colour.
        """
        image = read_image(path, where)
        if size is not None and (image.height, image.width) != tuple(size):
            if not resize:
                raise SemfieldError(
                    f"{capital(where)}: {path} is {image.width}x{image.height} pixels, its image {size[1]}x{size[0]}."
                )
            image = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
        if image.mode == "P" and self._knows_colors_of(image):
            return self._from_colors(np.array(image.convert("RGB")), path, where)
        if image.mode in _ID_MODES:
            return self._from_ids(np.array(image).astype(np.int64), path, where)
        if image.mode in _COLOR_MODES:
            ids = self._from_colors(np.array(image.convert("RGB")), path, where)
            return np.where(np.array(image.getchannel("A")) > 0, ids, IGNORE) if image.mode == "RGBA" else ids
        raise SemfieldError(f"{capital(where)}: {path} is a {image.mode} image: use a grey PNG of ids or an RGB one.")

    def _knows_colors_of(self, image: Image.Image) -> bool:
        """Whether all colours of a picture with a palette are those of classes, each of which has its own."""
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        used, known = np.unique(np.array(image)), _pack(self.colors)
        if used[-1] >= len(palette) or len(np.unique(known)) < len(known):
            return False
        return bool(np.isin(_pack(palette[used]), known).all())

    def _from_ids(self, ids: Int[np.ndarray, "H W"], path: Path, where: str) -> Int[np.ndarray, "H W"]:
        ignored = ids == self.ignore_index
        unknown = ((ids < 0) | (ids >= len(self))) & ~ignored
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            raise SemfieldError(
                f"{capital(where)}: {path} has the unknown class id {ids[y, x]} at pixel x={x}, y={y}; "
                f"known are 0 to {len(self) - 1} and {self.ignore_index} for no label."
            )
        return np.where(ignored, IGNORE, ids)

    def _from_colors(self, colors: UInt8[np.ndarray, "H W 3"], path: Path, where: str) -> Int[np.ndarray, "H W"]:
        known = _pack(self.colors)
        if len(np.unique(known)) < len(known):
            raise SemfieldError(
                f"{capital(where)}: {path} has colours, but two classes share a colour: use a PNG of ids."
            )
        packed = _pack(colors)
        order = np.argsort(known)
        place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
        ids = order[place]
        unknown = known[ids] != packed
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            color = tuple(int(v) for v in colors[y, x])
            lossy = ": JPEG changes colours, save labels as PNG" if path.suffix.lower() in LOSSY else ""
            raise SemfieldError(
                f"{capital(where)}: {path} has the colour {color} of no class at pixel x={x}, y={y}{lossy}."
            )
        return ids.astype(np.int64)


def _pack(colors: UInt8[np.ndarray, "*shape 3"]) -> Int[np.ndarray, "*shape"]:
    """One integer a colour, so that colours can be sorted and compared."""
    r, g, b = np.moveaxis(colors.astype(np.int64), -1, 0)
    return (r << 16) | (g << 8) | b


def _class_from_entry(entry: dict[str, Any], index: int, shares: bool) -> SemanticClass:
    color, name, dynamic = entry.get("color"), str(entry["name"]), entry.get("dynamic") or False
    if dynamic not in (False, True):
        raise ValueError(f'"dynamic" of "{name}" is {dynamic!r}, neither true nor false')
    if color is not None and shares:
        color = [round(255 * value) for value in color]
    return SemanticClass(name, _voc_color(index) if color is None else _color(color), bool(dynamic))


def _are_shares(colors: Iterable[Sequence[Any]]) -> bool:
    """Whether colours are from 0 to 1: none is larger, and one at least has a decimal point."""
    values = [value for color in colors if color is not None for value in color]
    numbers = all(isinstance(value, int | float) and 0 <= value <= 1 for value in values)
    return numbers and any(isinstance(value, float) for value in values)


def _color(values: Sequence[Any]) -> tuple[int, int, int]:
    r, g, b = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (r, g, b)) or any(float(value) % 1 for value in values):
        raise ValueError(f"colour {r},{g},{b}")
    return r, g, b


def _voc_color(index: int) -> tuple[int, int, int]:
    """Colour for a class that names none: the bits of its id spread over the channels, high first (as VOC does)."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


def _text_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in require_file(path, "label map").read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SemfieldError(f"Label map: {path} is not a readable text file.") from error


def _nvidia_entries(path: Path) -> list[tuple[str, tuple[int, int, int]]]:
    entries = []
    for number, line in enumerate(_text_lines(path), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            name, color = line.split(":")[:2]
            entries.append((name.strip(), _color(color.split(","))))
        except ValueError as error:
            if number == 1:  # a header without the comment sign
                continue
            raise SemfieldError(f'{path}, line {number}: "{line}" is not of the form name:r,g,b:: .') from error
    if not entries:
        raise SemfieldError(f"{path} lists no class; write one a line as name:r,g,b:: .")
    return entries
