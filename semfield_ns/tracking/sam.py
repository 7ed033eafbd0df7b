"""SAM 2 and SAM 3, where their weights are on this machine: another opinion on where objects are, and objects by words.

Videos are looked at in windows, so that memory does not grow with their length.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.tracking.features import Rgb

SAM2 = "facebook/sam2.1-hiera-tiny"
SAM3 = "facebook/sam3"
WINDOW = 64
"""frames that are in memory at a time"""
MOST = 6.0
"""logit, at most: masks of SAM 2 are surer than they are right"""


def local_folder(weights: str) -> Path:
    """The folder of weights on this machine: one that is given, or that of the hub's cache. Nothing is downloaded.

    Raises:
        SemfieldError: they are not there.
    """
    if Path(weights).is_dir():
        return Path(weights)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(weights, local_files_only=True))
    except ImportError as error:
        raise SemfieldError(f"{weights} needs the package {error.name}: pip install 'semfield-ns[process]'.") from error
    except (OSError, ValueError) as error:
        raise SemfieldError(
            f"The weights of {weights} are not on this machine: run `hf download {weights}` where there is a network, "
            "or name their folder."
        ) from error


def loaded(weights: str, model: str, processor: str, device: str) -> tuple[Any, Any]:
    """A model of transformers and its processor, by the names of their classes, from weights on this machine.

    Raises:
        SemfieldError: they are not there, or are those of something else.
    """
    folder = local_folder(weights)
    try:
        import transformers

        network = getattr(transformers, model).from_pretrained(folder).eval().requires_grad_(False).to(device)
        return network, getattr(transformers, processor).from_pretrained(folder)
    except ImportError as error:
        raise SemfieldError(f"{weights} needs the package {error.name}: pip install 'semfield-ns[process]'.") from error
    except (OSError, ValueError, AttributeError) as error:
        raise SemfieldError(f"{folder} does not hold weights of {model}: {error}") from error


class Sam2:
    """Follows objects from their masks in one frame.

    Args:
        weights: name on the hub, looked for in its cache only, or a folder.
        device: where it runs.

    Raises:
        SemfieldError: the weights are not on this machine.
    """

    def __init__(self, weights: str = SAM2, device: str = "cpu") -> None:
        self._model, self._processor = loaded(weights, "Sam2VideoModel", "Sam2VideoProcessor", device)
        self._device = device

    def follow(
        self, frames: Sequence[Rgb], numbers: Sequence[int], start: int, labels: Int[np.ndarray, "H W"], classes: int
    ) -> Iterator[Float[np.ndarray, "H W classes"]]:
        """Probabilities of the classes in frames, one after the other.

        Args:
            frames: of the video.
            numbers: of the frames that are asked for, in the order in which they are reached from `start`.
            start: the frame whose labels are known.
            labels: its class ids; the first class is the background.
            classes: number of classes.
        """
        for first in range(0, len(numbers), WINDOW):
            window = numbers[first : first + WINDOW]
            for probabilities in self._window(frames, [start, *window], labels, classes):
                yield probabilities
            start, labels = window[-1], probabilities.argmax(-1)

    @torch.no_grad()
    def _window(
        self, frames: Sequence[Rgb], numbers: Sequence[int], labels: Int[np.ndarray, "H W"], classes: int
    ) -> Iterator[Float[np.ndarray, "H W classes"]]:
        height, width = labels.shape
        shown = [number for number in range(1, classes) if (labels == number).any()]
        if not shown:
            nothing = np.eye(classes, dtype=np.float32)[np.zeros(labels.shape, np.int64)]
            yield from (nothing for _ in numbers[1:])
            return
        session = self._processor.init_video_session(
            video=np.stack([frames[number] for number in numbers]), inference_device=self._device
        )
        self._processor.add_inputs_to_inference_session(
            inference_session=session, frame_idx=0, obj_ids=shown, input_masks=[labels == number for number in shown]
        )
        self._model(session, frame_idx=0)
        for output in self._model.propagate_in_video_iterator(session, start_frame_idx=0):
            if output.frame_idx:
                masks = self._processor.post_process_masks(
                    [output.pred_masks], original_sizes=[[height, width]], binarize=False
                )[0]
                yield _probabilities(masks.reshape(-1, height, width), session.obj_ids, classes)


def _probabilities(masks: Tensor, objects: Sequence[int], classes: int) -> Float[np.ndarray, "H W classes"]:
    """From logits of the objects' masks; what no object has is background."""
    logits = torch.full((classes, *masks.shape[1:]), -MOST)
    logits[0] = 0
    logits[list(objects)] = masks.float().cpu().clamp(-MOST, MOST)
    return logits.softmax(0).permute(1, 2, 0).numpy()


class Sam3:
    """Finds what words name, in every frame.

    Args:
        weights: name on the hub, looked for in its cache only, or a folder.
        device: where it runs.

    Raises:
        SemfieldError: the weights are not on this machine.
    """

    def __init__(self, weights: str = SAM3, device: str = "cpu") -> None:
        self._model, self._processor = loaded(weights, "Sam3VideoModel", "Sam3VideoProcessor", device)
        self._device = device

    @torch.no_grad()
    def find(self, frames: Sequence[Rgb], words: Sequence[str]) -> Iterator[Int[np.ndarray, "H W"]]:
        """Class ids of every frame in turn: the place of the word, from 1; 0 where none of them is."""
        for first in range(0, len(frames), WINDOW):
            window = [frames[number] for number in range(first, min(first + WINDOW, len(frames)))]
            session = self._processor.init_video_session(video=np.stack(window), inference_device=self._device)
            session = self._processor.add_text_prompt(session, list(words))
            found = {}
            for output in self._model.propagate_in_video_iterator(session, start_frame_idx=0):
                result = self._processor.postprocess_outputs(session, output)
                word_of = {i: words.index(word) for word, ids in result["prompt_to_obj_ids"].items() for i in ids}
                found[output.frame_idx] = painted(
                    result["masks"].cpu().numpy().astype(bool).reshape(-1, *window[0].shape[:2]),
                    [word_of[int(i)] + 1 for i in result["object_ids"]],
                    result["scores"].tolist(),
                )
            empty = np.zeros(window[0].shape[:2], np.int64)
            yield from (found.get(number, empty) for number in range(len(window)))


def painted(
    masks: Bool[np.ndarray, "objects H W"], ids: Sequence[int], scores: Sequence[float]
) -> Int[np.ndarray, "H W"]:
    """An image of ids; where masks overlap, the id of the higher score."""
    image = np.zeros(masks.shape[1:], np.int64)
    for place in np.argsort(scores, kind="stable"):
        image[masks[place]] = ids[place]
    return image
