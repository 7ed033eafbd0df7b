"""Places from which Gaussians of unknown origin are seen well, for files that come without cameras."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.projection import project
from semfield_ns.gaussians.rasterize import rasterize, uplift
from semfield_ns.gaussians.values import Gaussians

FIELD_OF_VIEW = 60.0
"""degrees, across a picture"""
OPAQUE = 0.3
"""opacity from which a Gaussian counts as part of a surface"""
EXTENT_QUANTILE = 0.7
"""of the distances from the centre: floaters and skies are far out"""
AZIMUTHS = 16
ELEVATIONS = (5.0, 25.0, 50.0)
"""degrees, of places around the centre"""
DISTANCES = (1.3, 2.2)
"""of places around the centre, in extents"""
INSIDE = (0.35, 0.7)
"""distances from the centre, in extents, of places from which to look around; the centre itself is one too"""
TRIED = 30_000
"""Gaussians that places are judged by, drawn at random"""
TRIED_WIDTH, TRIED_HEIGHT = 96, 72
"""px, of the pictures that places are judged by"""
SEEN = 0.02
"""contributions, in pixels of these, from which a Gaussian is seen"""
TOO_NEAR, NEAR_SHARE = 0.12, 0.05
"""a place is inside of something if this share of its picture is nearer than so many extents"""
CLEAR = 0.6
"""share of the pixels that show anything which has to be opaque"""
INSIDE_WORTH = 0.1
"""share of all Gaussians that only inner places see, from which on these are needed"""
WORTH = 0.1
"""of the gain of the first place: places that add less are left out"""

Place = tuple[Float[Tensor, "3 4"], Bool[Tensor, "gaussians"]]
"""a pose, and which Gaussians are seen from there"""


def viewpoints(
    gaussians: Gaussians, up: Float[Tensor, "3"], count: int = 24, backend: str = "auto"
) -> Float[Tensor, "views 3 4"]:
    """Poses that together see most of the Gaussians, each of them from several sides where that can be.

    Many places around and inside of the robust extent are tried; one after the other, the place is taken that sees most
    of what was seen by few places before. So the outside of a room, or the back of a wall, comes last if at all.

    Args:
        gaussians: in world coordinates; channels are not looked at.
        up: the direction that is up in pictures, world, of any length but zero.
        count: the most poses.
        backend: of the rasteriser.

    Returns:
        OpenGL poses, camera to world, on the CPU, the best first; for pictures `FIELD_OF_VIEW` wide.

    Raises:
        SemfieldError: from no place is anything seen.
    """
    tried = thinned(gaussians)
    opaque = tried.means[tried.opacities > OPAQUE]
    if len(opaque) < 2:
        opaque = tried.means
    centre = opaque.median(dim=0).values
    extent = float((opaque - centre).norm(dim=-1).quantile(EXTENT_QUANTILE))
    if not extent > 0:
        raise SemfieldError("All Gaussians are at one place: there is nothing to look at.")
    upright = F.normalize(up.float().cpu(), dim=0)
    groups = [
        [
            (pose, seen)
            for pose in places(centre.cpu(), extent, upright)
            if (seen := _seen_from(tried, pose, TOO_NEAR * extent, backend)) is not None
        ]
        for places in (around, within)
    ]
    found = needed(*groups)
    if not found:
        raise SemfieldError("No surface is seen from anywhere around these Gaussians: give --data, their cameras.")
    order = covering(torch.stack([seen for _, seen in found]), count)
    return torch.stack([found[place][0] for place in order])


def needed(outer: list[Place], inner: list[Place]) -> list[Place]:
    """Outer places, and inner ones if these see much that no outer place does: rooms, but not hollow things."""
    if not outer or not inner:
        return outer or inner
    from_outside, from_inside = (torch.stack([seen for _, seen in group]).any(dim=0) for group in (outer, inner))
    alone = (from_inside & ~from_outside).sum() / (from_inside | from_outside).sum()
    return [*outer, *inner] if float(alone) > INSIDE_WORTH else outer


def thinned(gaussians: Gaussians, most: int = TRIED) -> Gaussians:
    """At most so many of the Gaussians, drawn at random and enlarged so that surfaces stay closed."""
    if len(gaussians) <= most:
        return gaussians.detach()
    chosen = torch.randperm(len(gaussians), generator=torch.Generator().manual_seed(0))[:most]
    kept = gaussians.detach().select(chosen.to(gaussians.means.device))
    factor = (len(gaussians) / most) ** 0.5  # what is on surfaces thins out by area
    return Gaussians(kept.means, kept.quaternions, kept.scales * factor, kept.opacities, kept.channels)


def _turning(up: Float[Tensor, "3"]) -> Callable[[float, float], Float[Tensor, "3"]]:
    """Unit directions by azimuth and elevation, radians."""
    aside = F.normalize(torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())]), dim=0)
    ahead = torch.linalg.cross(up, aside)

    def direction(azimuth: float, elevation: float) -> Float[Tensor, "3"]:
        level = math.cos(elevation)
        return level * (math.cos(azimuth) * aside + math.sin(azimuth) * ahead) + math.sin(elevation) * up

    return direction


TURNS = [2 * math.pi * number / AZIMUTHS for number in range(AZIMUTHS)]


def around(centre: Float[Tensor, "3"], extent: float, up: Float[Tensor, "3"]) -> Iterator[Float[Tensor, "3 4"]]:
    """Poses around a centre that look at it."""
    direction = _turning(up)
    for distance in DISTANCES:
        for elevation in ELEVATIONS:
            for azimuth in TURNS:
                place = centre + distance * extent * direction(azimuth, math.radians(elevation))
                yield looking(place, centre - place, up)


def within(centre: Float[Tensor, "3"], extent: float, up: Float[Tensor, "3"]) -> Iterator[Float[Tensor, "3 4"]]:
    """Poses near a centre that look around."""
    direction = _turning(up)
    places = [centre] + [centre + share * extent * direction(turn, 0.0) for share in INSIDE for turn in TURNS[::4]]
    for place in places:
        for azimuth in TURNS[::2]:
            yield looking(place, direction(azimuth, math.radians(-10.0)), up)


def looking(place: Float[Tensor, "3"], direction: Float[Tensor, "3"], up: Float[Tensor, "3"]) -> Float[Tensor, "3 4"]:
    """The OpenGL pose of a camera at a place that looks in a direction, which is not that of `up`."""
    back = -F.normalize(direction, dim=0)
    right = F.normalize(torch.linalg.cross(up, back), dim=0)
    return torch.stack([right, torch.linalg.cross(back, right), back, place], dim=1)


def intrinsics(width: int, height: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy, px, of a picture that is `FIELD_OF_VIEW` wide."""
    focal = width / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2))
    return focal, focal, width / 2, height / 2


