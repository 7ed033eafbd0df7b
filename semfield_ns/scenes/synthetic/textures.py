"""Solid textures: colours as smooth functions of material coordinates, so that they stick to an object as it deforms.

Each is a small frozen dataclass called with points [n, 3] and answering with albedo [n, 3] in [0, 1]. Edges between
colours are soft, and the finest detail is some pixels wide at the default size: a small radiance field can learn it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "n 3"]
Albedo = Float[np.ndarray, "n 3"]
Texture = Callable[[Points], Albedo]
Color = tuple[float, float, float]


def soft_step(values: np.ndarray, softness: float) -> np.ndarray:
    """0 below zero, 1 above, with a smooth passage of half-width `softness`."""
    x = np.clip(values / (2 * softness) + 0.5, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def blend(a: Color, b: Color, weight: np.ndarray) -> Albedo:
    """A where weight is 0, b where it is 1."""
    start, end = np.array(a), np.array(b)
    return start + weight[:, None] * (end - start)


def ripple(points: Points, frequency: float, seed: int, waves: int = 4) -> np.ndarray:
    """A smooth random pattern in about [-1, 1] with `frequency` periods a unit, fixed by the seed."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(waves, 3))
    directions *= frequency * rng.uniform(0.6, 1.4, (waves, 1)) / np.linalg.norm(directions, axis=-1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, waves)
    return np.sin(2 * np.pi * points @ directions.T + phases).sum(axis=-1) / np.sqrt(2.0 * waves)


@dataclass(frozen=True)
class Ripples:
    """Two colours in slow, irregular waves."""

    light: Color
    dark: Color
    frequency: float = 0.6
    seed: int = 0

    def __call__(self, points: Points) -> Albedo:
        return blend(self.light, self.dark, 0.5 + 0.5 * np.tanh(1.2 * ripple(points, self.frequency, self.seed)))


@dataclass(frozen=True)
class Tiles:
    """Square tiles in the xy plane, two colours like a chess board, each a little mottled."""

    light: Color
    dark: Color
    size: float = 0.9
    softness: float = 0.05
    seed: int = 0

    def __call__(self, points: Points) -> Albedo:
        waves = np.sin(np.pi * points[:, :2] / self.size)
        board = soft_step(waves[:, 0] * waves[:, 1], self.softness)
        mottle = 1.0 + 0.07 * ripple(points, 0.9, self.seed)
        return blend(self.light, self.dark, board) * mottle[:, None]


@dataclass(frozen=True)
class Bricks:
    """Courses of bricks in the xy plane (y is up), shifted by half a brick from course to course, of uneven colour."""

    brick: Color
    mortar: Color
    length: float = 1.1
    height: float = 0.5
    joint: float = 0.08
    seed: int = 0

    def __call__(self, points: Points) -> Albedo:
        course = np.floor(points[:, 1] / self.height)
        along = points[:, 0] / self.length + 0.5 * (course % 2)
        x = self.length * (0.5 - np.abs(along - np.floor(along) - 0.5))
        y = self.height * (0.5 - np.abs(points[:, 1] / self.height - course - 0.5))
        inside = soft_step(np.minimum(x, y) - self.joint / 2, self.joint / 2)
        centres = np.stack([np.floor(along) * 1.7, course * 2.3, np.zeros_like(course)], axis=-1)
        shade = 1.0 + 0.11 * ripple(centres, 0.37, self.seed) + 0.07 * ripple(points, 0.5, self.seed + 1)
        return np.clip(blend(self.mortar, self.brick, inside) * shade[:, None], 0.0, 1.0)


@dataclass(frozen=True)
class Panels:
    """Upright stripes along x in the xy plane (y is up), with a darker skirting up to `skirting`."""

    light: Color
    dark: Color
    skirt: Color
    width: float = 0.8
    skirting: float = 0.45
    seed: int = 0

    def __call__(self, points: Points) -> Albedo:
        stripe = soft_step(np.sin(np.pi * points[:, 0] / self.width), 0.25)
        wall = blend(self.light, self.dark, stripe) * (1.0 + 0.08 * ripple(points, 0.5, self.seed))[:, None]
        lower = soft_step(self.skirting - points[:, 1], 0.03)[:, None]
        return np.clip(wall + lower * (np.array(self.skirt) - wall), 0.0, 1.0)


@dataclass(frozen=True)
class BeachBall:
    """Sectors around the z axis in turn of each colour, with white caps at the poles."""

    colors: tuple[Color, ...]
    sectors: int = 6
    cap: float = 0.9

    def __call__(self, points: Points) -> Albedo:
        turn = np.arctan2(points[:, 1], points[:, 0]) * self.sectors / (2 * np.pi)
        sector = np.floor(turn)
        table = np.array(self.colors)
        here, following = (table[(sector + k).astype(int) % self.sectors % len(table)] for k in (0, 1))
        # The last tenth of a sector passes into the next one.
        weight = soft_step(turn - sector - 0.95, 0.05)[:, None]
        albedo = here + weight * (following - here)
        height = np.abs(points[:, 2]) / np.maximum(np.linalg.norm(points, axis=-1), 1e-9)
        cap = soft_step(height - self.cap, 0.03)[:, None]
        return albedo + cap * (0.95 - albedo)


