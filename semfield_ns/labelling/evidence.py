"""What is known of the classes of every frame before any training: by a linear classifier of image features, and by
labels carried along the flow. Each is believed as far as it holds on labelled frames that are asked about as if they
had no label.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from semfield_ns.io import cache_root
from semfield_ns.labelling.classifier import Linear, classify, fit_linear, fit_without, fitting_scale
from semfield_ns.labelling.propagation import (
    Carried,
    Flow,
    LabelImage,
    Reliability,
    measure,
    merge,
    rehearsal_gaps,
    sides,
)
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.labels import IGNORE

KEPT = 16
"""flows and labels of so many frames are kept while labels are carried"""
CLASSIFIER_FRAMES = 16
"""labelled frames, at most, that the classifier is fitted on"""
REHEARSALS = 48
"""labelled frames at which carried labels are compared with the truth, at most"""
REHEARSED_PIXELS = 100_000
"""at which the classifier is, together with the carried labels, compared with the truth, at most"""
FLOW_FIELDS = ("flow_fwd_path", "flow_bwd_path")


@dataclass
class Votes:
    """What labelled frames before and after each frame say about its pixels; see `propagation`.

    Labelled frames have them too, from other labelled frames.
    """

    labels: Int[Tensor, "frames 2 height width"]
    evidence: Float[Tensor, "frames 2 height width"]
    """For these labels, in log-likelihood; 0 where nothing is said."""


@dataclass(frozen=True)
class Evidence:
    """None where there is nothing to go by."""

    classifier: Linear | None = None
    """Of image features; its logits are log-probabilities, up to a constant."""
    votes: Votes | None = None
    """Labels carried to all frames."""
    targets: Float[Tensor, "frames height width 2"] | None = None
    """For frames without a label, both together: class id and confidence; 0 elsewhere."""


def gather_evidence(dataset: SceneDataset, carry: bool = True) -> Evidence:
    """Works out what the visible labels tell of all frames.

    What comes out lies in files, and what goes in is read when it is asked for: memory stays as it is, however long the
    video.

    Args:
        dataset: training frames, with "source_features", "labelled", "label_map" and "camera_ids" in `metadata`.
        carry: also along the flow, where there is flow.
    """
    metadata = dataset.metadata
    if metadata["label_map"] is None:
        return Evidence()
    shown = [index for index in metadata["labelled"] if _has_label(dataset, index)]
    if not shown:
        return Evidence()
    labels = OnDemand(shown[:: -(-len(shown) // CLASSIFIER_FRAMES)], partial(_labels, dataset))
    classes = len(metadata["label_map"])
    linear = fit_linear(metadata["source_features"], labels, classes)
    sizes = {dataset.size(index) for index in range(len(dataset))}
    if not carry or not dataset.has_flow or len(shown) == len(dataset) or len(sizes) > 1:
        return Evidence(_scaled(linear, fitting_scale(rehearse(dataset, labels, None, classes))))
    films = [Film(dataset, video, set(shown)) for video in videos(metadata["camera_ids"])]
    reliability = measure(rehearsal for film in films for rehearsal in film.rehearsals(REHEARSALS // len(films)))
    votes = carry_labels(films, reliability, sizes.pop(), classes)
    scale = fitting_scale(rehearse(dataset, labels, votes, classes))
    CONSOLE.log(f"Labels carried along the flow: {reliability}. Image features count {scale:.2f} times.")
    linear = _scaled(linear, scale)
    return Evidence(linear, votes, merged_targets(dataset, shown, linear, votes))


def carry_labels(films: "Sequence[Film]", reliability: Reliability, shape: tuple[int, int], classes: int) -> Votes:
    """Carries visible labels to every frame, labelled ones too, along the flow of each camera's video."""
    count = sum(len(film.video) for film in films)
    # No 16 bits: PyTorch's processes cannot exchange them.
    kind = np.uint8 if classes <= 256 else np.int32
    votes = Votes(scratch_array((count, 2, *shape), kind), scratch_array((count, 2, *shape), np.float16))
    for film in films:
        for place, index in enumerate(film.video):
            both = [reliability.heard(voice, shape, classes) for voice in film.ask(place)]
            votes.labels[index] = torch.from_numpy(np.stack([said.clip(0) for said, _ in both]).astype(kind))
            votes.evidence[index] = torch.from_numpy(np.stack([weight for _, weight in both]).astype(np.float16))
    return votes


