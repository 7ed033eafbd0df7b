"""How well objects are followed through a video: region similarity J and boundary accuracy F, as DAVIS defines them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Int

Mask = Bool[np.ndarray, "H W"]
TOLERANCE = 0.008
"""how far boundaries may be apart, as a part of the image's diagonal"""


def region_similarity(pred: Mask, truth: Mask) -> float:
    """J: intersection over union; 1 where both are empty."""
    union = int((pred | truth).sum())
    return int((pred & truth).sum()) / union if union else 1.0


def boundary_accuracy(pred: Mask, truth: Mask, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of the parts of each boundary that lie near the other one; 1 where there is none on both sides.

    Args:
        pred: the predicted mask.
        truth: the true one.
        tolerance: what is near, as a part of the image's diagonal; at least one pixel.
    """
    ours, theirs = boundary(pred), boundary(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    radius = max(1, round(tolerance * float(np.hypot(*truth.shape))))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    near_ours, near_theirs = (cv2.dilate(line.astype(np.uint8), disk) > 0 for line in (ours, theirs))
    precision, recall = (ours & near_theirs).sum() / ours.sum(), (theirs & near_ours).sum() / theirs.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: Mask) -> Mask:
    """Pixels that differ from their neighbour to the right, below, or right below."""
    line = np.zeros(mask.shape, dtype=bool)
    line[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    line[:-1] |= mask[:-1] != mask[1:]
    line[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return line


@dataclass(frozen=True)
class ObjectScore:
    """An object of the truth; means over the frames."""

    id: int
    """of the truth"""
    found: int | None
    """the tracked object that is taken for it, if there is one"""
    region: float
    """J"""
    boundary: float
    """F"""


@dataclass(frozen=True)
class InstanceScore:
    """All objects of the truth."""

    objects: tuple[ObjectScore, ...]

    @property
    def region(self) -> float:
        """J, the mean over the objects."""
        return float(np.mean([entry.region for entry in self.objects]))

    @property
    def boundary(self) -> float:
        """F, the mean over the objects."""
        return float(np.mean([entry.boundary for entry in self.objects]))

    @property
    def mean(self) -> float:
        """J&F."""
        return (self.region + self.boundary) / 2

    def table(self, names: Sequence[str]) -> str:
        """Markdown; `names` are those of the tracked objects, of which the first has id 1."""
        lines = ["| true object | found as | J | F |", "|---|---|---|---|"]
        for entry in self.objects:
            found = "-" if entry.found is None else names[entry.found - 1]
            lines.append(f"| {entry.id} | {found} | {entry.region:.3f} | {entry.boundary:.3f} |")
        return "\n".join([*lines, f"| mean | J&F {self.mean:.3f} | {self.region:.3f} | {self.boundary:.3f} |"])


def instance_score(
    pred: Mapping[int, Int[np.ndarray, "H W"]],
    truth: Mapping[int, Int[np.ndarray, "H W"]],
    tolerance: float = TOLERANCE,
) -> InstanceScore:
    """Compares tracked objects with the truth. Which is which is decided once for the video, by best overlap.

    Args:
        pred: frame -> ids, 0 or less for none; the same object has the same id in all frames.
        truth: the same of the truth; only its frames count.
        tolerance: of boundaries, as a part of the image's diagonal.

    Raises:
        ValueError: there is no object in the truth.
    """
    from scipy.optimize import linear_sum_assignment

    ours = sorted({int(i) for frame in truth for i in np.unique(pred[frame]) if i > 0})
    theirs = sorted({int(i) for ids in truth.values() for i in np.unique(ids) if i > 0})
    if not theirs:
        raise ValueError("There is no object in the truth.")
    overlap = np.zeros((len(theirs), len(ours)))
    for row, true_id in enumerate(theirs):
        for column, id_ in enumerate(ours):
            both = sum(int(((truth[f] == true_id) & (pred[f] == id_)).sum()) for f in truth)
            any_ = sum(int(((truth[f] == true_id) | (pred[f] == id_)).sum()) for f in truth)
            overlap[row, column] = both / any_
    match = dict(zip(*linear_sum_assignment(-overlap), strict=True)) if ours else {}
    scores = []
    for row, true_id in enumerate(theirs):
        chosen = ours[match[row]] if row in match else None
        pairs = [
            (np.zeros(ids.shape, dtype=bool) if chosen is None else pred[frame] == chosen, ids == true_id)
            for frame, ids in truth.items()
        ]
        region = float(np.mean([region_similarity(*pair) for pair in pairs]))
        edges = float(np.mean([boundary_accuracy(*pair, tolerance) for pair in pairs]))
        scores.append(ObjectScore(true_id, chosen, region, edges))
    return InstanceScore(tuple(scores))


def moving_instances(
    ids: Mapping[int, Int[np.ndarray, "H W"]],
    labels: Mapping[int, Int[np.ndarray, "H W"]],
    moving_classes: Bool[np.ndarray, "C"],
) -> dict[int, Int[np.ndarray, "H W"]]:
    """The instances that may move, and those that nothing is known of; the others become 0.

    Args:
        ids: frame -> true instance ids, 0 for none.
        labels: of the same frames, class ids, negative where there is no label.
        moving_classes: which classes may move. An instance is of the class that most of its pixels in all frames have.
    """
    counts: dict[int, np.ndarray] = {}
    for frame, image in ids.items():
        known = (labels[frame] >= 0) & (image > 0)
        for number in np.unique(image[known]).tolist():
            seen = np.bincount(labels[frame][known & (image == number)], minlength=len(moving_classes))
            counts[number] = counts.get(number, 0) + seen
    still = [number for number, seen in counts.items() if not moving_classes[int(seen.argmax())]]
    return {frame: np.where(np.isin(image, still), 0, image) for frame, image in ids.items()}


def at_size(ids: Int[np.ndarray, "H W"], shape: tuple[int, int]) -> Int[np.ndarray, "height width"]:
    """An id image at another size: each pixel takes the id at its centre."""
    sides = zip(shape, ids.shape, strict=True)
    rows, columns = (((np.arange(wanted) + 0.5) * given / wanted).astype(int) for wanted, given in sides)
    return ids[rows][:, columns]
