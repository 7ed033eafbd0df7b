"""The shadows that objects throw on what stands still: what part of the surroundings they hide there.

Still Gaussians have a brightness that changes over time. How much of that each object causes is fitted, so that edits
can take its shadow away and put it elsewhere.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.semantic_flow_splat.moving import MovingGaussians, between

DARKEST = 0.25
"""of the brightness without objects, at least left"""
TOUCHING = 1.5
"""radii from the centre of an object within which it hides a surface, so that nobody knows how dark that is"""
HALF_SHELL = 3**0.5 / 2
"""root mean square distance from their middle of points on half a ball, which is what cameras see, in its radii"""
STRONGEST = 2.0
"""strength of a shadow; above 1 where light comes from one side"""
NOTICED = 0.1
"""part of the sky that a thing hides from where on all brightness is taken for its shadow's"""
CLEAR = 16
"""power of the openness by which moments count for the brightness without objects"""
BRIGHTEST = 1.1
"""of the brightness that was ever seen, at most, where a shadow is taken away"""
SPLIT = 0.3
"""share of the mean squared distance that is left where a thing of two parts is taken for two"""
FEWEST = 20
"""Gaussians of a part"""
NEIGHBOURS = 12
"""Gaussians whose centres tell the direction of a surface"""


@dataclass(frozen=True)
class Ball:
    """What stands for an object, or for a part of it, in world units."""

    centre: Float[Tensor, "3"]
    radius: float

    def placed(self, matrix: Float[Tensor, "3 4"]) -> "Ball":
        """The ball moved by a similarity, or by one with a reflection."""
        matrix = matrix.to(self.centre)
        factor = float(torch.linalg.det(matrix[:, :3]).abs() ** (1 / 3))
        return Ball(matrix[:, :3] @ self.centre + matrix[:, 3], factor * self.radius)


