"""From what single places say to regions: one linear system on the graph of a view."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.segmentation.matching import TINY
from semfield_ns.segmentation.views import FeatureView

FEATURE_SCALE = 2.0
"""|df|^2 over which a border stops growth, in those that are usual between neighbouring superpixels"""
GAP = 3.0
"""distance in space that does, in distances between neighbouring superpixels"""


def edge_weights(view: FeatureView, trust: float = 1.0) -> Float[Tensor, "E"]:
    """How easily something spreads over each border between superpixels of a view.

    Longer borders, more similar features and surfaces that are closer together let more through; the last counts as far
    as the surface can be trusted, from 0 to 1.
    """
    edges, border = view.regions.edges, view.regions.border
    first, second = view.region_features[edges[:, 0]], view.region_features[edges[:, 1]]
    unlike = (first - second).square().sum(dim=1)
    exponent = unlike / (FEATURE_SCALE * unlike.median()).clamp(min=TINY)
    if view.points is not None:
        apart = (view.region_points[edges[:, 0]] - view.region_points[edges[:, 1]]).norm(dim=1)
        exponent = exponent + trust * (apart / (GAP * view.region_spacing)).square()
    return torch.exp(-exponent) * border / border.mean().clamp(min=1)


def grow(
    score: Float[Tensor, "O R"],
    confidence: Float[Tensor, "O R"],
    edges: Int[Tensor, "E 2"],
    weights: Float[Tensor, "E"],
    strength: float,
) -> Float[Tensor, "O R"]:
    """Scores that are close to those given where these are sure, and alike across weak borders.

    Minimises sum_i c_i (x_i - s_i)^2 + strength * sum_ij w_ij (x_i - x_j)^2: the random walker with a prior. The
    minimum solves (diag(c) + strength * L) x = c s with the graph's Laplacian L. It is dense here: a thousand unknowns
    cost a few milliseconds, on CPU and CUDA alike.

    Args:
        score: of each object in each region, in [0, 1].
        confidence: c, above 0.
        edges: pairs of regions.
        weights: w of the pairs, at least 0.
        strength: 0 leaves the scores as they are.

    Returns:
        In the range of the scores given.
    """
    if strength == 0 or len(edges) == 0:
        return score
    count = score.shape[1]
    laplacian = score.new_zeros(count, count)
    laplacian[edges[:, 0], edges[:, 1]] = -strength * weights
    laplacian = laplacian + laplacian.T
    laplacian.diagonal().sub_(laplacian.sum(dim=1))
    grown = []
    for wanted, sure in zip(score, confidence, strict=True):
        factor = torch.linalg.cholesky(laplacian + torch.diag(sure))
        grown.append(torch.cholesky_solve((sure * wanted)[:, None], factor)[:, 0])
    return torch.stack(grown).clamp(0, 1)
