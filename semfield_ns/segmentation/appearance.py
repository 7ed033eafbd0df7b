"""What objects look like: the features under their prompts, and those of the words for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.clustering import kmeans, squared_distances
from semfield_ns.segmentation.learning import SAMPLES as LEARNED_FROM
from semfield_ns.segmentation.learning import combined, learn, margins
from semfield_ns.segmentation.matching import reach, samples, similarity
from semfield_ns.segmentation.prompts import Box, Prompt, Stroke, TextQuery
from semfield_ns.segmentation.views import FeatureView

SCENE_SAMPLES = 4096
"""features from all over a scene by which distances are judged"""
BOX_CLUSTERS = 16
"""into which a view is divided to find out what is in a box and not around it"""
CANONICAL_WORDS = ("object", "things", "stuff", "texture", "background")
"""what a text query has to be more like than, after LERF"""
WORD_SHARPNESS = 40.0
"""Distances between words and pictures differ by little: their ratio counts with this exponent."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """Features of an object: of strokes and boxes, and of words; any of them may be empty [0, F]."""

    positive: Float[Tensor, "K F"]
    negative: Float[Tensor, "M F"]
    words: Float[Tensor, "W F"]
    other_words: Float[Tensor, "V F"]
    reach: float = torch.inf
    """distance from `positive` beyond which nothing is the object"""
    learned: Float[Tensor, "inputs"] | None = None
    """of a discriminant (`learning`)"""

    def similarity(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N"]:
        """Similarity in [0, 1] of features: to the strokes or to the words, whichever is higher."""
        found = similarity(features, self.positive, self.negative, self.reach)
        if self.learned is not None:
            found = combined(found, margins(features, self.learned))
        if len(self.words):
            # Of words the nearest one counts.
            near, far = (torch.cdist(features, words).amin(dim=1) for words in (self.words, self.other_words))
            found = torch.maximum(found, torch.sigmoid(WORD_SHARPNESS * (far.log() - near.log())))
        return found


def appearances(
    objects: Sequence[Sequence[Prompt]],
    views: Mapping[ViewCamera, FeatureView],
    text_features: Callable[[list[str]], Float[Tensor, "N F"]],
    scene: Float[Tensor, "N F"] | None = None,
    learned: bool = False,
) -> list[Appearance]:
    """What every object looks like. Where objects look alike, seeds and space tell them apart (see `segment`).

    Args:
        objects: the prompts of each.
        views: of the cameras of all strokes and boxes.
        text_features: words as features of unit norm.
        scene: features from all over the scene; by default those of the views.
        learned: whether what tells an object from the rest is learned from the scene.

    Raises:
        SemfieldError: there are words, and the features do not know any.
    """
    drawn = [[_drawn(prompts, views, sign) for sign in (True, False)] for prompts in objects]
    words = [[_words(prompts, text_features, sign) for sign in (True, False)] for prompts in objects]
    sizes = [part for pair in (*drawn, *words) for part in pair if part is not None]
    empty = sizes[0].new_zeros(0, sizes[0].shape[1]) if sizes else torch.zeros(0, 1)
    if scene is None and views:
        scene = torch.cat([view.region_features for view in views.values()])

    def looks(*parts: Tensor | None) -> Appearance:
        positive, negative, named, other = (empty if part is None else part for part in parts)
        if scene is None or len(positive) == 0:
            return Appearance(positive, negative, named, other)
        found = Appearance(positive, negative, named, other, reach(samples(scene, SCENE_SAMPLES), positive))
        if not learned or len(negative) == 0:
            return found
        some = samples(scene, LEARNED_FROM)
        return replace(found, learned=learn(some, found.similarity(some), positive, negative))

    return [looks(*pair, *named) for pair, named in zip(drawn, words, strict=True)]


def _drawn(prompts: Sequence[Prompt], views: Mapping[ViewCamera, FeatureView], positive: bool) -> Tensor | None:
    """Features of what strokes and boxes of one sign cover, and for negatives of what is around positive boxes."""
    marked, boxed = [], []
    for prompt in prompts:
        if isinstance(prompt, Box) and prompt.positive:
            inside, around = box_features(prompt, views[prompt.camera])
            boxed.append(inside if positive else around)
        elif isinstance(prompt, Stroke | Box) and prompt.positive == positive:
            view = views[prompt.camera]
            covered = prompt.pixels(*view.rgb.shape[:2]).to(view.features.device)
            marked.append(F.normalize(view.features[covered], dim=-1))
    parts = [samples(torch.cat(group)) for group in (marked, boxed) if group]
    return torch.cat(parts) if parts else None


def box_features(box: Box, view: FeatureView) -> tuple[Float[Tensor, "K F"], Float[Tensor, "M F"]]:
    """Features of superpixels of what is in a box, and of what is around it.

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
    chosen = ((share > 0.5) | (share == share.max()))[member]
    return features[chosen], features[~chosen]


def _words(prompts: Sequence[Prompt], text_features: Callable[[list[str]], Tensor], positive: bool) -> Tensor | None:
    texts = [prompt.text for prompt in prompts if isinstance(prompt, TextQuery) and prompt.positive == positive]
    if not positive and any(isinstance(prompt, TextQuery) for prompt in prompts):
        texts += CANONICAL_WORDS
    return text_features(texts) if texts else None