def hidden(points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"], ball: Ball) -> Float[Tensor, "N"]:
    """The part of the light of a uniform sky that a ball keeps from surfaces.

    This is the form factor of a ball that is whole above the horizon: (radius / distance)^2 times the cosine.

    Args:
        points: on the surfaces.
        normals: unit length, away from the surfaces.
        ball: in the same coordinates.
    """
    towards = ball.centre.to(points) - points
    distance = towards.norm(dim=-1).clamp(min=max(ball.radius, 1e-6))
    cosine = ((towards * normals).sum(dim=-1) / distance).clamp(min=0)
    return (ball.radius / distance) ** 2 * cosine


def touched(points: Float[Tensor, "N 3"], ball: Ball) -> Bool[Tensor, "N"]:
    """Whether points are so near to a ball that cameras do not see how dark they are."""
    return (points - ball.centre.to(points)).norm(dim=-1) < TOUCHING * ball.radius


def fitted_strengths(
    brightness: Float[Tensor, "N K"], hidden_by: Float[Tensor, "objects N K"], weights: Float[Tensor, "N"]
) -> Float[Tensor, "objects"]:
    """How dark the shadow of each object is, by least squares: brightness / mean = 1 - strengths . hidden.

    Args:
        brightness: of surfaces over time.
        hidden_by: the part of the sky that each object hides.
        weights: of the surfaces.
    """
    change = brightness / brightness.mean(dim=1, keepdim=True).clamp(min=1e-6) - 1
    moved = hidden_by - hidden_by.mean(dim=-1, keepdim=True)
    normal = torch.einsum("ank,bnk,n->ab", moved, moved, weights)
    right = -torch.einsum("ank,nk,n->a", moved, change, weights)
    ridge = 1e-6 * normal.diagonal().mean() + 1e-12
    return torch.linalg.solve(normal + ridge * torch.eye(len(normal)).to(normal), right).clamp(0, STRONGEST)


def surface_normals(points: Float[Tensor, "N 3"], seen_from: Float[Tensor, "3"]) -> Float[Tensor, "N 3"]:
    """Directions in which centres spread least around each of them, towards a place that sees them."""
    from scipy.spatial import cKDTree

    places = points.cpu().double().numpy()
    _, nearest = cKDTree(places).query(places, k=NEIGHBOURS)
    around = points[torch.as_tensor(nearest, device=points.device)]
    spread = around - around.mean(dim=1, keepdim=True)
    normals = torch.linalg.eigh(spread.mT @ spread).eigenvectors[..., 0]
    away = ((seen_from.to(points) - points) * normals).sum(dim=-1, keepdim=True) < 0
    return torch.where(away, -normals, normals)


def parts(tracks: Float[Tensor, "M T 3"]) -> Int[Tensor, "M"]:
    """Which part of an object each of its Gaussians is of: what is long, or is several things, is divided in two."""
    numbers = torch.zeros(len(tracks), dtype=torch.long, device=tracks.device)
    waiting = [torch.arange(len(tracks), device=tracks.device)]
    count = 0
    while waiting:
        mine = waiting.pop()
        second = _halves(tracks[mine])
        if second is None:
            numbers[mine], count = count, count + 1
        else:
            waiting += [mine[second], mine[~second]]
    return numbers


def _halves(tracks: Float[Tensor, "M T 3"]) -> Bool[Tensor, "M"] | None:
    """Two means, along all of the way; None where they are no better than one."""
    ways = tracks.flatten(1)
    away = ways - ways.mean(dim=0)
    if len(ways) < 2 * FEWEST:
        return None
    longest = torch.linalg.eigh(away.mT @ away).eigenvectors[:, -1]
    second = away @ longest > 0
    for _ in range(10):
        if min(int(second.sum()), int((~second).sum())) < FEWEST:
            return None
        middles = torch.stack([ways[~second].mean(dim=0), ways[second].mean(dim=0)])
        second = torch.cdist(ways, middles).argmin(dim=1) == 1
    left = torch.cdist(ways, middles).amin(dim=1).square().sum()
    return second if bool(left < SPLIT * away.square().sum()) else None


@dataclass(frozen=True)
class Shadows:
    """The S still Gaussians of a scene of T time steps, and the shadows of its objects on them.

    An object is one ball or several.
    """

    points: Float[Tensor, "S 3"]
    normals: Float[Tensor, "S 3"]
    centres: Float[Tensor, "balls T 3"]
    radii: Float[Tensor, "balls"]
    objects: tuple[int, ...]
    """number of the object of each ball"""
    strengths: Float[Tensor, "objects"]
    """what part of the light an object takes, of that part of the sky that it hides"""
    hidden_by: Float[Tensor, "objects S K"]
    """part of the sky, at the times between which brightness changes evenly"""
    brightness: Float[Tensor, "S K"]
    """learned, at these times"""
    open: Float[Tensor, "S"]
    """brightness without objects"""

    @classmethod
    @torch.no_grad()
    def fitted(
        cls, gaussians: MovingGaussians, owners: Int[Tensor, "N"], count: int, seen_from: Float[Tensor, "3"]
    ) -> "Shadows | None":
        """What the brightness of still Gaussians over time says; None where it says nothing.

        Args:
            gaussians: of the scene.
            owners: number of the object of each, -1 for none.
            count: of objects.
            seen_from: a place that the surfaces look towards.
        """
        still = gaussians.num_still
        if not gaussians.num_shades or not count or still < NEIGHBOURS:
            return None
        points, tracks = gaussians.still.detach(), gaussians.tracks.detach()
        normals = surface_normals(points, seen_from)
        centres, radii, objects = [], [], []
        for index in range(count):
            own = tracks[owners[still:] == index]
            numbers = parts(own)
            for part in numbers.unique().tolist():
                ways = own[numbers == part]
                centres.append(ways.mean(dim=0))
                radii.append((ways - centres[-1]).square().sum(dim=-1).mean().sqrt() / HALF_SHELL)
                objects.append(index)
        if not objects:
            return None
        times = torch.linspace(0, gaussians.num_steps - 1, gaussians.num_shades).tolist()
        hidden_by, near = points.new_zeros(count, still, len(times)), points.new_zeros(still, len(times)).bool()
        for centre, radius, index in zip(centres, radii, objects, strict=True):
            for knot, time in enumerate(times):
                ball = Ball(between(centre[None], time)[0], float(radius))
                hidden_by[index, :, knot] += hidden(points, normals, ball)
                near[:, knot] |= touched(points, ball)
        brightness = torch.stack([gaussians.brightness_at(time)[:still] for time in times], dim=1)
        weights = torch.where(near.any(dim=1), 0.0, gaussians.opacities_at(0.0)[:still])
        strengths = fitted_strengths(brightness, hidden_by, weights)
        openness = (1 - torch.einsum("ank,a->nk", hidden_by, strengths)).clamp(min=DARKEST)
        clear = torch.where(near, 1e-3, 1.0) * openness**CLEAR
        without = (clear * brightness / openness).sum(dim=1) / clear.sum(dim=1)
        return cls(
            points,
            normals,
            torch.stack(centres),
            torch.stack(radii),
            tuple(objects),
            strengths,
            hidden_by,
            brightness,
            without,
        )

    def balls(self, index: int, step: float) -> list[Ball]:
        """What stands for an object at a time step or between two."""
        return [
            Ball(between(centre[None], step)[0], float(radius))
            for centre, radius, number in zip(self.centres, self.radii, self.objects, strict=True)
            if number == index
        ]

    def light(
        self, step: float, in_place: Collection[int], thrown: Sequence[tuple[int, Ball]], count: int
    ) -> Float[Tensor, "N"]:
        """By which factor Gaussians are brighter, where some objects stay and balls stand for what is put elsewhere.

        Args:
            step: the time.
            in_place: numbers of the objects that stay.
            thrown: number of an object and its ball at another place.
            count: of Gaussians; those after the still ones keep their light.
        """
        knot = step * (self.brightness.shape[1] - 1) / max(self.centres.shape[1] - 1, 1)
        hidden_by = between(self.hidden_by.flatten(0, 1), knot).unflatten(0, self.hidden_by.shape[:2])
        staying = sorted(in_place)
        before = self._openness(hidden_by, self.strengths)
        after = self._openness(hidden_by[staying], self.strengths[staying])
        # Where what is gone hid much, or the surface itself, its own brightness at other times is known better.
        unknown = torch.zeros_like(before)
        for index in set(range(len(self.strengths))) - set(staying):
            unknown = unknown.maximum((hidden_by[index] / NOTICED).clamp(max=1))
            for ball in self.balls(index, step):
                unknown = unknown.maximum(touched(self.points, ball).to(unknown))
        now = between(self.brightness, knot).clamp(min=1e-6)
        factor = torch.lerp(1 / before, self.open / now, unknown) * after
        # No brighter than it was ever seen.
        factor = factor.minimum(BRIGHTEST * self.brightness.amax(dim=1) / now)
        dark = sum(
            (self.strengths[index] * hidden(self.points, self.normals, ball) for index, ball in thrown),
            start=torch.zeros_like(before),
        )
        factors = self.points.new_ones(count)
        factors[: len(self.points)] = factor * (1 - dark).clamp(min=DARKEST)
        return factors

    @staticmethod
    def _openness(hidden_by: Float[Tensor, "objects S"], strengths: Float[Tensor, "objects"]) -> Float[Tensor, "S"]:
        return (1 - (strengths[:, None] * hidden_by).sum(dim=0)).clamp(min=DARKEST)
