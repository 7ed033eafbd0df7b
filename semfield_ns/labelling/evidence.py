"""What labels tell of the classes of every frame before any training: by a linear classifier of image features, and by
labels carried along the flow. How far each can be trusted is measured by cross-validation on the labelled frames.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from semfield_ns.io import cache_root
from semfield_ns.labelling.classifier import Samples, Stack, classify, draw_samples, fit, upsample
from semfield_ns.labelling.propagation import (
    Carried,
    Flow,
    LabelImage,
    Reliability,
    carry_from_both_sides,
    fit_reliability,
    held_out_gaps,
    merge,
    unlabelled_distances,
)
from semfield_ns.labelling.selection import Choice, choose
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.labels import IGNORE

KEPT = 16
"""flows and labels of so many frames are kept while labels are carried"""
CLASSIFIER_FRAMES = 16
"""labelled frames, at most, that the classifier is fitted on"""
HELD_OUT_FRAMES = 48
"""labelled frames, at most, at which carried labels are compared with the truth"""
HELD_OUT_PIXELS = 24_000
"""labelled pixels, at most, by which the classifier is chosen, together with the carried labels"""
FLOW_FIELDS = ("flow_fwd_path", "flow_bwd_path")


@dataclass
class CarriedLabels:
    """Labels of the nearest labelled frames before and after each frame; see `propagation`.

    Labelled frames have them too, from other labelled frames.
    """

    labels: Integer[Tensor, "frames 2 height width"]
    log_ratio: Float[Tensor, "frames 2 height width"]
    """Log-likelihood ratio of the label to any other class; 0 where there is none."""


@dataclass(frozen=True)
class Evidence:
    """Log-likelihoods of classes at the pixels of all frames; None where there is nothing to go by."""

    logits: Float[Tensor, "frames h w classes"] | None = None
    """Of a classifier of image features, on a grid over each frame."""
    carried: CarriedLabels | None = None
    targets: Float[Tensor, "frames height width 2"] | None = None
    """For frames without a label, both together: class id and confidence; 0 elsewhere."""


def gather_evidence(
    dataset: SceneDataset, sources: Callable[[], Mapping[str, Stack]] | None = None, carry: bool = True
) -> Evidence:
    """What the visible labels tell of all frames.

    Inputs are read when they are needed and results lie in files: memory does not grow with the video.

    Args:
        dataset: training frames, with "labelled", "label_map" and "camera_ids" in `metadata`.
        sources: gives image features of all frames by name, of colours and of a pretrained network where there is one;
            by default "source_features" in `metadata`.
        carry: also along the flow, where there is flow.
    """
    metadata = dataset.metadata
    if metadata["label_map"] is None:
        return Evidence()
    labelled = [index for index in metadata["labelled"] if (_labels(dataset, index) != IGNORE).any()]
    if not labelled:
        return Evidence()
    classes, count = len(metadata["label_map"]), len(dataset)
    sizes = {dataset.size(index) for index in range(count)}
    carried = None
    if carry and dataset.has_flow and len(labelled) < count and len(sizes) == 1:
        cameras = [CameraVideo(dataset, video, set(labelled)) for video in videos(metadata["camera_ids"])]
        share = HELD_OUT_FRAMES // len(cameras)
        reliability = fit_reliability(pair for camera in cameras for pair in camera.held_out(share))
        carried = carry_labels(cameras, reliability, sizes.pop(), classes)
        CONSOLE.log(f"Labels carried along the flow: {reliability}.")
    features = sources() if sources else {"the frame encoder": metadata["source_features"]}
    stacks = list(features.values())
    labels = OnDemand(labelled[:: -(-len(labelled) // CLASSIFIER_FRAMES)], partial(_labels, dataset))
    samples = draw_samples(stacks, labels, HELD_OUT_PIXELS)
    gap = int(np.median(unlabelled_distances(labelled, count) or [1]))
    choice = choose(samples, carried_logits(carried, samples, classes), gap)
    CONSOLE.log(f"Image features: {_told(choice, list(features))}.")
    linear = fit(draw_samples(stacks, labels), choice.recipe, classes).scaled(choice.scale)
    finest = max((stack.shape[1:3] for stack in stacks), key=lambda size: size[0] * size[1])
    logits = scratch_array((count, *finest, classes), np.float16)
    for index in range(count):
        logits[index] = classify([stack[index] for stack in stacks], linear, tuple(finest)).half()
    targets = None if carried is None else merged_targets(labelled, logits, carried)
    return Evidence(logits, carried, targets)


def _told(choice: Choice, names: Sequence[str]) -> str:
    parts = [f"{name} times {w:g}" for name, w in zip(names, choice.recipe.weights, strict=True) if w]
    return f"{' and '.join(parts)}, penalty {choice.recipe.penalty:g}; their logits count {choice.scale:.2f} times"


def carry_labels(
    cameras: "Sequence[CameraVideo]", reliability: Reliability, shape: tuple[int, int], classes: int
) -> CarriedLabels:
    """Carries visible labels to every frame, labelled ones too, along the flow of each camera's video."""
    count = sum(len(camera.video) for camera in cameras)
    # No 16 bits: PyTorch's processes cannot exchange them.
    kind = np.uint8 if classes <= 256 else np.int32
    result = CarriedLabels(scratch_array((count, 2, *shape), kind), scratch_array((count, 2, *shape), np.float16))
    for camera in cameras:
        for place, index in enumerate(camera.video):
            both = [reliability.weighted(carried, shape, classes) for carried in camera.carry_to(place)]
            result.labels[index] = torch.from_numpy(np.stack([labels.clip(0) for labels, _ in both]).astype(kind))
            result.log_ratio[index] = torch.from_numpy(np.stack([ratio for _, ratio in both]).astype(np.float16))
    return result