@dataclass(frozen=True)
class Crate:
    """Planks within a frame, on every face of the cube [-1, 1]^3."""

    plank: Color
    frame: Color
    planks: int = 4
    seed: int = 0

    def __call__(self, points: Points) -> Albedo:
        x, y, z = points.T
        on_top = np.abs(z) >= np.maximum(np.abs(x), np.abs(y))
        across = np.where(on_top, x, z) * self.planks / 2
        gap = soft_step(np.abs(across - np.floor(across) - 0.5) - 0.40, 0.08)
        grain = ripple(points * (0.6, 0.6, 2.0), 0.8, self.seed)
        wood = np.array(self.plank) * (1.0 + 0.10 * grain - 0.45 * gap)[:, None]
        # Of the three distances from the centre the largest is the face's, so the middle one tells the nearest edge.
        edge = soft_step(np.sort(np.abs(points), axis=-1)[:, 1] - 0.74, 0.05)[:, None]
        return np.clip(wood + edge * (np.array(self.frame) * (1.0 + 0.06 * grain)[:, None] - wood), 0.0, 1.0)


@dataclass(frozen=True)
class Bands:
    """Colours in turn along one axis of the material, their borders waving around it."""

    colors: tuple[Color, ...]
    bands: float = 2.5
    axis: int = 2
    wave: float = 0.12
    softness: float = 0.1

    def __call__(self, points: Points) -> Albedo:
        others = [k for k in range(3) if k != self.axis]
        angle = np.arctan2(points[:, others[1]], points[:, others[0]])
        position = self.bands * (points[:, self.axis] + self.wave * np.sin(5 * angle))
        table = np.array(self.colors)
        band = np.floor(position)
        here, following = (table[(band + k).astype(int) % len(table)] for k in (0, 1))
        weight = soft_step(position - band - 1 + self.softness, self.softness)[:, None]
        return here + weight * (following - here)


@dataclass(frozen=True)
class Spots:
    """Round spots on a plain ground, in a cubic lattice through the material."""

    ground: Color
    spot: Color
    frequency: float = 1.1
    level: float = 0.35

    def __call__(self, points: Points) -> Albedo:
        waves = np.cos(2 * np.pi * self.frequency * points + (0.4, 1.1, 2.0))
        return blend(self.ground, self.spot, soft_step(waves.mean(axis=-1) - self.level, 0.12))


@dataclass(frozen=True)
class Sectors:
    """Colours in turn around the z axis, winding along it: for rings, poles and columns."""

    colors: tuple[Color, ...]
    sectors: int = 8
    twist: float = 1.0

    def __call__(self, points: Points) -> Albedo:
        turn = np.arctan2(points[:, 1], points[:, 0]) * self.sectors / (2 * np.pi) + self.twist * points[:, 2]
        table = np.array(self.colors)
        sector = np.floor(turn)
        here, following = (table[(sector + k).astype(int) % self.sectors % len(table)] for k in (0, 1))
        return here + soft_step(turn - sector - 0.9, 0.1)[:, None] * (following - here)


@dataclass(frozen=True)
class Fractal:
    """Colours in irregular patches with finer and finer detail, as in stone, bark, leaves and clouds."""

    colors: tuple[Color, ...]
    """From where the pattern is lowest to where it is highest; at least two."""
    frequency: float = 0.6
    """Periods a unit of the coarsest pattern."""
    octaves: int = 4
    """Patterns, each of twice the frequency of the one before."""
    roughness: float = 0.6
    """Amplitude of a pattern relative to that of the one before."""
    contrast: float = 1.5
    seed: int = 0

    def __call__(self, points: Points) -> Albedo:
        total = np.zeros(len(points))
        for octave in range(self.octaves):
            waves = ripple(points, self.frequency * 2.0**octave, self.seed + octave, waves=6)
            total += self.roughness**octave * waves
        place = (0.5 + 0.5 * np.tanh(self.contrast * total)) * (len(self.colors) - 1)
        below = np.minimum(place.astype(int), len(self.colors) - 2)
        table = np.array(self.colors)
        return table[below] + (place - below)[:, None] * (table[below + 1] - table[below])


@dataclass(frozen=True)
class Mottled:
    """Another texture, lighter and darker in irregular patches."""

    texture: Texture
    amount: float = 0.2
    frequency: float = 2.0
    seed: int = 0

    def __call__(self, points: Points) -> Albedo:
        shade = ripple(points, self.frequency, self.seed, waves=6) + 0.6 * ripple(
            points, 2 * self.frequency, self.seed + 1, waves=6
        )
        return np.clip(self.texture(points) * (1 + self.amount * shade)[:, None], 0.0, 1.0)
