"""A baseline with a learned video model: SAM 2 follows the class masks of the labelled frames. Needs its weights."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8

from semfield_ns.tracking.sam import loaded

LabelImage = Int[np.ndarray, "H W"]
MODEL = "facebook/sam2.1-hiera-tiny"


def video_labels(
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    labels: Sequence[LabelImage | None],
    labelled: Sequence[int],
    num_classes: int,
    weights: str = MODEL,
) -> list[LabelImage]:
    """Each class is one object; its masks in all labelled frames are prompts; the most certain class wins a pixel.

    Args:
        images: the frames of the video.
        labels: one label image a frame; only those of `labelled` frames are read.
        labelled: indices of the labelled frames.
        num_classes: classes.
        weights: name on the hub, looked for in its local cache only, or a folder.

    Returns:
        A label image for each frame.

    Raises:
        SemfieldError: the weights are not on this machine; the message explains how to get them.
    """
    model, processor = loaded(weights, "Sam2VideoModel", "Sam2VideoProcessor", "cpu")
    given = {}
    for frame in labelled:
        image = labels[frame]
        if image is not None:
            given[frame] = image
    classes = [c for c in range(num_classes) if any((image == c).any() for image in given.values())]
    session = processor.init_video_session(video=np.stack(images))
    for frame, image in given.items():
        processor.add_inputs_to_inference_session(
            inference_session=session,
            frame_idx=frame,
            obj_ids=[c + 1 for c in classes],
            input_masks=[image == c for c in classes],
        )
    height, width = images[0].shape[:2]
    best = [np.full((height, width), classes[0] if classes else 0, dtype=np.int64) for _ in images]
    with torch.no_grad():
        for frame in given:
            model(session, frame_idx=frame)
        for reverse in (False, True):
            start = min(given) if not reverse else max(given)
            for output in model.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse):
                # Frames that both passes reach are those between labels: the pass with the nearer label comes last
                # there, so it counts only where the other one has not been, or is further from its prompt.
                if not _nearer(output.frame_idx, sorted(given), reverse):
                    continue
                masks = processor.post_process_masks(
                    [output.pred_masks], original_sizes=[[session.video_height, session.video_width]], binarize=False
                )[0]
                order = [session.obj_ids.index(c + 1) for c in classes]
                logits = masks.reshape(-1, height, width)[order]
                best[output.frame_idx] = np.array(classes)[logits.argmax(dim=0).cpu().numpy()]
    return best


def _nearer(frame: int, labelled: Sequence[int], reverse: bool) -> bool:
    """Whether the label that a pass in this direction comes from is the nearer one; forward wins a draw."""
    before = [frame - f for f in labelled if f <= frame]
    after = [f - frame for f in labelled if f >= frame]
    if not before or not after:
        return reverse == (not before)
    return (min(after) < min(before)) == reverse