def carried_logits(carried: CarriedLabels | None, samples: Samples, classes: int) -> Float[Tensor, "N classes"]:
    """What carried labels say of labelled pixels, each without its own label; 0 where nothing was carried."""
    logits = torch.zeros(len(samples.labels), classes)
    for frame in samples.frames.unique().tolist() if carried is not None else ():
        assert carried is not None
        asked = samples.frames == frame
        pixels = samples.pixels[asked]
        ids, ratio = (part[frame].flatten(1)[:, pixels].T for part in (carried.labels, carried.log_ratio))
        logits[asked] = torch.zeros(len(pixels), classes).scatter_add(-1, ids.long(), ratio.float())
    return logits


def merged_targets(
    labelled: Sequence[int], logits: Float[Tensor, "frames h w classes"], carried: CarriedLabels
) -> Float[Tensor, "frames height width 2"]:
    """Of the frames without a label: the class that classifier and carried labels make most likely, and how likely."""
    count, _, *shape = carried.labels.shape
    # Half precision holds whole numbers up to 2048.
    kind = np.float16 if logits.shape[-1] <= 2048 else np.float32
    targets = scratch_array((count, *shape, 2), kind)
    for index in sorted(set(range(count)) - set(labelled)):
        prior = upsample(logits[index], *shape).numpy()
        pairs = zip(carried.labels[index].long().numpy(), carried.log_ratio[index].float().numpy(), strict=True)
        merged = merge(list(pairs), prior)
        targets[index] = torch.from_numpy(np.stack([merged.labels, merged.confidence], axis=-1).astype(kind))
    return targets


def _labels(dataset: SceneDataset, index: int) -> LabelImage:
    return dataset.semantics(index)[..., 0].numpy()


def videos(camera_ids: Sequence[str]) -> list[list[int]]:
    """The frames of each camera, in the order of time in which a data set has them."""
    return [[i for i, other in enumerate(camera_ids) if other == camera] for camera in dict.fromkeys(camera_ids)]


class CameraVideo:
    """The frames of one camera, for carrying labels; they are numbered by their place in the video.

    Args:
        dataset: all frames.
        video: of them, those of the camera, in the order of time.
        labelled: of all frames, those whose labels may be read.
    """

    def __init__(self, dataset: SceneDataset, video: list[int], labelled: set[int]) -> None:
        self.video = video
        places = [place for place, index in enumerate(video) if index in labelled]
        self.labels = OnDemand(places, lambda place: _labels(dataset, video[place]))
        self.forward, self.backward = (
            OnDemand(range(len(video)), partial(self._flow_of, dataset, field)) for field in FLOW_FIELDS
        )
        self.gaps = held_out_gaps(places, len(video)) if places else {}

    def _flow_of(self, dataset: SceneDataset, field: str, place: int) -> Flow | None:
        return frame_flow(dataset.flow(self.video[place], field))

    def carry_to(self, place: int) -> list[Carried | None]:
        """Labels of the labelled frames before and after, carried to a frame, without its own."""
        return carry_from_both_sides(place, self.labels, self.forward, self.backward, self.gaps.get(place, 1))

    def held_out(self, count: int) -> Iterator[tuple[Carried, LabelImage]]:
        """Labels carried to at most about `count` labelled frames, with their own."""
        places = list(self.labels)
        for place in places[:: -(-len(places) // max(count, 1))] if places else ():
            for carried in self.carry_to(place):
                if carried is not None:
                    yield carried, self.labels[place]


class OnDemand(Mapping[int, Any]):
    """Values by number that are made when they are needed; the last few are kept.

    Args:
        keys: all of them.
        make: number -> value.
    """

    def __init__(self, keys: Iterable[int], make: Callable[[int], Any]) -> None:
        self._keys = dict.fromkeys(keys)
        self._make = lru_cache(KEPT)(make)

    def __getitem__(self, key: int) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return self._make(key)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def scratch_array(shape: tuple[int, ...], dtype: type) -> Tensor:
    """Zeros in a temporary file beside the caches, which goes with the last reference to it."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root) as file:
        return torch.from_numpy(np.memmap(file, dtype=dtype, mode="w+", shape=shape))


def frame_flow(entry: Tensor | None) -> Flow | None:
    """A dataset's flow entry [height, width, 3]; None where no pixel is valid (the end of a clip)."""
    if entry is None or not bool((entry[..., 2] > 0.5).any()):
        return None
    return Flow(entry[..., :2].numpy(), entry[..., 2].numpy() > 0.5)
