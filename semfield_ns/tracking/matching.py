"""Which class a cell has, by the most similar cells of frames whose classes are known.

Similarity is compared between classes: how far apart two features are says little by itself, with another teacher or in
another video.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

NEAREST = 4
"""cells of a class that count"""
SURE = 0.6
"""probability from which a cell is one of a class"""
TEMPERATURE = 0.05
"""difference of similarities that is one in log-likelihood"""
MOST = 4.0
"""log-likelihood ratio, at most: features can be wrong"""


class Memory(NamedTuple):
    """Cells of a frame whose classes are known, or thought to be."""

    features: Float[Tensor, "cells dim"]
    """of unit norm"""
    classes: Float[Tensor, "cells classes"]
    """probabilities; all 0 where nothing is known"""
    reach: float
    """cells: things are expected about where they were, with this standard deviation"""


def distances(rows: int, columns: int) -> Float[Tensor, "cells cells"]:
    """Squared distances between the cells of a grid, in cells."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([y, x], dim=-1).flatten(0, 1).float()
    return torch.cdist(places, places).square()


def margins(
    features: Float[Tensor, "cells dim"], memories: Sequence[Memory], apart: Float[Tensor, "cells cells"]
) -> Float[Tensor, "cells classes"]:
    """For every cell and class, the log-likelihood ratio to the best other class, within `MOST`.

    Args:
        features: of unit norm.
        memories: at least one.
        apart: squared distances between cells.
    """
    classes = memories[0].classes.shape[1]
    # The best of each of NEAREST interleaved parts, which is nearly the NEAREST best and much quicker to find.
    best = torch.full((classes, NEAREST, len(features)), -torch.inf)
    room = torch.empty(max(len(memory.features) for memory in memories), len(features))
    for memory in memories:
        bias = TEMPERATURE / (2 * memory.reach**2)
        for number in range(classes):
            cells = (memory.classes[:, number] > SURE).nonzero()[:, 0]
            if len(cells) < NEAREST:
                continue
            similarity = torch.mm(memory.features[cells], features.T, out=room[: len(cells)])
            similarity.sub_(apart[cells], alpha=bias)
            for part in range(NEAREST):
                best[number, part] = torch.maximum(best[number, part], similarity[part::NEAREST].amax(0))
    own = best.mean(1).T / TEMPERATURE
    # Where no class, or only one, is in memory, infinities meet.
    return torch.nan_to_num(over_others(own), nan=0.0).clamp(-MOST, MOST)


def over_others(values: Float[Tensor, "cells classes"]) -> Float[Tensor, "cells classes"]:
    """How far the value of each class is above that of the best other one."""
    classes = values.shape[1]
    top = values.topk(min(2, classes), dim=1)
    first, second = top.values[:, :1], top.values[:, -1:]
    return values - torch.where(torch.arange(classes) == top.indices[:, :1], second, first)
