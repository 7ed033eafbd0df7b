"""Unit shapes in their own (material) coordinates: exact first hit of a ray, and the outward normal.

Objects place them in the world through an affine map: a sphere serves for ellipsoids, a cylinder for discs and poles.
Rays may have directions of any length: the distance is counted in those lengths, which an affine map leaves unchanged.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

NEAREST = 1e-6
"""Hits closer than this, in lengths of the ray's direction, do not count."""

Points = Float[np.ndarray, "n 3"]
Distances = Float[np.ndarray, " n"]


class Shape(Protocol):
    """What a scene asks of a shape."""

    def hit(self, origins: Points, directions: Points) -> Distances:
        """Distance to the first hit from outside, infinite where the ray misses."""

    def normal(self, points: Points) -> Points:
        """Outward normals, of any length, at points of the surface."""

    @property
    def bound(self) -> float:
        """Radius of a sphere around the origin that holds the shape; infinite if none does."""


def _square(vectors: np.ndarray) -> np.ndarray:
    """Squared length along the last axis."""
    return np.einsum("...i,...i->...", vectors, vectors)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", a, b)


def _first_root(a: Distances, half_b: Distances, c: Distances) -> Distances:
    """Smaller root of a s^2 + 2 half_b s + c = 0, infinite where there is none (a > 0)."""
    discriminant = half_b * half_b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        root = (-half_b - np.sqrt(np.maximum(discriminant, 0.0))) / a
    return np.where((discriminant > 0) & (a > 0), root, np.inf)


def _forward(distances: Distances, allowed: np.ndarray) -> Distances:
    """Distances where the hit is allowed and lies in front of the origin, otherwise infinity."""
    return np.where(allowed & (distances > NEAREST), distances, np.inf)


