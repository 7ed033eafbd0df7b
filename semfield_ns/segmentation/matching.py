"""How much a feature is like the strokes: the nearest features of both sides, compared with each other.

No distance means anything by itself: with another teacher, or in another scene, the same distance is a small or a large
one. So what is near the object is compared with what is near its negative strokes, and with how far the rest of the
scene is.
"""

import torch
from jaxtyping import Float
from torch import Tensor

NEAREST = 5
"""features of each side that a feature is compared with"""
SHARPNESS = 8.0
"""exponent with which the ratio of distances counts"""
SAMPLES = 100
"""features of one side, at most"""
MARGIN = 1.05
"""of the distance that divides a scene into near and far: an object has parts that no stroke shows"""
TINY = 1e-12

_BINS = 128


def samples(features: Float[Tensor, "N F"], most: int = SAMPLES) -> Float[Tensor, "K F"]:
    """At most so many features, evenly from all of them."""
    return features[:: max(1, -(-len(features) // most))]


def nearest(features: Float[Tensor, "N F"], known: Float[Tensor, "K F"], count: int = NEAREST) -> Float[Tensor, "N"]:
    """Mean distance to the nearest known features; infinite where there is none.

    The nearest ones of `count` interleaved parts, which are nearly the `count` nearest and much quicker to find.
    """
    if len(known) == 0:
        return features.new_full((len(features),), torch.inf)
    distance = torch.cdist(features, known)
    count = min(count, len(known))
    return torch.stack([distance[:, part::count].amin(dim=1) for part in range(count)]).mean(dim=0)


def reach(scene: Float[Tensor, "N F"], positive: Float[Tensor, "K F"]) -> float:
    """How far from an object's features a feature of its scene may be: where the distances divide into near and far.

    Args:
        scene: features from all over the scene.
        positive: of the object.
    """
    return MARGIN * split(nearest(scene, positive).clamp(min=TINY).log()).exp().item()


def split(values: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """The value that divides values into two groups that differ most (Otsu 1979); the value itself if all are equal."""
    lowest, highest = values.min(), values.max()
    place = ((values - lowest) / (highest - lowest).clamp(min=TINY) * _BINS).long().clamp(0, _BINS - 1)
    weight = torch.bincount(place, minlength=_BINS).double()
    below = weight.cumsum(dim=0)[:-1]
    level = torch.arange(_BINS, device=values.device, dtype=torch.float64)
    total, moment = weight.sum(), (weight * level).cumsum(dim=0)
    between = (moment[-1] * below / total - moment[:-1]).square() / (below * (total - below)).clamp(min=1)
    return lowest + (highest - lowest) * (float(between.argmax()) + 1) / _BINS


def similarity(
    features: Float[Tensor, "N F"],
    positive: Float[Tensor, "K #F"],
    negative: Float[Tensor, "M #F"],
    reach: float = torch.inf,
    sharpness: float = SHARPNESS,
) -> Float[Tensor, "N"]:
    """Similarity in [0, 1] to an object: the ratio d-^s / (d+^s + d-^s); 0.5 where both sides are as near.

    What is like none of the strokes is background: d- is at most `reach`. The unit of the features does not matter.
    """
    if len(positive) == 0:
        return features.new_zeros(len(features))
    near = nearest(features, positive).clamp(min=TINY)
    far = nearest(features, negative).clamp(min=TINY, max=reach)
    return torch.sigmoid(sharpness * (far.log() - near.log()))
