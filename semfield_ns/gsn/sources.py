"""Which views a picture is rendered from. Pure functions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

POOL_SCALES, POOL_CHANCES = (1, 2, 3), (0.2, 0.45, 0.35)
MAX_POOL = 20
_SAME_PLACE = 1e-6


def nearest_views(
    centre: Float[Tensor, "3"], centres: Float[Tensor, "N 3"], candidates: Sequence[int], count: int
) -> list[int]:
    """The candidates whose cameras are nearest, nearest first. A camera at the very place is the target itself, and
    left out.

    Args:
        centre: of the target camera.
        centres: of all cameras of the scene.
        candidates: cameras that may be sources.
        count: how many.
    """
    distances = (centres[list(candidates)] - centre).norm(dim=-1)
    order = distances.argsort(stable=True)
    return [candidates[i] for i in order.tolist() if distances[i] > _SAME_PLACE][:count]


def draw_sources(
    target: int,
    centres: Float[Tensor, "N 3"],
    candidates: Sequence[int],
    count: int,
    generator: torch.Generator,
) -> list[int]:
    """Source views of a training step: a few at random from a pool of near ones, whose size is random too.

    The pool has min(count s, 20) views with s = 1, 2 or 3; of it, count give or take a fifth are drawn.
    """
    scale = POOL_SCALES[int(torch.multinomial(torch.tensor(POOL_CHANCES), 1, generator=generator))]
    others = [index for index in candidates if index != target]
    pool = nearest_views(centres[target], centres, others, max(count, min(count * scale, MAX_POOL)))
    slack = max(1, count // 5)
    wanted = count + int(torch.randint(-slack, slack + 1, (1,), generator=generator))
    chosen = torch.randperm(len(pool), generator=generator)[: max(wanted, 1)]
    return [pool[i] for i in chosen.tolist()]


def draw_targets(
    first: int, sources: Sequence[int], centres: Float[Tensor, "N 3"], candidates: Sequence[int], count: int
) -> list[int]:
    """Targets of a training step that share their source views: `first`, and the nearest others to it.

    No target is a source, or where one is; so there may be fewer than `count`.
    """
    if not sources:
        return [first]
    apart = torch.cdist(centres, centres[list(sources)]).amin(dim=1) > _SAME_PLACE
    others = [index for index in candidates if index != first and apart[index]]
    distances = (centres[others] - centres[first]).norm(dim=-1)
    return [first, *(others[i] for i in distances.argsort(stable=True).tolist())][:count]
