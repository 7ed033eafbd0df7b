"""Which class a cell has, by a linear discriminant that is learned while the video goes on.

Least squares on the features of a cell and of the eight around it (a linear target model, as of Bhat et al., "Learning
What to Learn for Video Object Segmentation", 2020, without its network). What was given always counts; what was found a
moment ago counts as well, and fades. All that is kept are sums of products: memory does not grow with the video.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.tracking.matching import over_others

WINDOW = 3
"""cells, the side of what is looked at"""
PENALTY = 0.03
"""of squared weights, where features have a mean square of 1"""
FOUND = 0.3
"""what frames whose classes were found count, beside given ones"""
FADING = 0.9
"""what the found frames before count in the next"""
SURE = 0.8
"""probability from which a cell is one of a class"""
FEWEST = 4.0
"""cells of a class that count as much together as all of another class"""
MOST = 1.5
"""margin, at most, where 1 separates a class from the others"""


class Sums(NamedTuple):
    """All that least squares need of cells whose classes are known."""

    products: Float[Tensor, "inputs inputs"]
    targets: Float[Tensor, "inputs classes"]

    def without(self, other: "Sums") -> "Sums":
        """Those of the other cells."""
        return Sums(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def mixed(self, other: "Sums", share: float) -> "Sums":
        """With another one, which has this share."""
        return Sums(*((1 - share) * mine + share * theirs for mine, theirs in zip(self, other, strict=True)))


def inputs(features: Float[Tensor, "rows columns dim"]) -> Float[Tensor, "cells inputs"]:
    """What a cell is judged by: the features around it, of unit norm at first, and a 1."""
    rows, columns, dim = features.shape
    maps = dim**0.5 * features.permute(2, 0, 1)[None]
    around = F.unfold(F.pad(maps, (WINDOW // 2,) * 4, mode="replicate"), WINDOW)[0].T
    return torch.cat([around, features.new_ones(rows * columns, 1)], dim=1)


def sums(
    inputs: Float[Tensor, "cells inputs"], classes: Float[Tensor, "cells classes"], cells: Float[Tensor, "classes"]
) -> Sums:
    """Of the cells that are surely of a class; each class counts as `cells` of its cells do.

    Args:
        inputs: see `inputs`.
        classes: probabilities; all 0 where nothing is known.
        cells: how many each class has, here or in several frames (`counted`).
    """
    known = (classes > SURE).float()
    weight = known @ (1 / cells.clamp(min=FEWEST))
    weighted = inputs * weight[:, None]
    return Sums(weighted.T @ inputs, weighted.T @ known)


def counted(classes: Float[Tensor, "cells classes"]) -> Float[Tensor, "classes"]:
    """How many cells are surely of each class."""
    return (classes > SURE).float().sum(0)


def solved(products: Float[Tensor, "inputs inputs"], targets: Float[Tensor, "inputs classes"]) -> Tensor:
    """The weights of all inputs for each class."""
    return torch.linalg.solve(products + PENALTY * torch.eye(len(products)), targets)


def explained(given: Sums) -> float:
    """How much of the variance of the classes the inputs explain, 0 to 1; 0 where there is one class only."""
    weights = solved(*given)
    cells = given.targets[-1]  # of each class, by the input that is 1
    chance = cells.square().sum() / cells.sum().clamp(min=1e-9)
    left = cells.sum() - (2 * weights * given.targets - weights * (given.products @ weights)).sum()
    variance = cells.sum() - chance
    return float((1 - left / variance).clamp(0, 1)) if variance > 1e-6 else 0.0


class Discriminant:
    """A linear discriminant of the classes of a video.

    Args:
        given: inputs and classes of the frames whose classes are known.
    """

    def __init__(self, given: Sequence[tuple[Float[Tensor, "cells inputs"], Float[Tensor, "cells classes"]]]) -> None:
        cells = torch.stack([counted(classes) for _, classes in given]).sum(0)
        parts = [sums(found, classes, cells) for found, classes in given]
        self._cells = cells
        self._given = Sums(*(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))
        self._found: Sums | None = None
        self.explained = explained(self._given)
        """share of the classes' variance in the given frames; what the discriminant says counts that much"""

    def forget(self) -> None:
        """All but what was given."""
        self._found = None

    def learn(self, inputs: Float[Tensor, "cells inputs"], classes: Float[Tensor, "cells classes"]) -> None:
        """From another frame, as far as its classes are sure."""
        new = sums(inputs, classes, counted(classes))
        self._found = new if self._found is None else new.mixed(self._found, FADING)

    def margins(
        self, inputs: Float[Tensor, "cells inputs"], own: Float[Tensor, "cells classes"] | None = None
    ) -> Float[Tensor, "cells classes"]:
        """For every cell and class, how much more it is of it than of the best other class, within `MOST`.

        Args:
            inputs: of the cells of a frame.
            own: classes that were given of this very frame, which is then judged by the others.
        """
        given = self._given if own is None else self._given.without(sums(inputs, own, self._cells))
        told = inputs @ solved(*(given if self._found is None else given.mixed(self._found, FOUND)))
        return self.explained * over_others(told).clamp(-MOST, MOST)
