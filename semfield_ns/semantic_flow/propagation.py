"""Labels carried along the given optical flow from labelled frames to unlabelled ones, with a confidence.

The paper holds a label against the render one frame before and after. This is the same idea over more frames, done
once in two dimensions: an unlabelled frame looks up, through chained flow, the nearest labelled frames on both sides.
Only labels that training may read take part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from semfield_ns.scenes.labels import IGNORE

LabelImage = Int[np.ndarray, "height width"]


@dataclass
class Flow:
    """Optical flow of one frame to a neighbour."""

    vectors: Float[np.ndarray, "height width 2"]
    """Pixels, x right and y down."""
    valid: Bool[np.ndarray, "height width"]


@dataclass
class PropagatedLabels:
    """Labels of a frame that has none of its own."""

    labels: LabelImage
    """`IGNORE` where nothing could be carried."""
    confidence: Float[np.ndarray, "height width"]
    """In [0, 1]; falls with the length of the chain, and where both sides disagree."""


def chain(flows: Sequence[Flow | None]) -> Flow | None:
    """Composes flows of consecutive frames into one from the first frame to the last.

    A pixel is valid as long as every flow on its way was valid where it passed and it stayed inside.
    """
    vectors, valid = None, None
    for flow in flows:
        if flow is None:
            return None
        if vectors is None:
            vectors, valid = flow.vectors.copy(), flow.valid.copy()
            continue
        rows, columns, inside = _landing(vectors)
        vectors = vectors + flow.vectors[rows, columns]
        valid = valid & inside & flow.valid[rows, columns]
    return None if vectors is None else Flow(vectors, valid & _landing(vectors)[2])


def _landing(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns (clipped) of the pixels that vectors lead to, and whether they are inside."""
    height, width = vectors.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows, columns = np.rint(rows + vectors[..., 1]), np.rint(columns + vectors[..., 0])
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return rows.clip(0, height - 1).astype(int), columns.clip(0, width - 1).astype(int), inside


def propagate(
    labels: dict[int, LabelImage],
    forward: Sequence[Flow | None],
    backward: Sequence[Flow | None],
    half_life: float = 4.0,
    reach: int = 16,
) -> dict[int, PropagatedLabels]:
    """Carries labels to every frame without one.

    Args:
        labels: frame -> labels, of the labelled frames.
        forward: of every frame, its flow to the next one, or None.
        backward: of every frame, its flow to the previous one, or None.
        half_life: frames of chained flow that halve the confidence.
        reach: longest chain.

    Returns:
        Frame -> labels, for the frames that at least one side reaches.
    """
    result = {}
    for frame in range(len(forward)):
        if frame in labels:
            continue
        sides = []
        for step, flows in ((-1, backward), (1, forward)):
            source = next((s for s in _reach(frame, step, len(forward), reach) if s in labels), None)
            if source is None:
                continue
            chained = chain([flows[f] for f in range(frame, source, step)])
            if chained is not None:
                sides.append((_pull(labels[source], chained), 0.5 ** (abs(source - frame) / half_life)))
        if sides:
            result[frame] = _merge(sides)
    return result


def _reach(frame: int, step: int, count: int, reach: int) -> range:
    end = max(-1, frame - reach - 1) if step < 0 else min(count, frame + reach + 1)
    return range(frame + step, end, step)


def _pull(labels: LabelImage, flow: Flow) -> LabelImage:
    rows, columns, _ = _landing(flow.vectors)
    return np.where(flow.valid, labels[rows, columns], IGNORE)


def _merge(sides: list[tuple[LabelImage, float]]) -> PropagatedLabels:
    """The more confident side wins; agreement adds confidence, disagreement takes it."""
    sides = sorted(sides, key=lambda side: -side[1])
    labels, trust = sides[0]
    confidence = np.where(labels != IGNORE, trust, 0.0)
    for other, other_trust in sides[1:]:
        known, other_known = labels != IGNORE, other != IGNORE
        agree, disagree = known & other_known & (labels == other), known & other_known & (labels != other)
        confidence = np.where(agree, 1 - (1 - confidence) * (1 - other_trust), confidence)
        confidence = np.where(disagree, confidence * (1 - other_trust), confidence)
        confidence = np.where(~known & other_known, other_trust, confidence)
        labels = np.where(known, labels, other)
    return PropagatedLabels(labels.astype(np.int64), confidence.astype(np.float32))