def _disc_hit(origins: Points, directions: Points, height: float) -> Distances:
    """Hit with the unit disc in the plane z = height, met from its outer side (away from the origin)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = (height - origins[:, 2]) / directions[:, 2]
    distances = np.where(directions[:, 2] * height < 0, distances, np.inf)
    finite = np.where(np.isfinite(distances), distances, 0.0)
    across = origins[:, :2] + finite[:, None] * directions[:, :2]
    return _forward(distances, _square(across) <= 1.0)


def meets_ball(origins: Float[np.ndarray, "*#n 3"], directions: Points, radius: float) -> Bool[np.ndarray, " n"]:
    """Which rays, from one origin or from one each, come within `radius` of (0, 0, 0): a cheap test before `hit`."""
    along = _dot(origins, directions)
    lengths = _square(directions)
    return along * along >= lengths * (_square(origins) - radius * radius)


@dataclass(frozen=True)
class Plane:
    """The plane z = 0, seen from above only."""

    bound: float = np.inf

    def hit(self, origins: Points, directions: Points) -> Distances:
        with np.errstate(divide="ignore", invalid="ignore"):
            distances = -origins[:, 2] / directions[:, 2]
        return _forward(distances, (directions[:, 2] < 0) & (origins[:, 2] > 0))

    def normal(self, points: Points) -> Points:
        return np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape)


@dataclass(frozen=True)
class Sphere:
    """The unit sphere."""

    bound: float = 1.0

    def hit(self, origins: Points, directions: Points) -> Distances:
        distances = _first_root(_square(directions), _dot(origins, directions), _square(origins) - 1.0)
        return _forward(distances, np.ones(len(distances), bool))

    def normal(self, points: Points) -> Points:
        return points


@dataclass(frozen=True)
class Box:
    """The cube [-1, 1]^3."""

    bound: float = 3.0**0.5

    def hit(self, origins: Points, directions: Points) -> Distances:
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1.0 / directions
            middle = -origins * inverse
            half = np.abs(inverse)
            enter = np.nan_to_num(middle - half, nan=-np.inf, posinf=np.inf, neginf=-np.inf).max(axis=-1)
            leave = np.nan_to_num(middle + half, nan=np.inf, posinf=np.inf, neginf=-np.inf).min(axis=-1)
        return _forward(enter, enter < leave)

    def normal(self, points: Points) -> Points:
        face = np.abs(points).argmax(axis=-1)[:, None]
        normals = np.zeros_like(points)
        np.put_along_axis(normals, face, np.sign(np.take_along_axis(points, face, axis=-1)), axis=-1)
        return normals


@dataclass(frozen=True)
class Cylinder:
    """Radius 1 around the z axis, closed at z = -1 and z = 1."""

    bound: float = 2.0**0.5

    def hit(self, origins: Points, directions: Points) -> Distances:
        o, d = origins[:, :2], directions[:, :2]
        side = _first_root(_square(d), _dot(o, d), _square(o) - 1.0)
        finite = np.where(np.isfinite(side), side, 0.0)
        side = _forward(side, np.abs(origins[:, 2] + finite * directions[:, 2]) <= 1.0)
        caps = np.minimum(_disc_hit(origins, directions, 1.0), _disc_hit(origins, directions, -1.0))
        return np.minimum(side, caps)

    def normal(self, points: Points) -> Points:
        on_cap = np.abs(points[:, 2]) >= np.sqrt(_square(points[:, :2]))
        radial = points * (1.0, 1.0, 0.0)
        axial = np.sign(points) * (0.0, 0.0, 1.0)
        return np.where(on_cap[:, None], axial, radial)


@dataclass(frozen=True)
class Cone:
    """Apex at z = 1, base of radius 1 at z = -1."""

    bound: float = 2.0**0.5

    def hit(self, origins: Points, directions: Points) -> Distances:
        # x^2 + y^2 = ((1 - z) / 2)^2; the second nappe, above the apex, lies outside |z| <= 1.
        slope = (1.0 - origins[:, 2]) / 2
        a = _square(directions[:, :2]) - directions[:, 2] ** 2 / 4
        half_b = _dot(origins[:, :2], directions[:, :2]) + slope * directions[:, 2] / 2
        c = _square(origins[:, :2]) - slope**2
        root = np.sqrt(np.maximum(half_b * half_b - a * c, 0.0))
        best = _disc_hit(origins, directions, -1.0)
        for sign in (-1.0, 1.0):
            with np.errstate(divide="ignore", invalid="ignore"):
                distances = (-half_b + sign * root) / a
            finite = np.where(np.isfinite(distances), distances, 0.0)
            on_side = np.abs(origins[:, 2] + finite * directions[:, 2]) <= 1.0
            real = (half_b * half_b - a * c > 0) & np.isfinite(distances)
            best = np.minimum(best, _forward(distances, on_side & real))
        return best

    def normal(self, points: Points) -> Points:
        radius = np.sqrt(_square(points[:, :2]))
        side = np.concatenate([points[:, :2], radius[:, None] / 2], axis=-1)
        on_base = points[:, 2] + 1.0 < 1e-7
        return np.where(on_base[:, None], np.array([0.0, 0.0, -1.0]), side)


@dataclass(frozen=True)
class Capsule:
    """A rod along z with round ends: all points at distance 1 from the segment |z| <= half_length."""

    half_length: float = 1.0
    """Half of the length of the straight part."""

    @property
    def bound(self) -> float:
        return 1.0 + self.half_length

    def hit(self, origins: Points, directions: Points) -> Distances:
        o, d = origins[:, :2], directions[:, :2]
        side = _first_root(_square(d), _dot(o, d), _square(o) - 1.0)
        finite = np.where(np.isfinite(side), side, 0.0)
        best = _forward(side, np.abs(origins[:, 2] + finite * directions[:, 2]) <= self.half_length)
        for end in (-self.half_length, self.half_length):
            best = np.minimum(best, Sphere().hit(origins - (0.0, 0.0, end), directions))
        return best

    def normal(self, points: Points) -> Points:
        axis = np.clip(points[:, 2], -self.half_length, self.half_length)
        return points - np.stack([np.zeros_like(axis), np.zeros_like(axis), axis], axis=-1)


@dataclass(frozen=True)
class Torus:
    """A ring around the z axis: a tube of radius `tube` around the unit circle."""

    tube: float = 0.35
    """Radius of the tube, below 1."""

    @property
    def bound(self) -> float:
        return 1.0 + self.tube

    def hit(self, origins: Points, directions: Points) -> Distances:
        # Unit directions, and the origin moved to the point closest to the centre: s^4 + c2 s^2 + c1 s + c0 = 0.
        lengths = np.sqrt(_square(directions))
        d = directions / lengths[:, None]
        shift = _dot(origins, d)
        o = origins - shift[:, None] * d
        k = _square(o) + 1.0 - self.tube**2
        c2 = 2 * k - 4 * _square(d[:, :2])
        c1 = -8 * _dot(o[:, :2], d[:, :2])
        c0 = k * k - 4 * _square(o[:, :2])

        def quartic(s: np.ndarray) -> np.ndarray:
            return ((s * s + c2[:, None]) * s + c1[:, None]) * s + c0[:, None]

        # Between its stationary points the quartic is monotone, so signs at those points bracket every root.
        ends = np.full((len(o), 1), self.bound + 1e-3)
        nodes = np.concatenate([-ends, np.clip(_cubic_roots(c2 / 2, c1 / 4), -ends, ends), ends], axis=-1)
        values = quartic(nodes)
        enters = (values[:, :-1] > 0) & (values[:, 1:] < 0)
        first = enters.argmax(axis=-1)[:, None]
        low = np.take_along_axis(nodes, first, axis=-1)
        high = np.take_along_axis(nodes, first + 1, axis=-1)
        for _ in range(44):
            middle = (low + high) / 2
            outside = quartic(middle) > 0
            low, high = np.where(outside, middle, low), np.where(outside, high, middle)
        return _forward((low[:, 0] - shift) / lengths, np.any(enters, axis=-1))

    def normal(self, points: Points) -> Points:
        radius = np.sqrt(_square(points[:, :2]))[:, None]
        centre = np.concatenate([points[:, :2] / np.maximum(radius, 1e-12), np.zeros_like(radius)], axis=-1)
        return points - centre


def _cubic_roots(p: Distances, q: Distances) -> Float[np.ndarray, "n 3"]:
    """Real roots of s^3 + p s + q = 0 in rising order; a single root is given three times."""
    discriminant = q * q / 4 + p**3 / 27
    root = np.sqrt(np.maximum(discriminant, 0.0))
    single = np.cbrt(-q / 2 + root) + np.cbrt(-q / 2 - root)
    size = 2 * np.sqrt(np.maximum(-p, 1e-30) / 3)
    angle = np.arccos(np.clip(3 * q / (np.minimum(p, -1e-30) * size), -1.0, 1.0)) / 3
    three = size[:, None] * np.cos(angle[:, None] - 2 * np.pi * np.arange(3) / 3)
    return np.sort(np.where((discriminant > 0)[:, None], single[:, None], three), axis=-1)
