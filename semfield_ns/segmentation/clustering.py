"""Seeded k-means: a few prototypes for many features."""

import torch
from jaxtyping import Float
from torch import Tensor


def kmeans(features: Float[Tensor, "N F"], count: int, seed: int = 0, iterations: int = 20) -> Float[Tensor, "K F"]:
    """Centroids by Lloyd's algorithm from a k-means++ start, squared Euclidean distance.

    Args:
        features: at least one.
        count: most centroids; of fewer features each is its own.
        seed: of the start; the same on the CPU and on CUDA.
        iterations: at most.

    Returns:
        K = min(count, N) centroids on the device of the features; an empty cluster keeps its last centroid.
    """
    if len(features) <= count:
        return features.clone()
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, generator=generator).to(features)
    chosen = [int(draws[0] * len(features))]
    nearest = squared_distances(features, features[chosen[0]][None])[:, 0]
    for number in range(1, count):
        # Proportional to the squared distance to what was chosen; with nothing left to choose from, the first again.
        total = nearest.double().cumsum(dim=0)
        place = int(torch.searchsorted(total, draws[number].double() * total[-1]))
        chosen.append(min(place, len(features) - 1))
        nearest = torch.minimum(nearest, squared_distances(features, features[chosen[-1]][None])[:, 0])
    centroids = features[chosen].clone()
    for _ in range(iterations):
        member = torch.nn.functional.one_hot(squared_distances(features, centroids).argmin(dim=1), count).to(features)
        size = member.sum(dim=0)[:, None]
        # A product, not index_add: its order of summation is the same in every run, on CUDA too.
        moved = torch.where(size > 0, (member.T @ features) / size.clamp(min=1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids


def squared_distances(features: Float[Tensor, "N F"], others: Float[Tensor, "K F"]) -> Float[Tensor, "N K"]:
    """|f - c|^2 of all pairs, at least 0."""
    inner = torch.addmm(others.square().sum(dim=1)[None], features, others.T, alpha=-2)
    return inner.add_(features.square().sum(dim=1, keepdim=True)).clamp_(min=0)
