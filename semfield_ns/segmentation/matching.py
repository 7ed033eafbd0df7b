"""How much a feature is like the strokes: nearest prototypes, and two rules that make a similarity of distances."""

import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.segmentation.clustering import kmeans

PROTOTYPES = 11
"""k of GSN's stroke segmentation"""
REACH = 0.384
"""|f - c|^2 at which a feature is as much background as object: 64 times GSN's 0.006, its threshold on the mean"""


def prototypes(features: Float[Tensor, "N F"], seed: int = 0) -> Float[Tensor, "K F"]:
    """At most `PROTOTYPES` centroids of the features under strokes."""
    return kmeans(features, PROTOTYPES, seed) if len(features) else features


def nearest(features: Float[Tensor, "N F"], centroids: Float[Tensor, "K F"]) -> Float[Tensor, "N"]:
    """Squared distance of features of unit norm to the nearest centroid; infinite where there is none."""
    if len(centroids) == 0:
        return features.new_full((len(features),), torch.inf)
    # |f|^2 is 1: only the products are left to compute.
    inner = torch.addmm(1 + centroids.square().sum(dim=1)[None], features, centroids.T, alpha=-2)
    return inner.amin(dim=1).clamp_(min=0)


def similarity(
    features: Float[Tensor, "N F"],
    positive: Float[Tensor, "K #F"],
    negative: Float[Tensor, "M #F"],
    reach: float = REACH,
    sharpness: float = 1.0,
) -> Float[Tensor, "N"]:
    """Similarity in [0, 1] of features of unit norm to prototypes; 0.5 where they are as near to what it is not.

    With negative prototypes this is the prompts-ratio rule d- / (d+ + d-). Something that is like none of the strokes
    is background: a negative is never farther than `reach`. So without negative prototypes it is the threshold rule,
    with d+ < reach where the similarity is above 0.5. All d are to the power of `sharpness`.
    """
    if len(positive) == 0:
        return features.new_zeros(len(features))
    near = nearest(features, positive)
    far = nearest(features, negative).clamp(max=reach)
    if sharpness != 1.0:
        return torch.sigmoid(sharpness * (far.clamp(min=1e-12).log() - near.clamp(min=1e-12).log()))
    return far / (near + far).clamp(min=1e-12)
