"""What objects look like: prototypes of the features under their prompts, and of the words for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.clustering import kmeans, squared_distances
from semfield_ns.segmentation.matching import REACH, prototypes, similarity
from semfield_ns.segmentation.prompts import Box, Prompt, Stroke, TextQuery
from semfield_ns.segmentation.views import FeatureView

MAX_SAMPLES = 1024
"""features of one object's strokes that are clustered"""
BOX_CLUSTERS = 16
"""into which a view is divided to find out what is in a box and not around it"""
SPREAD_REACH = 2.0
"""reach, in mean squared distances of the strokes' prototypes from their middle, of an object of many looks"""
CANONICAL_WORDS = ("object", "things", "stuff", "texture", "background")
"""what a text query has to be more like than, after LERF"""
WORD_SHARPNESS = 20.0
"""Distances between words and pictures differ by little: their ratio counts with this exponent."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """Prototypes of an object: of strokes and boxes, and of words; any of them may be empty [0, F]."""

    positive: Float[Tensor, "K F"]
    negative: Float[Tensor, "M F"]
    words: Float[Tensor, "W F"]
    other_words: Float[Tensor, "V F"]

    @cached_property
    def reach(self) -> float:
        """How far a feature may be from the strokes; the more, the more the strokes' own features differ."""
        if len(self.positive) < 2:
            return REACH
        spread = (self.positive - self.positive.mean(dim=0)).square().sum(dim=1).mean()
        return max(REACH, SPREAD_REACH * float(spread))

    def similarity(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N"]:
        """Similarity in [0, 1] of features of unit norm: to the strokes or to the words, whichever is higher."""
        found = similarity(features, self.positive, self.negative, self.reach)
        if len(self.words):
            named = similarity(features, self.words, self.other_words, torch.inf, WORD_SHARPNESS)
            found = torch.maximum(found, named)
        return found


def appearances(
    objects: Sequence[Sequence[Prompt]],
    views: Mapping[ViewCamera, FeatureView],
    text_features: Callable[[list[str]], Float[Tensor, "N F"]],
) -> list[Appearance]:
    """What every object looks like. Where objects look alike, seeds and space tell them apart (see `segment`).

    Args:
        objects: the prompts of each.
        views: of the cameras of all strokes and boxes.
        text_features: words as features of unit norm.

    Raises:
        SemfieldError: there are words, and the features do not know any.
    """
    drawn = [[_drawn(prompts, views, sign) for sign in (True, False)] for prompts in objects]
    words = [[_words(prompts, text_features, sign) for sign in (True, False)] for prompts in objects]
    sizes = [part for pair in (*drawn, *words) for part in pair if part is not None]
    empty = sizes[0].new_zeros(0, sizes[0].shape[1]) if sizes else torch.zeros(0, 1)

    def joined(parts: Sequence[Tensor | None]) -> Tensor:
        return torch.cat([empty, *(part for part in parts if part is not None)])

    return [
        Appearance(joined(pair[:1]), joined(pair[1:]), joined(named[:1]), joined(named[1:]))
        for pair, named in zip(drawn, words, strict=True)
    ]


def _drawn(prompts: Sequence[Prompt], views: Mapping[ViewCamera, FeatureView], positive: bool) -> Tensor | None:
    """Prototypes of what strokes and boxes of one sign cover, and for negatives of what is around positive boxes."""
    marked, clusters = [], []
    for prompt in prompts:
        if isinstance(prompt, Box) and prompt.positive:
            inside, around = box_prototypes(prompt, views[prompt.camera])
            clusters.append(inside if positive else around)
        elif isinstance(prompt, Stroke | Box) and prompt.positive == positive:
            view = views[prompt.camera]
            marked.append(view.features[prompt.pixels(*view.rgb.shape[:2]).to(view.features.device)])
    if marked:
        features = torch.cat(marked)
        step = max(1, -(-len(features) // MAX_SAMPLES))
        clusters.append(prototypes(features[::step]))
    return torch.cat(clusters) if clusters else None


def box_prototypes(box: Box, view: FeatureView) -> tuple[Float[Tensor, "K F"], Float[Tensor, "M F"]]:
    """Prototypes of what is in a box and of what is around it.

    The superpixels of the view are clustered; a cluster is of the object if most of its pixels are in the box. The one
    that is most in the box always is.
    """
    regions, features = view.regions, view.region_features
    centroids = kmeans(features, BOX_CLUSTERS)
    member = squared_distances(features, centroids).argmin(dim=1)
    inside = regions.count(box.pixels(*view.rgb.shape[:2]).to(features.device))
    count = len(centroids)
    pixels = torch.zeros(count, device=features.device).index_add_(0, member, regions.size)
    within = torch.zeros(count, device=features.device).index_add_(0, member, inside)
    share = within / pixels.clamp(min=1)
    chosen = (share > 0.5) | (share == share.max())
    return centroids[chosen], centroids[~chosen]


def _words(prompts: Sequence[Prompt], text_features: Callable[[list[str]], Tensor], positive: bool) -> Tensor | None:
    texts = [prompt.text for prompt in prompts if isinstance(prompt, TextQuery) and prompt.positive == positive]
    if not positive and any(isinstance(prompt, TextQuery) for prompt in prompts):
        texts += CANONICAL_WORDS
    return text_features(texts) if texts else None
