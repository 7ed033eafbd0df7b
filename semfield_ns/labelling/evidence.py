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
from semfield_ns.labelling.classifier import Linear, classify, fit_folds, fit_linear, fitting_scale
from semfield_ns.labelling.propagation import (
    Carried,
    Flow,
    LabelImage,
    Reliability,
    carry_from_both_sides,
    fit_reliability,
    held_out_gaps,
    merge,
)
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.labels import IGNORE

KEPT = 16
"""flows and labels of so many frames are kept while labels are carried"""
CLASSIFIER_FRAMES = 16
"""labelled frames, at most, that the classifier is fitted on"""
HELD_OUT_FRAMES = 48
"""labelled frames, at most, at which carried labels are compared with the truth"""
HELD_OUT_PIXELS = 100_000
"""at most, at which the classifier is, together with the carried labels, compared with the truth"""
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

    classifier: Linear | None = None
    """Of image features; its logits are log-probabilities, up to a constant."""
    carried: CarriedLabels | None = None
    targets: Float[Tensor, "frames height width 2"] | None = None
    """For frames without a label, both together: class id and confidence; 0 elsewhere."""


def gather_evidence(dataset: SceneDataset, carry: bool = True) -> Evidence:
    """What the visible labels tell of all frames.

    Inputs are read when they are needed and results lie in files: memory does not grow with the video.

    Args:
        dataset: training frames, with "source_features", "labelled", "label_map" and "camera_ids" in `metadata`.
        carry: also along the flow, where there is flow.
    """
    metadata = dataset.metadata
    if metadata["label_map"] is None:
        return Evidence()
    labelled = [index for index in metadata["labelled"] if (_labels(dataset, index) != IGNORE).any()]
    if not labelled:
        return Evidence()
    labels = OnDemand(labelled[:: -(-len(labelled) // CLASSIFIER_FRAMES)], partial(_labels, dataset))
    classes = len(metadata["label_map"])
    linear = fit_linear(metadata["source_features"], labels, classes)
    sizes = {dataset.size(index) for index in range(len(dataset))}
    if not carry or not dataset.has_flow or len(labelled) == len(dataset) or len(sizes) > 1:
        return Evidence(_scaled(linear, fitting_scale(held_out_predictions(dataset, labels, None, classes))))
    cameras = [CameraVideo(dataset, video, set(labelled)) for video in videos(metadata["camera_ids"])]
    share = HELD_OUT_FRAMES // len(cameras)
    reliability = fit_reliability(pair for camera in cameras for pair in camera.held_out(share))
    carried = carry_labels(cameras, reliability, sizes.pop(), classes)
    scale = fitting_scale(held_out_predictions(dataset, labels, carried, classes))
    CONSOLE.log(f"Labels carried along the flow: {reliability}. Weight of image features: {scale:.2f}.")
    linear = _scaled(linear, scale)
    return Evidence(linear, carried, merged_targets(dataset, labelled, linear, carried))


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


def held_out_predictions(
    dataset: SceneDataset, labels: Mapping[int, LabelImage], carried: CarriedLabels | None, classes: int
) -> Iterator[tuple[Float[Tensor, "N classes"], Float[Tensor, "N classes"], LabelImage]]:
    """Of labelled frames, on a grid: logits of a classifier fitted without them, those of carried labels, the truth."""
    shape = dataset.size(next(iter(labels)))
    step = int(np.ceil((len(labels) * shape[0] * shape[1] / HELD_OUT_PIXELS) ** 0.5))
    for frame, linear in fit_folds(dataset.metadata["source_features"], labels, classes):
        logits = classify(dataset.metadata["source_features"][frame], linear, labels[frame].shape)[::step, ::step]
        others = torch.zeros_like(logits)
        if carried is not None:
            ids, ratio = (part[frame][:, ::step, ::step] for part in (carried.labels, carried.log_ratio))
            others.scatter_add_(-1, ids.long().movedim(0, -1), ratio.float().movedim(0, -1))
        yield logits.flatten(0, 1), others.flatten(0, 1), labels[frame][::step, ::step].reshape(-1)


def merged_targets(
    dataset: SceneDataset, labelled: Sequence[int], linear: Linear, carried: CarriedLabels
) -> Float[Tensor, "frames height width 2"]:
    """Of the frames without a label: the class that classifier and carried labels make most likely, and how likely."""
    count, _, *shape = carried.labels.shape
    # Half precision holds whole numbers up to 2048.
    kind = np.float16 if len(linear[1]) <= 2048 else np.float32
    targets = scratch_array((count, *shape, 2), kind)
    for index in sorted(set(range(count)) - set(labelled)):
        prior = classify(dataset.metadata["source_features"][index], linear, tuple(shape)).numpy()
        pairs = zip(carried.labels[index].long().numpy(), carried.log_ratio[index].float().numpy(), strict=True)
        merged = merge(list(pairs), prior)
        targets[index] = torch.from_numpy(np.stack([merged.labels, merged.confidence], axis=-1).astype(kind))
    return targets


def _scaled(linear: Linear, scale: float) -> Linear:
    return scale * linear[0], scale * linear[1]


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
