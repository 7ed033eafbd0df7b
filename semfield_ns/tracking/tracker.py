"""Labels of given frames followed to all frames of a video.

Four things say where the classes of one frame are in the next: optical flow, as far as there and back agree; what the
most similar cells of the given frames are; what those of a moment ago were; and a linear discriminant that is learned
as the video goes on. Each is a log-likelihood, and their sum is drawn to the edges of the picture. Between two given
frames the video is followed from both, and a frame believes more in the nearer one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, repeat
from typing import Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.rendering.edges import GuidedFilter
from semfield_ns.scenes.flow import FlowMap, consistency_gap, estimate_flow
from semfield_ns.tracking.discriminant import Discriminant, inputs
from semfield_ns.tracking.features import FrameFeatures, Rgb
from semfield_ns.tracking.matching import SURE, Memory, distances, margins

LONGEST = 480
"""px: the longer side of pictures that flow is estimated on, and of probabilities"""
FLOW = 0.5
"""what the log-probabilities of the frame before count, as far as flow agrees there and back"""
GIVEN, RECENT = 0.25, 0.25
"""what the margins by features of given frames and of recent frames count"""
LEARNED = 1.0
"""what the margins of the discriminant count"""
GIVEN_REACH, RECENT_REACH = 0.31, 0.075
"""how far things are looked for, as a share of the longer side (standard deviation)"""
MOST_GIVEN = 4
"""given frames that a frame is compared with: the nearest"""
RECENT_FRAMES = (1, 3, 6)
"""frames back"""
EDGE_RADIUS, EDGE_SMOOTHNESS = 6, 2e-4
"""px, and variance of colours: how closely probabilities are drawn to the edges of the picture (`GuidedFilter`)"""
SUFFICIENT, ENOUGH = 0.85, 0.9
"""IoU, from which a given frame begins to suffice, and from which it does: of its labels with those found back there"""
LEAST = 0.05
"""probability of any class in the frame before"""
AGREEING = 1.5
"""px between the start of flow and where the way back ends, at which flow is believed by 1/e"""

SHARE = 0.75
"""what another opinion counts in the mean of log-probabilities, where it could not be measured"""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MEASURED = 3
"""ways between given frames, at most, on which that is measured"""

Probabilities = Float[np.ndarray, "H W classes"]
Resized = Float[np.ndarray, "rows columns classes"]
LabelImage = Int[np.ndarray, "H W"]
FlowBetween = Callable[[int, int], FlowMap]


class Opinion(Protocol):
    """Somebody else who follows labels from one frame, such as SAM 2."""

    def follow(
        self, frames: Sequence[Rgb], numbers: Sequence[int], start: int, labels: LabelImage, classes: int
    ) -> Iterator[Probabilities]:
        """Probabilities of the frames `numbers`, which are reached from `start` in this order."""


@dataclass(frozen=True)
class Tracked:
    """A frame whose labels were found."""

    number: int
    probabilities: Probabilities
    """of each class, on a picture of at most `LONGEST` px"""


@dataclass(frozen=True)
class Arrival:
    """A given frame that was reached from the given frame before: what was found there, to be compared."""

    number: int
    start: int
    probabilities: Probabilities


class Tracker:
    """Follows the labels of a video.

    Args:
        frames: pictures of one size; read when they are needed.
        given: frame -> class ids, `IGNORE` where there is no label; each of the size of the pictures.
        num_classes: classes; the first is the background, if there is one.
        features: of the frames.
        flow: from one frame to a neighbour, on a picture of at most `LONGEST` px; estimated by default.
        opinion: another one, which counts as far as it proves right at given frames.
    """

    def __init__(
        self,
        frames: Sequence[Rgb],
        given: Mapping[int, LabelImage],
        num_classes: int,
        features: FrameFeatures,
        flow: FlowBetween | None = None,
        opinion: Opinion | None = None,
    ) -> None:
        height, width = frames[0].shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        self.size = max(1, round(scale * height)), max(1, round(scale * width))
        """rows and columns of probabilities"""
        self._frames, self._features, self._classes = frames, features, num_classes
        self._small = lru_cache(4)(self._shrunk)
        self._flow = flow or self._estimated
        self._apart = distances(*features.size)
        self._given = {number: one_hot(labels, num_classes, self.size) for number, labels in sorted(given.items())}
        self._discriminant = Discriminant([(self._inputs(n), self._on_grid(p)) for n, p in self._given.items()])
        longer = max(features.size)
        self._reach = GIVEN_REACH * longer, RECENT_REACH * longer
        self._labels, self._opinion = given, opinion
        self.share = 0.0 if opinion is None else self._measured_share(opinion)
        """what the other opinion counts"""

    def run(self) -> Iterator[Tracked | Arrival]:
        """Every frame once, in the order in which they are found, and given frames when they are reached."""
        numbers = list(self._given)
        yield from self._one_way(numbers[0], -1)
        for number, probabilities in self._given.items():
            yield Tracked(number, probabilities)
        for start, end in pairwise(numbers):
            yield from self._between(start, end)
        yield from self._one_way(numbers[-1], len(self._frames))

    def _one_way(self, start: int, stop: int) -> Iterator[Tracked]:
        return (Tracked(number, found) for number, found in self._follow(start, stop))

    def _between(self, start: int, end: int) -> Iterator[Tracked | Arrival]:
        forward = {}
        for number, found in self._follow(start, end + 1):
            if number < end:
                forward[number] = found.astype(np.float16)
            else:
                yield Arrival(end, start, found)
        for number, found in self._follow(end, start):
            before = forward.pop(number).astype(np.float32)
            yield Tracked(number, geometric_mean(before, found, (number - start) / (end - start)))

    def _follow(self, start: int, stop: int) -> Iterator[tuple[int, Probabilities]]:
        """The frames after `start`, up to `stop`, which is not among them; in either direction."""
        step = 1 if stop > start else -1
        current = self._given[start]
        recent: dict[int, Float[Tensor, "cells classes"]] = {}
        self._discriminant.forget()
        numbers = range(start + step, stop, step)
        others = repeat(None) if not self.share else self._other(start, numbers)
        for number, other in zip(numbers, others, strict=False):
            current = self._next(number, number - step, current, recent)
            if other is not None:
                current = geometric_mean(current, other, self.share)
            recent[number] = self._on_grid(current)
            self._discriminant.learn(self._inputs(number), recent[number])
            recent.pop(number - step * RECENT_FRAMES[-1], None)
            yield number, current

    def _other(self, start: int, numbers: Sequence[int]) -> Iterator[Probabilities]:
        assert self._opinion is not None
        for found in self._opinion.follow(self._frames, numbers, start, self._labels[start].clip(0), self._classes):
            yield resized(found, self.size, cv2.INTER_AREA)

    def _measured_share(self, opinion: Opinion) -> float:
        """The share with which given frames that are reached from the ones before are most likely.

        Each class counts alike: in pictures of small objects, "background" would otherwise be a good opinion.
        """
        self._opinion, self.share = opinion, 0.0
        ways = list(pairwise(self._given))
        likelihood = np.zeros(len(SHARES))
        for start, end in ways[:: -(-len(ways) // MEASURED)] if ways else ():
            *_, (_, own) = self._follow(start, end + 1)
            *_, other = self._other(start, range(start + 1, end + 1))
            known = self._given[end].sum(-1) > 0.5
            truth = self._given[end].argmax(-1)[..., None]
            for place, share in enumerate(SHARES):
                mixed = np.take_along_axis(geometric_mean(own, other, share), truth, -1)[..., 0]
                told = np.log(mixed + LEAST)
                likelihood[place] += np.mean(
                    [told[known & (truth[..., 0] == c)].mean() for c in np.unique(truth[known])]
                )
        return SHARES[int(likelihood.argmax())] if ways else SHARE

    def _next(
        self, number: int, before: int, current: Probabilities, recent: Mapping[int, Float[Tensor, "cells classes"]]
    ) -> Probabilities:
        """What a frame shows, from what its neighbour does."""
        there, back = self._flow(number, before), self._flow(before, number)
        trust = np.exp(-np.square(consistency_gap(there, back) / AGREEING))[..., None]
        logits = FLOW * trust * np.log(np.maximum(moved(current, there), LEAST))
        own = self._features(number).flatten(0, 1)
        step = number - before
        nearest = sorted((n for n in self._given if n != number), key=lambda n: abs(n - number))[:MOST_GIVEN]
        given = [self._memory(n, self._on_grid(self._given[n]), self._reach[0]) for n in nearest]
        seen = [number - step * back for back in RECENT_FRAMES if number - step * back in recent]
        alone = GIVEN * margins(own, given, self._apart)
        told = alone
        if seen:
            told = told + RECENT * margins(own, [self._memory(n, recent[n], self._reach[1]) for n in seen], self._apart)
        own_labels = self._on_grid(self._given[number]) if number in self._given else None
        told = told + LEARNED * self._discriminant.margins(self._inputs(number), own_labels)
        found = drawn_to_edges(softmax(logits + self._enlarged(told)), self._small(number))
        by_given = drawn_to_edges(softmax(self._enlarged(alone)), self._small(number))
        share = self._suffices(nearest[0], number, by_given)
        return geometric_mean(found, by_given, share) if share else found

    def _suffices(self, given: int, number: int, found: Probabilities) -> float:
        """How far, 0 to 1, a given frame suffices for another one: whether its labels are found back from there."""
        memory = self._memory(number, self._on_grid(found), self._reach[0])
        back = margins(self._features(given).flatten(0, 1), [memory], self._apart)
        again = least_iou(back, self._on_grid(self._given[given]))
        return float(np.clip((again - SUFFICIENT) / (ENOUGH - SUFFICIENT), 0, 1))

    def _enlarged(self, told: Float[Tensor, "cells classes"]) -> Probabilities:
        return resized(told.reshape(*self._features.size, -1).numpy(), self.size, cv2.INTER_CUBIC)

    def _inputs(self, number: int) -> Float[Tensor, "cells inputs"]:
        return inputs(self._features(number))

    def _memory(self, number: int, classes: Float[Tensor, "cells classes"], reach: float) -> Memory:
        return Memory(self._features(number).flatten(0, 1), classes, reach)

    def _on_grid(self, probabilities: Probabilities) -> Float[Tensor, "cells classes"]:
        return torch.from_numpy(resized(probabilities, self._features.size, cv2.INTER_AREA)).flatten(0, 1)

    def _shrunk(self, number: int) -> Rgb:
        return np.asarray(cv2.resize(self._frames[number], self.size[::-1], interpolation=cv2.INTER_AREA))

    def _estimated(self, start: int, end: int) -> FlowMap:
        return estimate_flow(self._small(start), self._small(end))


def least_iou(told: Float[Tensor, "cells classes"], classes: Float[Tensor, "cells classes"]) -> float:
    """The least IoU of a class: of cells where it has the largest value with those that are surely of it.

    Args:
        told: any values, the larger the likelier.
        classes: probabilities; cells where nothing is known, or sure, do not count.
    """
    known = classes.amax(dim=1) > SURE
    told, classes = told[known], classes[known]
    best = torch.nn.functional.one_hot(told.argmax(dim=1), classes.shape[1]) > 0
    sure = classes > SURE
    present = sure.any(dim=0)
    ious = (best & sure).sum(dim=0) / (best | sure).sum(dim=0).clamp(min=1)
    return float(ious[present].min()) if bool(present.any()) else 0.0


def one_hot(labels: LabelImage, num_classes: int, size: tuple[int, int]) -> Resized:
    """Labels as probabilities, at another size; all 0 where there is no label."""
    planes = (labels[..., None] == np.arange(num_classes)).astype(np.float32)
    return resized(planes, size, cv2.INTER_AREA)


def resized(values: Probabilities, size: tuple[int, ...], interpolation: int) -> Resized:
    """Values on a grid of another size."""
    # OpenCV leaves out a last axis of one, and takes many channels only where it has to.
    planes = [cv2.resize(plane, size[::-1], interpolation=interpolation) for plane in np.moveaxis(values, -1, 0)]
    return np.stack(planes, axis=-1)


def moved(values: Probabilities, flow: FlowMap) -> Probabilities:
    """Values of another frame, seen from this one: out[p] = values[p + flow[p]]."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    x, y = x + flow[..., 0], y + flow[..., 1]
    planes = [
        cv2.remap(np.ascontiguousarray(plane), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in np.moveaxis(values, -1, 0)
    ]
    return np.stack(planes, axis=-1)


def softmax(logits: Probabilities) -> Probabilities:
    """Over classes."""
    return normalised(np.exp(logits - logits.max(-1, keepdims=True)))


def normalised(values: Probabilities) -> Probabilities:
    """With a sum of 1 over classes."""
    return np.asarray(values / np.maximum(values.sum(-1, keepdims=True), 1e-6), dtype=np.float32)


def geometric_mean(first: Probabilities, second: Probabilities, share: float) -> Probabilities:
    """Of two opinions, of which the second has this share."""
    logs = (1 - share) * np.log(first + 1e-3) + share * np.log(second + 1e-3)
    return normalised(np.exp(logs))


def drawn_to_edges(probabilities: Probabilities, rgb: Rgb) -> Probabilities:
    """Probabilities whose edges are those of the picture."""
    guided = GuidedFilter(rgb, EDGE_RADIUS, EDGE_SMOOTHNESS)
    planes = [guided(np.ascontiguousarray(plane)) for plane in np.moveaxis(probabilities, -1, 0)]
    return normalised(np.stack(planes, axis=-1).clip(1e-4, 1))


def resized_probabilities(probabilities: Probabilities, size: tuple[int, int]) -> Resized:
    """For a picture of another size."""
    return resized(probabilities, size, cv2.INTER_LINEAR)


def label_image(probabilities: Probabilities, size: tuple[int, int]) -> Int[np.ndarray, "rows columns"]:
    """The most likely class of every pixel of a picture of another size."""
    return resized_probabilities(probabilities, size).argmax(-1)


def certainty(probabilities: Probabilities) -> float:
    """Mean probability of the most likely class, over pixels that may be an object's; 1 where there is none."""
    objects = probabilities[..., 0] < 0.9
    return float(probabilities.max(-1)[objects].mean()) if objects.any() else 1.0
