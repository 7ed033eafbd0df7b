"""Which of several ways to pair pictures with picked frames is right? The pictures themselves tell."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from PIL import ImageOps

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_image
from semfield_ns.process.frames import frame_name

_COMPARED = 12  # frames, spread over the video
_SIZE = (160, 120)
_AROUND = 2  # neighbours of a picture that it must be more like the frame than
_CLEAR = 1.25  # times the difference of the best: what is below may be as right as it
_NOISE = 1.0  # grey levels that pictures of one frame may differ by


def same_pictures(pictures: Sequence[Path], images: Path, readings: Sequence[Mapping[int, int]]) -> int | None:
    """The place of the reading whose pictures look like the frames; None where two of them do equally well.

    Args:
        pictures: in the order of time, as far as names tell it.
        images: folder of the picked frames.
        readings: number of the frame -> place of its picture.

    Raises:
        SemfieldError: with every reading, frames look more like pictures that are said to be of other frames.
    """

    @cache
    def picture(place: int) -> Float[np.ndarray, "120 160"]:
        return _small(pictures[place])

    @cache
    def frame(number: int) -> Float[np.ndarray, "120 160"]:
        return _small(images / f"{frame_name(number)}.png")

    def apart(number: int, place: int) -> float:
        return float(np.abs(frame(number) - picture(place)).mean())

    scores: list[tuple[float, bool]] = []
    for reading in readings:
        numbers = sorted(reading)[:: -(-len(reading) // _COMPARED) or 1]
        own = np.array([apart(n, reading[n]) for n in numbers])
        near = [range(max(0, reading[n] - _AROUND), min(len(pictures), reading[n] + _AROUND + 1)) for n in numbers]
        best = np.array([min(apart(n, place) for place in places) for n, places in zip(numbers, near, strict=True)])
        right = len(numbers) > 0 and own.mean() <= _CLEAR * best.mean() + _NOISE
        scores.append((float(own.mean()) if len(own) else np.inf, bool(right)))
    order = sorted(range(len(readings)), key=lambda i: scores[i][0])
    if not any(right for _, right in scores):
        raise SemfieldError(
            f"{pictures[0].parent} has pictures that are not those of the frames which their names mean: name them as "
            "the picked frames (0000.png), or process that folder instead of the video."
        )
    others = [i for i in order if readings[i] != readings[order[0]]]
    if others and scores[others[0]][0] <= _CLEAR * scores[order[0]][0] + _NOISE:
        return None
    return order[0]


def _small(path: Path) -> Float[np.ndarray, "120 160"]:
    image = ImageOps.exif_transpose(read_image(path)).convert("L")
    return np.asarray(cv2.resize(np.array(image, dtype=np.float32), _SIZE, interpolation=cv2.INTER_AREA))
