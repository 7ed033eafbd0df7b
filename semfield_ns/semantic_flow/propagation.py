"""Labels carried along the given optical flow from labelled frames to others, with a trust.

The paper holds a label against the render one frame before and after. This is the same idea over more frames, done
once in two dimensions: a frame looks up, through chained flow, the nearest labelled frames on both sides. What they
say is a target for frames without a label, and evidence for the semantic heads. Only labels that training may read
take part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from semfield_ns.scenes.labels import IGNORE

LabelImage = Int[np.ndarray, "height width"]
DOUBT = 0.1
"""what is left of the trust after a step of flow that is not valid, or that leaves the image"""


@dataclass
class Flow:
    """Optical flow of one frame to a neighbour."""

    vectors: Float[np.ndarray, "height width 2"]
    """Pixels, x right and y down."""
    valid: Bool[np.ndarray, "height width"]


@dataclass
class Carried:
    """What a labelled frame says about another frame."""

    labels: LabelImage
    """`IGNORE` where the labelled frame has no label."""
    trust: Float[np.ndarray, "height width"]
    """In [0, 1]; falls with the length of the chain, and with every doubtful step of it. 0 at `IGNORE`."""


@dataclass
class PropagatedLabels:
    """Labels of a frame that has none of its own."""

    labels: LabelImage
    """`IGNORE` where nothing could be carried."""
    confidence: Float[np.ndarray, "height width"]
    """In [0, 1]; the trust of the better side, less where the sides disagree, more where they agree."""


def carry(labels: LabelImage, flows: Sequence[Flow], half_life: float) -> Carried:
    """Looks labels up through a chain of flows, from the frame that is asked about to the labelled one.

    A chain that leaves the image goes on along its border, and doubtful flow is followed: both with little trust.

    Args:
        labels: of the frame at the end of the chain.
        flows: of consecutive frames, each to the next on the way.
        half_life: steps that halve the trust.
    """
    height, width = labels.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    trust = np.ones((height, width), np.float32)
    for flow in flows:
        dx, dy, valid = (
            cv2.remap(channel, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for channel in (flow.vectors[..., 0], flow.vectors[..., 1], flow.valid.astype(np.float32))
        )
        x, y = x + dx, y + dy
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        x, y = x.clip(0, width - 1), y.clip(0, height - 1)
        trust = trust * np.where((valid > 0.5) & inside, 1.0, DOUBT)
    found = labels[np.rint(y).astype(int), np.rint(x).astype(int)]
    trust = np.where(found == IGNORE, 0.0, trust * 0.5 ** (len(flows) / half_life))
    return Carried(found, trust.astype(np.float32))


def sides(
    frame: int,
    labels: dict[int, LabelImage],
    forward: Sequence[Flow | None],
    backward: Sequence[Flow | None],
    half_life: float,
    gap: int = 1,
) -> list[Carried | None]:
    """What the nearest labelled frames before and after a frame say about it; None where there is none, or no flow.

    Args:
        frame: the frame that is asked about; its own label is not looked at.
        labels: frame -> labels, of the labelled frames.
        forward: of every frame, its flow to the next one, or None.
        backward: of every frame, its flow to the previous one, or None.
        half_life: steps that halve the trust.
        gap: frames nearer than this do not count, or as many of them as leaves one.
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
        complete = source is not None and len(known) == len(way)
        result.append(carry(labels[source], known, half_life) if source is not None and complete else None)
    return result


def rehearsal_gaps(labelled: Sequence[int], num_frames: int) -> dict[int, int]:
    """How far from a label each labelled frame should pretend to be, so that together they are as unlabelled ones are.

    Returns:
        Labelled frame -> frames. The distances of the unlabelled frames to the nearest label, dealt out in turn.
    """
    distances = sorted(min(abs(f - s) for s in labelled) for f in range(num_frames) if f not in labelled)
    if not distances:
        return dict.fromkeys(labelled, 1)
    # The golden ratio spreads any number of draws evenly over the distances.
    return {f: distances[int(len(distances) * ((i + 0.5) * 0.618034 % 1))] for i, f in enumerate(labelled)}


def merge(voices: Sequence[Carried]) -> PropagatedLabels:
    """The more trusted side wins, pixel by pixel; agreement adds confidence, disagreement takes it.

    Raises:
        ValueError: there is no side.
    """
    if not voices:
        raise ValueError("There is nothing to merge.")
    labels, confidence = voices[0].labels, voices[0].trust
    for voice in voices[1:]:
        agree = (labels == voice.labels) & (labels != IGNORE)
        better, worse = np.maximum(confidence, voice.trust), np.minimum(confidence, voice.trust)
        labels = np.where(voice.trust > confidence, voice.labels, labels)
        confidence = np.where(agree, 1 - (1 - better) * (1 - worse), better * (1 - worse))
    return PropagatedLabels(labels.astype(np.int64), confidence.astype(np.float32))
