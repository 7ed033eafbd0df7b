"""What moves, told by the whole video: evidence of single frames carried along the flow, and what things look like.

Flow says for some pixels of some frames that they move, or that they stand still, and errs where it is a guess. But it
errs at other places in other frames: what it says most often of things that look alike holds. So a linear classifier of
image features learns from all frames what flow is sure of, and judges each part of the video without having seen it.
How far it agrees with the flow there tells whether the evidence is of things at all.

A camera that stays in one place follows something, or looks at it: what looks like the edges of the pictures is around
it, such as ripples and near ground, though it may seem to move (the boundary prior of Wei et al., "Geodesic Saliency
Using Background Priors", 2012, on a whole video).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.io import image_size, read_rgb
from semfield_ns.labelling.classifier import Linear, Recipe, Samples, fit
from semfield_ns.process.motion import Evidence
from semfield_ns.scenes.flow import FlowMap, Mask
from semfield_ns.teachers.lite import CHANNELS

LONGEST = 320
"""px; evidence of all frames is kept at this size"""

_ROUNDS = 3  # of carrying, each by one frame
_SURE = 0.3  # evidence, either way, that the classifier learns from
_SAMPLES = 10_000
_PARTS = 4  # of the video, each judged by a classifier of the others
_RECIPE = Recipe((1.0,), 3e-3)
_FLOW_ODDS = 3.0  # log-odds that full evidence of the flow stands for
_MOST_ODDS = 4.0  # of the classifier
_EDGE = (0.09, 0.2)  # of the shorter side: nearer to its edge, a network sees the edge itself
_FINE = CHANNELS[0]  # image features that see little more than their own cell: others know where the edge is
_EDGE_ROUNDS = 3
_EDGE_ODDS = 2.5  # what log-odds that something looks like the edges of pictures count
_UNLIKE = 2.0  # log-odds from which it does not
_MUCH = 0.35  # of the picture
_SUPPORTED = 0.6  # agreement

Grid = Callable[[int], Float[Tensor, "h w C"]]
"""image features of the frame at a place in the video"""


@dataclass(frozen=True, eq=False)
class Told:
    """What the whole video tells."""

    evidence: list[Evidence]
    """-1 surely static to 1 surely moving, of each frame"""
    share: float
    """of the pixels that move"""
    agreement: float
    """share of the doubt about what flow is sure of that image features remove, in frames not learned from; 0 without
    features"""

    def believed(self, camera_stands: bool = True) -> bool:
        """Whether so much can move: more than a third only if it looks unlike what stands still.

        And not before a camera that is taken to turn: near ground that it passes would be such a thing.
        """
        return self.share < _MUCH or (camera_stands and self.agreement > _SUPPORTED)


def image_features(pictures: Sequence[Path]) -> Grid:
    """Features of the teacher `lite` of the frames, each computed once, also for the training that follows."""
    from semfield_ns.teachers.cache import FeatureCache, Picture
    from semfield_ns.teachers.lite import LiteTeacher

    cache = FeatureCache(LiteTeacher())

    def grid(place: int) -> Float[Tensor, "h w C"]:
        def load() -> Float[Tensor, "height width 3"]:
            return torch.from_numpy(read_rgb(pictures[place])).float() / 255

        return cache[Picture(pictures[place], image_size(pictures[place]), load)].features()

    return grid


def tell(
    evidence: Sequence[Evidence],
    flows: Sequence[tuple[FlowMap, Mask]],
    back: Sequence[tuple[FlowMap, Mask]],
    features: Grid | None = None,
    one_place: bool = False,
) -> Told:
    """All of it joined.

    Args:
        evidence: of each frame by its flow, at a common size.
        flows: to the next frame, px of that size; one less than frames.
        back: to the previous one, from the second frame on.
        features: image features, if any.
        one_place: whether the camera stays in one place.
    """
    together = carried(evidence, flows, back)
    found, agreement = together, 0.0
    if features is not None:
        looks, agreement = judged(together, features)
        odds = [_FLOW_ODDS * flow + look for flow, look in zip(together, looks, strict=True)]
        if one_place:
            odds = unlike_edges(odds, features)
        found = [np.tanh(each / 2) for each in odds]
    return Told(found, float(np.mean([(each > 0).mean() for each in found])), agreement)


def reduced(evidence: Evidence) -> Float[np.ndarray, "h w"]:
    """At the size that is kept."""
    height, width = evidence.shape
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(evidence.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def reduced_flow(flow: FlowMap, valid: Mask) -> tuple[Float[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """Flow and its mask at that size, px of that size."""
    known = np.maximum(reduced(valid.astype(np.float32)), 1e-6)
    scale = known.shape[1] / flow.shape[1]
    mean = [reduced(channel * valid) / known * scale for channel in np.moveaxis(flow, -1, 0)]
    return np.stack(mean, axis=-1), known > 0.5


def carried(
    evidence: Sequence[Evidence], flows: Sequence[tuple[FlowMap, Mask]], back: Sequence[tuple[FlowMap, Mask]]
) -> list[Evidence]:
    """Each frame's evidence averaged with that of the frames around it, where the flow leads to them."""
    now = [np.asarray(each, dtype=np.float32) for each in evidence]
    for _ in range(_ROUNDS):
        sums, counts = [each.copy() for each in now], [np.ones_like(each) for each in now]
        for place in range(len(now) - 1):
            for here, there, (flow, valid) in ((place, place + 1, flows[place]), (place + 1, place, back[place])):
                sums[here] += np.where(valid, _pulled(now[there], flow), 0)
                counts[here] += valid
        now = [total / count for total, count in zip(sums, counts, strict=True)]
    return now