def _seen_from(
    gaussians: Gaussians, pose: Float[Tensor, "3 4"], near: float, backend: str
) -> Bool[Tensor, "gaussians"] | None:
    """Which Gaussians a place sees; None of a place that is inside of something or sees no clear surface."""
    width, height = TRIED_WIDTH, TRIED_HEIGHT
    projection = project(
        gaussians.means,
        gaussians.quaternions,
        gaussians.scales,
        pose,
        intrinsics(width, height),
        width,
        height,
        opacities=gaussians.opacities,
        near=near / 10,
        backend=backend,  # type: ignore[arg-type]
    )
    picture = rasterize(
        projection,
        gaussians.opacities,
        gaussians.channels[:, :0],
        depth=True,
        backend=backend,  # type: ignore[arg-type]
    )
    assert picture.depth is not None, "asked for above"
    shown = picture.accumulation > 0.1
    clear = (picture.accumulation > 0.9).sum() / shown.sum().clamp(min=1)
    close = ((picture.depth < near) & shown).float().mean()
    if float(close) > NEAR_SHARE or float(clear) < CLEAR:
        return None
    ones = torch.ones(height, width, 1, device=gaussians.means.device)
    return (uplift(projection, gaussians.opacities, ones, backend=backend)[1] > SEEN).cpu()  # type: ignore[arg-type]


def covering(seen: Bool[Tensor, "places gaussians"], count: int) -> list[int]:
    """Places that together see most, the best first: what n places saw before counts 1 / (1 + n)."""
    times = torch.zeros(seen.shape[1])
    left, first = seen.float(), 0.0
    chosen: list[int] = []
    while len(chosen) < min(count, len(seen)):
        gains = left @ (1 / (1 + times))
        best = int(gains.argmax())
        first = first or float(gains[best])
        if float(gains[best]) <= WORTH * first:
            break
        chosen.append(best)
        times += left[best]
        left[best] = 0
    return chosen
