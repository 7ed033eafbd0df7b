"""What tracking leaves: labels of all frames, a video to look at, and how far they can be trusted."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path, read_image, reason, write_ids, write_json, write_png
from semfield_ns.scenes.labels import IGNORE, LabelMap
from semfield_ns.tracking.pictures import Pictures
from semfield_ns.tracking.tracker import Arrival, LabelImage, Tracked, certainty, label_image

UNSURE = 0.8
"""certainty below which a frame is worth correcting"""
APART = 10
"""frames between two that are proposed for correction"""
OPACITY = 0.55


@dataclass(frozen=True)
class Trust:
    """How far the labels of a video can be trusted."""

    given: list[str]
    """frames whose labels were given"""
    certainty: dict[str, float]
    """mean probability of the labels of other frames, where there may be an object"""
    agreement: dict[str, float]
    """given frames that were reached from the one before: mean IoU of what was found there and what is given"""
    correct: list[str]
    """frames that are worth a label of their own, the least certain first"""


def write_labels(
    results: Iterable[Tracked | Arrival],
    pictures: Pictures,
    given: Mapping[int, LabelImage],
    label_map: LabelMap,
    folder: Path,
    report: Callable[[float], None] = lambda share: None,
) -> Trust:
    """Writes a PNG of class ids for every frame, named as its picture, and classes.json.

    classes.json comes last, when everything is there; an earlier result is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    sure: dict[int, float] = {}
    agreement: dict[str, float] = {}
    size = pictures[0].shape[:2]
    for tracked in results:
        name = pictures.files[tracked.number].stem
        if isinstance(tracked, Arrival):
            agreement[name] = mean_iou(label_image(tracked.probabilities, size), given[tracked.number])
            continue
        if tracked.number in given:
            labels = np.where(given[tracked.number] == IGNORE, label_map.ignore_index, given[tracked.number])
        else:
            labels = label_image(tracked.probabilities, size)
            sure[tracked.number] = certainty(tracked.probabilities)
        if max(len(label_map), label_map.ignore_index) < 256:
            write_ids(folder / f"{name}.png", labels.astype(np.uint8), label_map.colors)
        else:
            write_png(folder / f"{name}.png", labels.astype(np.uint16))
        report((len(sure) + len(given)) / len(pictures))
    write_json(folder / "classes.json", label_map.to_transforms())
    named = {pictures.files[number].stem: round(value, 3) for number, value in sorted(sure.items())}
    proposed = [pictures.files[number].stem for number in worth_correcting(sure)]
    return Trust([pictures.files[n].stem for n in sorted(given)], named, agreement, proposed)


def worth_correcting(sure: Mapping[int, float]) -> list[int]:
    """Frames of little certainty, the least first, and not close to each other."""
    found: list[int] = []
    for number in sorted((n for n in sure if sure[n] < UNSURE), key=lambda n: sure[n]):
        if all(abs(number - other) > APART for other in found):
            found.append(number)
    return found


def mean_iou(found: LabelImage, truth: LabelImage) -> float:
    """Of the classes that are found or given, without the first, the background; 1 where there is none."""
    known = truth != IGNORE
    ids = sorted({int(i) for i in np.unique(found[known])} | {int(i) for i in np.unique(truth[known])} - {0})
    pairs = [(found[known] == i, truth[known] == i) for i in ids if i]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])) if pairs else 1.0


def write_trust(trust: Trust, path: Path) -> None:
    """As JSON."""
    write_json(path, asdict(trust))


def write_overlay(
    pictures: Pictures, label_map: LabelMap, folder: Path, path: Path, fps: float, report: Callable[[float], None]
) -> None:
    """A video of the pictures with the labels in `folder` on them, in the colours of their classes.

    Raises:
        SemfieldError: it cannot be written.
    """
    import mediapy

    height, width = (length - length % 2 for length in pictures[0].shape[:2])  # what video encoders take
    colors = np.zeros((max(len(label_map), label_map.ignore_index) + 1, 3), np.uint8)
    colors[: len(label_map)] = label_map.colors
    painted = np.zeros(len(colors), bool)
    painted[1 : len(label_map)] = True
    try:
        with atomic_path(path) as temporary, mediapy.VideoWriter(temporary, (height, width), fps=fps, crf=18) as video:
            for number, file in enumerate(pictures.files):
                ids = np.array(read_image(folder / f"{file.stem}.png"))
                mixed = (1 - OPACITY) * pictures[number] + OPACITY * colors[ids]
                shown = np.where(painted[ids][..., None], mixed, pictures[number]).round().astype(np.uint8)
                video.add_image(np.ascontiguousarray(shown[:height, :width]))
                report((number + 1) / len(pictures))
    except (RuntimeError, OSError) as error:
        raise SemfieldError(f"{path} cannot be written ({reason(error)}).") from error
