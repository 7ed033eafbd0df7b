"""Labels carried along the given optical flow from labelled frames to others, and how far they can be trusted.

The paper holds a label against the render one frame before and after. This is the same idea over more frames, done
once in two dimensions: a frame looks up, through chained flow, the nearest labelled frames on both sides. Their labels
are targets for frames without one, and evidence for the semantic heads.

How reliable they are depends on the video and its flow. It is measured where the truth is known, by cross-validation:
each labelled frame is held out in turn. Only labels that training may read take part.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from semfield_ns.scenes.flow import follow
from semfield_ns.scenes.labels import IGNORE

LabelImage = Int[np.ndarray, "height width"]
Indexed = Sequence["Flow | None"] | Mapping[int, "Flow | None"]
"""Flows by number of their frame."""
PRIOR = (4.0, 0.1, 3.0)
"""log-odds of a label carried over no distance, and what a step, and doubtful flow, take from them"""
MAX_LOG_RATIO = 10.0
_PRIOR_WEIGHT = 20.0
_MOST_PIXELS = 200_000


@dataclass
class Flow:
    """Optical flow of one frame to a neighbour."""

    vectors: Float[np.ndarray, "height width 2"]
    """Pixels, x right and y down."""
    valid: Bool[np.ndarray, "height width"]


@dataclass
class Carried:
    """Labels of a labelled frame, looked up from another frame."""

    labels: LabelImage
    """`IGNORE` where the labelled frame has no label."""
    steps: int
    """Frames between the two."""
    doubtful: Bool[np.ndarray, "height width"]
    """Where, somewhere on the way, the flow was not valid or left the image."""


@dataclass(frozen=True)
class Reliability:
    """Log-odds that a carried label is right: `start - steps * per_step`, less `doubt` where the flow is doubtful."""

    start: float = PRIOR[0]
    per_step: float = PRIOR[1]
    doubt: float = PRIOR[2]

    def __str__(self) -> str:
        near, far = (1 / (1 + np.exp(self.per_step * steps - self.start)) for steps in (1, 10))
        return f"{near:.1%} are right after a frame, {far:.1%} after 10, where the flow is not doubtful"

    def log_ratio(self, carried: Carried, num_classes: int) -> Float[np.ndarray, "height width"]:
        """Log-likelihood ratio of the carried class to any other one, in [0, `MAX_LOG_RATIO`]; 0 without a label.

        A wrong label is taken to be any of the others with the same probability.
        """
        log_odds = self.start - self.per_step * carried.steps - self.doubt * carried.doubtful
        values = (log_odds + np.log(max(num_classes - 1, 1))).clip(0, MAX_LOG_RATIO)
        return np.where(carried.labels == IGNORE, 0.0, values).astype(np.float32)

    def weighted(
        self, carried: Carried | None, shape: tuple[int, ...], num_classes: int
    ) -> tuple[LabelImage, Float[np.ndarray, "height width"]]:
        """Labels and their log-likelihood ratios; for None, those of a frame of that shape without any label."""
        if carried is None:
            return np.full(shape, IGNORE), np.zeros(shape, np.float32)
        return carried.labels, self.log_ratio(carried, num_classes)


@dataclass
class PropagatedLabels:
    """Labels of a frame that has none of its own."""

    labels: LabelImage
    """`IGNORE` where nothing could be carried."""
    confidence: Float[np.ndarray, "height width"]
    """Probability that the label is right: 1 / classes where nothing is known."""


def carry(labels: LabelImage, flows: Sequence[Flow]) -> Carried:
    """Looks labels up through a chain of flows (`scenes.flow.follow`), from another frame to the labelled one.

    Args:
        labels: of the frame at the end of the chain.
        flows: of consecutive frames, each to the next on the way.
    """
    columns, rows, doubtful = follow(((flow.vectors, flow.valid) for flow in flows), labels.shape)
    return Carried(labels[rows, columns], len(flows), doubtful)


def carry_from_both_sides(
    frame: int,
    labels: Mapping[int, LabelImage],
    forward: Indexed,
    backward: Indexed,
    gap: int = 1,
) -> list[Carried | None]:
    """Labels of the nearest labelled frames before and after a frame; None where there is none, or no flow.

    Args:
        frame: the frame to carry labels to; its own label is not looked at.
        labels: frame -> labels, of the labelled frames.
        forward: of every frame, its flow to the next one, or None.
        backward: of every frame, its flow to the previous one, or None.
        gap: frames nearer than this do not count, as long as that leaves one.
    """
    others = [source for source in labels if source != frame]
    if not others:
        return [None, None]
    gap = min(gap, max(abs(source - frame) for source in others))
    far = [source for source in others if abs(source - frame) >= gap]
    result: list[Carried | None] = []
    for step, flows in ((-1, backward), (1, forward)):
        ahead = [source for source in far if (source - frame) * step > 0]
        source = min(ahead, key=lambda candidate: abs(candidate - frame), default=None)
        way = [] if source is None else [flows[at] for at in range(frame, source, step)]
        known = [flow for flow in way if flow is not None]
        result.append(None if source is None or len(known) < len(way) else carry(labels[source], known))
    return result


def unlabelled_distances(labelled: Sequence[int], num_frames: int) -> list[int]:
    """Frames from each frame without a label to the nearest one with a label, the smallest first."""
    known = set(labelled)
    return sorted(min(abs(f - s) for s in known) for f in range(num_frames) if f not in known)


def held_out_gaps(labelled: Sequence[int], num_frames: int) -> dict[int, int]:
    """How far the nearest label is to be from each held-out frame, so that together they are as unlabelled ones are.

    Returns:
        Labelled frame -> frames. The distances of the unlabelled frames to the nearest label, in turn.
    """
    distances = unlabelled_distances(labelled, num_frames)
    if not distances:
        return dict.fromkeys(labelled, 1)
    # The golden ratio spreads any number of draws evenly over the distances.
    return {f: distances[int(len(distances) * ((i + 0.5) * 0.618034 % 1))] for i, f in enumerate(labelled)}


def fit_reliability(held_out: Iterable[tuple[Carried, LabelImage]], iterations: int = 30) -> Reliability:
    """Logistic regression of whether a carried label is right on the number of steps and on whether flow is doubtful.

    Its prior is a Gaussian about `PRIOR`, and the coefficients of steps and doubt are not negative.

    Args:
        held_out: labels carried to a labelled frame, and that frame's own labels.
        iterations: of Newton's method.
    """
    rows, right = [], []
    for carried, truth in held_out:
        known = (truth != IGNORE) & (carried.labels != IGNORE)
        against = np.stack([np.full(known.sum(), carried.steps), carried.doubtful[known]], axis=-1)
        rows.append(np.concatenate([np.ones((len(against), 1)), -against], axis=-1))
        right.append(carried.labels[known] == truth[known])
    prior = np.array(PRIOR)
    if not rows or sum(map(len, rows)) == 0:
        return Reliability()
    x, y = np.concatenate(rows).astype(np.float64), np.concatenate(right).astype(np.float64)
    keep = slice(None, None, -(-len(y) // _MOST_PIXELS))
    x, y = x[keep], y[keep]
    beta = prior.copy()
    for _ in range(iterations):
        p = 1 / (1 + np.exp(-(x @ beta)))
        gradient = x.T @ (y - p) - _PRIOR_WEIGHT * (beta - prior)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + _PRIOR_WEIGHT * np.eye(3)
        change = np.linalg.solve(hessian, gradient).clip(-1, 1)
        beta = np.maximum(beta + change, [-np.inf, 0, 0])
        if np.abs(change).max() < 1e-6:
            break
    return Reliability(*(float(value) for value in beta))


def merge(
    carried: Sequence[tuple[LabelImage, Float[np.ndarray, "height width"]]],
    prior: Float[np.ndarray, "*height_width classes"],
) -> PropagatedLabels:
    """Posterior of a pixel's class, given the labels carried from both sides, which are taken to be independent.

    Args:
        carried: labels and their log-likelihood ratios, of each side.
        prior: log-probabilities, up to a constant, of each class before anything was carried.
    """
    scores = np.array(np.broadcast_to(prior, (*carried[0][0].shape, prior.shape[-1])), dtype=np.float64)
    for labels, weight in carried:
        where = labels.clip(0)[..., None]
        np.put_along_axis(scores, where, np.take_along_axis(scores, where, -1) + weight[..., None], -1)
    scores -= scores.max(-1, keepdims=True)
    return PropagatedLabels(scores.argmax(-1), (1 / np.exp(scores).sum(-1)).astype(np.float32))