def rehearse(
    dataset: SceneDataset, labels: Mapping[int, LabelImage], votes: Votes | None, classes: int
) -> Iterator[tuple[Float[Tensor, "N classes"], Float[Tensor, "N classes"], LabelImage]]:
    """Of labelled frames: logits of a classifier that has not seen them, carried evidence, and the truth, on a grid."""
    shape = dataset.size(next(iter(labels)))
    step = int(np.ceil((len(labels) * shape[0] * shape[1] / REHEARSED_PIXELS) ** 0.5))
    for frame, linear in fit_without(dataset.metadata["source_features"], labels, classes):
        size = labels[frame].shape
        logits = classify(dataset.metadata["source_features"][frame], linear, size)[::step, ::step]
        heard = torch.zeros_like(logits)
        if votes is not None:
            said, weight = (part[frame][:, ::step, ::step] for part in (votes.labels, votes.evidence))
            for side in range(2):
                heard.scatter_add_(-1, said[side].long()[..., None], weight[side].float()[..., None])
        yield logits.flatten(0, 1), heard.flatten(0, 1), labels[frame][::step, ::step].reshape(-1)


def merged_targets(
    dataset: SceneDataset, shown: Sequence[int], linear: Linear, votes: Votes
) -> Float[Tensor, "frames height width 2"]:
    """What both kinds of evidence say of the frames without a label: class id and how likely it is."""
    count, _, *shape = votes.labels.shape
    # Half precision holds whole numbers up to 2048.
    kind = np.float16 if len(linear[1]) <= 2048 else np.float32
    targets = scratch_array((count, *shape, 2), kind)
    for index in sorted(set(range(count)) - set(shown)):
        one_picture = classify(dataset.metadata["source_features"][index], linear, tuple(shape)).numpy()
        pairs = zip(votes.labels[index].long().numpy(), votes.evidence[index].float().numpy(), strict=True)
        merged = merge(list(pairs), one_picture)
        pair = np.stack([merged.labels, merged.confidence], axis=-1).astype(kind)
        targets[index] = torch.from_numpy(pair)
    return targets


def _scaled(linear: Linear, scale: float) -> Linear:
    return scale * linear[0], scale * linear[1]


def _labels(dataset: SceneDataset, index: int) -> LabelImage:
    return dataset.semantics(index)[..., 0].numpy()


def _has_label(dataset: SceneDataset, index: int) -> bool:
    return bool((_labels(dataset, index) != IGNORE).any())


def videos(camera_ids: Sequence[str]) -> list[list[int]]:
    """The frames of each camera, in the order of time in which a data set has them."""
    return [[i for i, other in enumerate(camera_ids) if other == camera] for camera in dict.fromkeys(camera_ids)]


class Film:
    """The frames of one camera, for carrying labels; they are numbered by their place in the video.

    Args:
        dataset: all frames.
        video: of them, those of the camera, in the order of time.
        shown: of them, those whose labels may be read.
    """

    def __init__(self, dataset: SceneDataset, video: list[int], shown: set[int]) -> None:
        self.dataset, self.video = dataset, video
        places = [place for place, index in enumerate(video) if index in shown]
        self.labels = OnDemand(places, lambda place: _labels(dataset, video[place]))
        self.forward, self.backward = (
            OnDemand(range(len(video)), partial(self._flow_of, dataset, way)) for way in FLOW_FIELDS
        )
        self.gaps = rehearsal_gaps(places, len(video)) if places else {}

    def _flow_of(self, dataset: SceneDataset, way: str, place: int) -> Flow | None:
        return frame_flow(dataset.flow(self.video[place], way))

    def ask(self, place: int) -> list[Carried | None]:
        """What the labelled frames before and after say."""
        return sides(place, self.labels, self.forward, self.backward, self.gaps.get(place, 1))

    def rehearsals(self, count: int) -> Iterator[tuple[Carried, LabelImage]]:
        """What is carried to some labelled frames, with their own labels."""
        places = list(self.labels)
        for place in places[:: -(-len(places) // max(count, 1))] if places else ():
            for voice in self.ask(place):
                if voice is not None:
                    yield voice, self.labels[place]


class OnDemand(Mapping[int, Any]):
    """Values by number that are made when they are asked for; the last few are kept.

    Args:
        keys: there are.
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
    """Zeros in a nameless file beside the caches, which goes when nobody has it any more."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root) as file:
        return torch.from_numpy(np.memmap(file, dtype=dtype, mode="w+", shape=shape))


def frame_flow(entry: Tensor | None) -> Flow | None:
    """A dataset's flow entry [height, width, 3]; None where no pixel is valid (the end of a clip)."""
    if entry is None or not bool((entry[..., 2] > 0.5).any()):
        return None
    return Flow(entry[..., :2].numpy(), entry[..., 2].numpy() > 0.5)
