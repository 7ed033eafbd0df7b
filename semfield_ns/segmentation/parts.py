"""Parts of an object: clusters of its features that are the same in every view."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.segmentation.clustering import kmeans, squared_distances
from semfield_ns.segmentation.views import FeatureView

MAX_SAMPLES = 4096


def part_prototypes(
    views: Sequence[FeatureView], masks: Sequence[Bool[Tensor, "H W"]], count: int, seed: int = 0
) -> Float[Tensor, "K F"]:
    """Centroids of the superpixels that an object covers in some views, largest part first.

    Args:
        views: in which the object was found.
        masks: of the object, one a view.
        count: of parts, at most.
        seed: of the clustering.

    Returns:
        K at most `count`; K = 0 where the object covers nothing.
    """
    features = []
    for view, mask in zip(views, masks, strict=True):
        covered = view.regions.count(mask) > 0.5 * view.regions.size
        features.append(view.region_features[covered])
    every = torch.cat(features)[:MAX_SAMPLES]
    if len(every) == 0:
        return every
    centroids = kmeans(every, count, seed)
    member = squared_distances(every, centroids).argmin(dim=1)
    size = torch.bincount(member, minlength=len(centroids))
    return centroids[size.argsort(descending=True, stable=True)]


def part_ids(view: FeatureView, mask: Bool[Tensor, "H W"], centroids: Float[Tensor, "K F"]) -> Int[Tensor, "H W"]:
    """Which part each pixel of an object belongs to, from 1; 0 outside the object.

    A superpixel belongs to one part as a whole, so parts have no specks.
    """
    if len(centroids) == 0:
        return torch.zeros_like(mask, dtype=torch.long)
    nearest = squared_distances(view.region_features, centroids).argmin(dim=1)
    return torch.where(mask, nearest[view.regions.labels] + 1, 0)
