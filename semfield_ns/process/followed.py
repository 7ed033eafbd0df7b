"""Labels of a few picked frames, followed to all of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semfield_ns.process.labels.imported import Imported
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.teachers.registry import build_teacher
from semfield_ns.tracking.features import FrameFeatures, suited_to
from semfield_ns.tracking.pictures import Pictures
from semfield_ns.tracking.tracker import Tracked, Tracker, resized_probabilities

SURE = 0.75
"""probability below which a pixel is left without a label"""


def follow_labels(
    found: Imported, files: Sequence[Path], report: Callable[[float], None] = lambda share: None, teacher: str = "lite"
) -> Imported:
    """The labels, and those of all other frames, without what is not sure.

    Args:
        found: labels of some frames, by their place among the files.
        files: images of all frames, in the order of the video.
        report: called with the share that is done.
        teacher: features that recognise things.
    """
    pictures = Pictures(files)
    shape = pictures[0].shape[:2]
    features = FrameFeatures(pictures, build_teacher(suited_to(teacher, max(shape))))
    labels = dict(found.labels)
    for tracked in Tracker(pictures, found.labels, len(found.label_map), features).run():
        if isinstance(tracked, Tracked) and tracked.number not in labels:
            probabilities = resized_probabilities(tracked.probabilities, shape)
            labels[tracked.number] = np.where(probabilities.max(-1) < SURE, IGNORE, probabilities.argmax(-1))
            report(len(labels) / len(pictures))
    return replace(found, labels=labels, carried=found.carried + len(labels) - len(found.labels))
