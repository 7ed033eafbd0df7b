"""Motion masks joined with the whole things that move, which SAM 2 follows through the video where it is at hand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semfield_ns.process.flow import read_frame
from semfield_ns.process.frames import Rgb
from semfield_ns.process.models import Choice, ModelCard, choose, from_local
from semfield_ns.scenes.flow import Mask

SAM_MODEL = "facebook/sam2.1-hiera-tiny"
SAM_LICENCE = "Apache-2.0"

_LEAST_AREA = 0.003  # of the image; smaller parts of a mask prompt nothing
_MOST_OBJECTS = 8

Box = tuple[int, int, int, int]
"""left, top, right, bottom, px"""
Tracker = Callable[[list[Rgb], int, list[Box]], list[Mask]]
"""frames, the frame of the boxes, boxes -> a mask a frame of all things in the boxes"""


@dataclass(frozen=True)
class Sharpened:
    """Masks by the number of the frame, and what made them."""

    masks: dict[int, Mask]
    card: ModelCard


def sharpen(
    choice: Choice, name: str, images: Path, masks: dict[int, Mask], labelled: Sequence[int] = (), device: str = "cpu"
) -> Sharpened:
    """Joins motion masks with SAM 2's masks of the things in one of them.

    labelled: frames whose masks were completed by labels; if there are any, the prompts come from one of these.
    """
    tracker, note = choose(choice, "video segmentation", lambda: sam_tracker(name, device), lambda: None)
    if tracker is None:
        method, revision = "flow against static points, GrabCut", f"OpenCV {cv2.__version__}"
        return Sharpened(masks, ModelCard("motion masks", method, revision, "Apache-2.0", note))
    follow, card = tracker
    numbers = sorted(masks)
    trusted = set(labelled) or set(numbers)
    key, boxes = prompts([masks[number] & (number in trusted) for number in numbers])
    if not boxes:
        return Sharpened(masks, card)
    followed = follow([read_frame(images, number) for number in numbers], key, boxes)
    together = {number: masks[number] | mask for number, mask in zip(numbers, followed, strict=True)}
    return Sharpened(together, card)


def prompts(masks: list[Mask]) -> tuple[int, list[Box]]:
    """The frame with the most motion, and boxes around the parts of its mask, largest first."""
    key = int(np.argmax([mask.sum() for mask in masks]))
    _, _, statistics, _ = cv2.connectedComponentsWithStats(masks[key].astype(np.uint8))
    parts = sorted(statistics[1:], key=lambda row: -row[cv2.CC_STAT_AREA])
    large = [row for row in parts if row[cv2.CC_STAT_AREA] >= _LEAST_AREA * masks[key].size]
    return key, [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in large[:_MOST_OBJECTS]]


def sam_tracker(name: str = SAM_MODEL, device: str = "cpu") -> tuple[Tracker, ModelCard]:
    """SAM 2 from the local cache of transformers, or a local folder.

    Raises WeightsAbsent where it is not there.
    """

    def load(folder: str) -> tuple[Any, Any]:
        from transformers import Sam2VideoModel, Sam2VideoProcessor

        return Sam2VideoProcessor.from_pretrained(folder), Sam2VideoModel.from_pretrained(folder)

    (processor, model), revision = from_local(load, name, SAM_LICENCE, "--sam-model")
    model = model.eval().requires_grad_(False).to(device)

    def follow(frames: list[Rgb], key: int, boxes: list[Box]) -> list[Mask]:
        import torch

        session = processor.init_video_session(video=np.stack(frames), inference_device=device)
        processor.add_inputs_to_inference_session(
            inference_session=session,
            frame_idx=key,
            obj_ids=list(range(1, len(boxes) + 1)),
            input_boxes=[[[float(v) for v in box] for box in boxes]],
        )
        masks = [np.zeros(frames[0].shape[:2], dtype=bool) for _ in frames]

        def outputs() -> Iterator[Any]:
            yield model(session, frame_idx=key)
            yield from model.propagate_in_video_iterator(session, start_frame_idx=key)
            yield from model.propagate_in_video_iterator(session, start_frame_idx=key, reverse=True)

        with torch.no_grad():
            for output in outputs():
                size = [[session.video_height, session.video_width]]
                full = processor.post_process_masks([output.pred_masks], original_sizes=size, binarize=True)[0]
                masks[output.frame_idx] |= full.reshape(-1, *masks[0].shape).any(dim=0).cpu().numpy()
        return masks

    return follow, ModelCard("motion masks", f"flow against static points, joined with {name}", revision, SAM_LICENCE)