def _pulled(image: Float[np.ndarray, "H W"], flow: FlowMap) -> Float[np.ndarray, "H W"]:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    target = (x + flow[..., 0]).astype(np.float32), (y + flow[..., 1]).astype(np.float32)
    return cv2.remap(image, *target, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def judged(evidence: Sequence[Evidence], features: Grid) -> tuple[list[Evidence], float]:
    """Log-odds that what looks so moves, at each pixel, by classifiers that have not seen the frame.

    And how far they agree with the evidence (`Told.agreement`).
    """
    count = len(evidence)
    samples = [_sampled(each, features(place), _SAMPLES // count, place) for place, each in enumerate(evidence)]
    looks, doubt, removed = [], 0.0, 0.0
    for place, rule in enumerate(_rules(samples)):
        if rule is None:
            looks.append(np.zeros_like(evidence[place]))
            continue
        seen, moves = samples[place]
        if len(moves):
            loss = torch.nn.functional.binary_cross_entropy_with_logits
            known = loss(rule.chance.expand(len(moves)), moves.float(), reduction="sum")
            doubt += float(known)
            removed += float(known - loss(rule.odds(seen), moves.float(), reduction="sum"))
        looks.append(_at_size(rule.odds(features(place)), evidence[place].shape))
    return looks, max(0.0, removed / doubt) if doubt else 0.0


def unlike_edges(odds: Sequence[Evidence], features: Grid) -> list[Evidence]:
    """Less of what looks like the edges of the pictures rather than like what moves inside.

    Args:
        odds: log-odds that a pixel moves.
        features: image features.
    """
    fine = [features(place)[..., :_FINE].clone() for place in range(len(odds))]
    found = list(odds)
    for _ in range(_EDGE_ROUNDS):
        samples = [_at_edges(each, fine[place], place) for place, each in enumerate(found)]
        for place, rule in enumerate(_rules(samples, balanced=True)):
            if rule is not None:
                grid = cv2.GaussianBlur(rule.odds(fine[place]).numpy(), (0, 0), 1.0)
                edge = _at_size(torch.from_numpy(grid), odds[place].shape)
                found[place] = odds[place] - _EDGE_ODDS * np.maximum(0, edge + _UNLIKE)
    return found


def _at_size(odds: Float[Tensor, "h w"], shape: tuple[int, ...]) -> Evidence:
    return cv2.resize(odds.clamp(-_MOST_ODDS, _MOST_ODDS).numpy(), shape[::-1], interpolation=cv2.INTER_LINEAR)


class _Rule(NamedTuple):
    """A linear classifier of features."""

    weight: Float[Tensor, "C"]
    bias: Tensor
    chance: Tensor
    """log-odds without features"""

    def odds(self, features: Float[Tensor, "*cells C"]) -> Float[Tensor, "*cells"]:
        return features @ self.weight + self.bias


def _rules(samples: Sequence[tuple[Tensor, Tensor]], balanced: bool = False) -> Iterator[_Rule | None]:
    """For each frame what the other parts of the video teach; None where they show one class only.

    Args:
        samples: features and classes of each frame.
        balanced: as many of each class.
    """
    count = len(samples)
    for part in np.array_split(np.arange(count), min(_PARTS, count)):
        others = [samples[place] for place in range(count) if place not in part]
        x, y = torch.cat([x for x, _ in others]), torch.cat([y for _, y in others])
        if len(y) == 0 or y.min() == y.max():
            yield from [None] * len(part)
            continue
        if balanced:
            drawn = np.random.default_rng(0).permutation(len(y))
            sides = [drawn[(y.numpy() == side)[drawn]] for side in (False, True)]
            kept = torch.from_numpy(np.concatenate([side[: min(map(len, sides))] for side in sides]))
            x, y = x[kept], y[kept]
        rule = _Rule(*_fitted(x, y), torch.logit(y.double().mean()).float())
        yield from [rule] * len(part)


def _at_edges(odds: Evidence, grid: Float[Tensor, "h w C"], seed: int) -> tuple[Tensor, Tensor]:
    """Features, and whether they are at the edges of the picture, of cells there and of some that move inside."""
    rows, columns = grid.shape[:2]
    small = cv2.resize(odds.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:rows, :columns]
    away = np.minimum(np.minimum(y, rows - 1 - y), np.minimum(x, columns - 1 - x)) / min(rows, columns)
    edge = np.flatnonzero((away >= _EDGE[0]) & (away < _EDGE[1]))
    inside = np.random.default_rng(seed).permutation(np.flatnonzero((away >= _EDGE[1]) & (small > 0)))[: len(edge)]
    cells = torch.from_numpy(np.concatenate([edge, inside]))
    return grid.flatten(0, 1)[cells].float(), torch.arange(len(cells)) < len(edge)


def _sampled(evidence: Evidence, grid: Float[Tensor, "h w C"], most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features, and whether they move, of some cells that the evidence is sure of."""
    small = cv2.resize(evidence, (grid.shape[1], grid.shape[0]), interpolation=cv2.INTER_AREA).ravel()
    places = np.flatnonzero(np.abs(small) > _SURE)
    places = np.random.default_rng(seed).permutation(places)[: max(1, most)]
    return grid.flatten(0, 1)[torch.from_numpy(places)].float(), torch.from_numpy(small[places] > 0)


def _fitted(x: Float[Tensor, "N C"], y: Tensor) -> tuple[Float[Tensor, "C"], Tensor]:
    """Weights and bias of the log-odds, of features as they are."""
    mean, spread = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
    none = torch.zeros(len(y), dtype=torch.long)
    linear: Linear = fit(Samples((((x - mean) / spread),), y.long(), none, none), _RECIPE, 2)
    weight = (linear.weights[0][1] - linear.weights[0][0]) / spread
    return weight, linear.bias[1] - linear.bias[0] - weight @ mean
