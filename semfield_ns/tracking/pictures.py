"""Frames of a video as files that are read when they are needed."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

from semfield_ns.io import read_rgb
from semfield_ns.tracking.features import Rgb

KEPT = 8
"""pictures in memory"""


class Pictures(Sequence[Rgb]):
    """Images in the order of the video.

    Args:
        files: of the images.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self._read = lru_cache(KEPT)(lambda number: read_rgb(self.files[number]))

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, number: int) -> Rgb: ...

    @overload
    def __getitem__(self, number: slice) -> "Pictures": ...

    def __getitem__(self, number: "int | slice") -> "Rgb | Pictures":
        return Pictures(self.files[number]) if isinstance(number, slice) else self._read(number)
