"""Views with labels: what every export is made from, whatever found the labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from semfield_ns.segmentation.cameras import ViewCamera


@dataclass(frozen=True)
class Label:
    """A class or an object. Ids count from 1; 0 is what has no label."""

    id: int
    name: str
    color: tuple[int, int, int]
    category: int
    """the class: objects of one class share it"""
    instance: int
    """the object, from 1; 0 for a class that is not divided into objects"""
    file: str = ""
    """what its files are called; after its name if empty, see `with_files`"""

    @property
    def file_name(self) -> str:
        """The name, fit for files and folders."""
        return self.file or "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in self.name)


_TAKEN = frozenset({"", "ids", "scene", "labels", "video"})
"""files and folders that exports write beside those of labels"""
_LONGEST = 60  # letters: file systems count bytes, up to 255, of which a letter may have four


def with_files(labels: Sequence[Label]) -> list[Label]:
    """The labels with names of files that no two share, even where upper and lower case are one."""
    taken = set(_TAKEN)
    found = []
    for label in labels:
        name = label.file_name[:_LONGEST]
        while name.casefold() in taken or name.casefold().startswith("without_"):
            name = f"{name.removeprefix('without_') or 'label'}_{label.id}"
        taken.add(name.casefold())
        found.append(replace(label, file=name))
    return found


@dataclass(frozen=True, eq=False)
class LabelledView:
    """One picture, its labels, and where its surface is if that is known."""

    name: str
    camera: ViewCamera
    """in the world of the model"""
    rgb: UInt8[np.ndarray, "H W 3"]
    ids: Integer[np.ndarray, "H W"]
    """of labels; 0 is none"""
    points: Float[np.ndarray, "H W 3"] | None = None
    """the visible surface, in the world of the model; not finite where there is none"""
    overlay: UInt8[np.ndarray, "H W 3"] | None = None
    """the picture with the labels on it, if somebody has painted it already"""

    @property
    def depth(self) -> Float[np.ndarray, "H W"]:
        """Of the surface, along the optical axis."""
        assert self.points is not None, "asked of views with known surface only"
        pose = np.array(self.camera.camera_to_world).reshape(3, 4)
        return -(self.points - pose[:, 3]) @ pose[:, 2]


Item = TypeVar("Item", covariant=True)


class Counted(Protocol[Item]):
    """Things one after the other, of which it is known how many there are."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[Item]:
        """One after the other."""


class LabelledViews(Counted[LabelledView], Protocol):
    """Somebody who knows the labels of views.

    They come in the order of time and name, and one by one, as they are too large to be kept.
    """

    @property
    def labels(self) -> Sequence[Label]:
        """All labels that a view may have."""


OVERLAY_ALPHA = 0.55


def palette(labels: Sequence[Label]) -> UInt8[np.ndarray, "L 3"]:
    """Colours by id; what has no label is black."""
    table = np.zeros((max((label.id for label in labels), default=0) + 1, 3), np.uint8)
    for label in labels:
        table[label.id] = label.color
    return table


def only(ids: Integer[np.ndarray, "H W"], labels: Sequence[Label]) -> Integer[np.ndarray, "H W"]:
    """Ids of these labels; those of others become 0."""
    return np.where(np.isin(ids, [label.id for label in labels]), ids, 0)


def paint(view: LabelledView, labels: Sequence[Label]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture with labels in their colours on it."""
    ids = only(view.ids, labels)
    if view.overlay is not None and np.array_equal(ids, view.ids):
        return view.overlay
    mixed = (1 - OVERLAY_ALPHA) * view.rgb + OVERLAY_ALPHA * palette(labels)[ids]
    return np.where((ids > 0)[..., None], mixed, view.rgb).round().astype(np.uint8)


def mask_of(view: LabelledView, label: Label) -> Bool[np.ndarray, "H W"]:
    """Where a label is."""
    return view.ids == label.id
