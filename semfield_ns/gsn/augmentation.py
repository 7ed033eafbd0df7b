"""Crops and mirror images of source views that leave every ray and its target as they are. Pure functions.

A picture that is mirrored together with its camera (a focal length below zero) shows every point of space where the
point is projected to: only the image encoder sees a difference. The same holds for a crop.
"""

import torch

from semfield_ns.gsn.projection import SourceViews
from semfield_ns.rendering.constants import constant


def mirror(views: SourceViews) -> SourceViews:
    """The views with pictures flipped from left to right. Lenses must not be distorted."""
    width = views.images.shape[-1]
    sign = constant((-1.0, 1.0, -1.0, 1.0), views.intrinsics)
    shift = constant((0.0, 0.0, width - 1.0, 0.0), views.intrinsics)
    return views._replace(
        images=views.images.flip(-1),
        intrinsics=views.intrinsics * sign + shift,
        tokens=tuple(grid.flip(-1) for grid in views.tokens),
    )


def crop(views: SourceViews, share: float, generator: torch.Generator | None = None) -> SourceViews:
    """The views without a part of their borders; for views without tokens, whose grid would no longer fit.

    Args:
        views: without tokens.
        share: of each side that is kept.
        generator: of the place.
    """
    assert not views.tokens, "a crop of the picture would need a crop of the tokens"
    height, width = views.images.shape[-2:]
    rows, columns = max(1, int(height * share)), max(1, int(width * share))
    top = int(torch.randint(height - rows + 1, (1,), generator=generator))
    left = int(torch.randint(width - columns + 1, (1,), generator=generator))
    shift = views.intrinsics.new_zeros(4)
    shift[2], shift[3] = left, top
    return views._replace(
        images=views.images[..., top : top + rows, left : left + columns], intrinsics=views.intrinsics - shift
    )
