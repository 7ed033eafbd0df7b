"""What a method must beat on frames without labels: copy the nearest labelled frame, or follow optical flow to it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from semfield_ns.scenes.flow import follow

LabelImage = Int[np.ndarray, "H W"]
FlowImage = Float[np.ndarray, "H W 2"]


def nearest_labelled_frame(frame: int, labelled: Sequence[int]) -> int:
    """The labelled frame closest in time, the earlier one of two at the same distance.

    Raises:
        ValueError: there is no labelled frame.
    """
    if len(labelled) == 0:
        raise ValueError("The baselines need at least one labelled frame.")
    return min(labelled, key=lambda candidate: (abs(candidate - frame), candidate))


def nearest_labelled(labels: Sequence[LabelImage | None], labelled: Sequence[int], num_frames: int) -> list[LabelImage]:
    """Predicts for each frame the labels of the nearest labelled frame, pixel for pixel.

    Args:
        labels: one label image a frame; only those of `labelled` frames are read.
        labelled: indices of the labelled frames.
        num_frames: length of the video.

    Returns:
        A label image for each frame; a labelled frame gets its own.
    """
    return [_read(labels, nearest_labelled_frame(frame, labelled)).copy() for frame in range(num_frames)]


def chained_flow(
    labels: Sequence[LabelImage | None],
    labelled: Sequence[int],
    flows_fwd: Sequence[FlowImage | None],
    flows_bwd: Sequence[FlowImage | None],
) -> list[LabelImage]:
    """Predicts labels by following each pixel with optical flow to the nearest labelled frame.

    Every pixel gets a prediction: a chain that leaves the image goes on from the border, and validity masks of the flow
    are left aside (following doubtful flow was better than stopping: on Balloon1, 0.653 against 0.608 mIoU).

    Args:
        labels: one label image a frame; only those of `labelled` frames are read.
        labelled: indices of the labelled frames.
        flows_fwd: entry t is the flow in pixels from frame t to t + 1; the last may be None.
        flows_bwd: entry t is the flow from frame t to t - 1; the first may be None. What is not finite is no motion.

    Returns:
        A label image for each frame; a labelled frame gets its own.

    Raises:
        ValueError: a chain needs the flow of a frame that has none, or a labelled frame has no labels.
    """
    predictions = []
    for frame in range(len(flows_fwd)):
        target = nearest_labelled_frame(frame, labelled)
        step, flows = (1, flows_fwd) if target > frame else (-1, flows_bwd)
        chain = []
        for at in range(frame, target, step):
            flow = flows[at]
            if flow is None:
                raise ValueError(f"Frame {at} has no optical flow to frame {at + step}.")
            chain.append(flow)
        source = _read(labels, target)
        columns, rows, _ = follow(((flow, None) for flow in chain), source.shape)
        predictions.append(source[rows, columns])
    return predictions


def _read(labels: Sequence[LabelImage | None], frame: int) -> LabelImage:
    image = labels[frame]
    if image is None:
        raise ValueError(f"Frame {frame} counts as labelled, but has no label image.")
    return image
