"""Static scenes of many kinds for generalisable models: things in a ring of cameras, in front of them, or in a room.

Cameras, distances, clutter, thin things and textures differ from seed to seed far more than those of `static`.
"""

import colorsys
from dataclasses import replace

import numpy as np

from semfield_ns.scenes.synthetic import textures as tx
from semfield_ns.scenes.synthetic.cameras import ArcPath, CameraPath, Intrinsics, WavingPath
from semfield_ns.scenes.synthetic.motion import Motion, rotation_about
from semfield_ns.scenes.synthetic.scene import SceneObject
from semfield_ns.scenes.synthetic.shapes import Box, Capsule, Cone, Cylinder, Plane, Shape, Sphere, Torus

SHAPES: dict[str, Shape] = {
    "ball": Sphere(),
    "box": Box(),
    "cylinder": Cylinder(),
    "cone": Cone(),
    "ring": Torus(tube=0.35),
    "capsule": Capsule(half_length=1.0),
}
_STICK = Capsule(half_length=12.0)
_AXIS = (0.0, 0.0, 1.0)
_HELD_OUT = (0.28, 0.71)


def varied_scene(
    seed: int, width: int, height: int
) -> tuple[tuple[SceneObject, ...], CameraPath, Intrinsics, tuple[tuple[float, tuple[float, float, float]], ...]]:
    """Objects, path, camera and held-out places of a scene of one of the three kinds.

    Args:
        seed: of everything.
        width: of a picture, pixels.
        height: of a picture, pixels.
    """
    rng = np.random.default_rng([seed, 4])
    make = (_ring, _ring, _front, _front, _room)[int(rng.integers(5))]
    objects, path = make(rng)
    camera = Intrinsics.centred(width, height, float(rng.uniform(0.75, 1.3)))
    numbered = tuple(replace(thing, instance=k + 1) for k, thing in enumerate(t for t in objects if t.instance))
    scene = (*(thing for thing in objects if not thing.instance), *numbered)
    held_out = tuple((u, (0.0, 0.0, float(rng.uniform(-0.05, 0.05)))) for u in _HELD_OUT)
    return scene, path, camera, held_out


def _ring(rng: np.random.Generator) -> tuple[list[SceneObject], CameraPath]:
    """A few things close together, seen from a good part of all sides, or from all."""
    things = _heap(rng, int(rng.integers(1, 7)), spread=float(rng.uniform(0.3, 1.1)))
    radius = float(rng.uniform(2.8, 4.5))
    kind = rng.random()
    if kind < 0.6:
        things += _ground(rng) + _walls(rng, float(rng.uniform(1.3, 3.0)) * radius)
    elif kind < 0.85:  # and nothing behind it
        things.append(_table(rng, float(rng.uniform(1.2, 2.0))))
    sweep = float(rng.uniform(1.2, 2 * np.pi * 0.95))
    path = ArcPath(
        target=(0.0, 0.0, float(rng.uniform(0.3, 0.9))),
        radius=radius,
        height=float(rng.uniform(0.7, 3.0)),
        sweep=sweep,
        height_wave=float(rng.uniform(0.1, 0.6)),
    )
    return things, path


def _front(rng: np.random.Generator) -> tuple[list[SceneObject], CameraPath]:
    """Things at many depths in front of cameras that look the same way; sometimes a plant in front of it all."""
    things: list[SceneObject] = []
    far = float(rng.uniform(2.5, 7.0))
    for _ in range(int(rng.integers(5, 14))):
        y = float(rng.uniform(-0.8, far - 0.7))
        place = (float(rng.uniform(-1.2, 1.2)) * (1 + 0.35 * (y + 1)), y, float(rng.uniform(0.1, 1.9)))
        things.append(_thing(rng, place, float(rng.uniform(0.2, 0.6)), floating=rng.random() < 0.3))
    if rng.random() < 0.5:
        place = (float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.9, 1.0)), float(rng.uniform(0.0, 0.6)))
        things += _plant(rng, place, float(rng.uniform(0.7, 1.5)))
    if rng.random() < 0.8:
        things += _ground(rng)
    things += [_wall(rng, 0.0, far)]
    path = WavingPath(
        target=(0.0, float(rng.uniform(0.0, far)), float(rng.uniform(0.7, 1.2))),
        distance=float(rng.uniform(3.0, 4.5)),
        height=float(rng.uniform(0.9, 1.7)),
        width=float(rng.uniform(0.35, 1.2)),
        rise=float(rng.uniform(0.15, 0.5)),
        waves=float(rng.uniform(1.5, 3.5)),
        follow=float(rng.uniform(0.2, 1.0)),
    )
    return things, path


def _room(rng: np.random.Generator) -> tuple[list[SceneObject], CameraPath]:
    """A room with things along its walls and in its middle, seen along an arc."""
    size = float(rng.uniform(2.6, 3.6))
    things = _ground(rng) + _walls(rng, size)[:3]
    for _ in range(int(rng.integers(6, 14))):
        place = (float(rng.uniform(-0.8, 0.8)) * size, float(rng.uniform(-0.5, 0.9)) * size, 0.0)
        things.append(_thing(rng, place, float(rng.uniform(0.25, 0.6)), floating=False))
    if rng.random() < 0.5:
        things += _plant(rng, (float(rng.uniform(-1, 1)), float(rng.uniform(0, 1.5)), 0.0), 1.2)
    path = ArcPath(
        target=(float(rng.uniform(-0.3, 0.3)), float(rng.uniform(0.0, 0.8)), float(rng.uniform(0.4, 1.0))),
        radius=float(rng.uniform(3.2, 4.2)),
        height=float(rng.uniform(1.0, 2.2)),
        sweep=float(rng.uniform(0.4, 1.2)),
        height_wave=float(rng.uniform(0.1, 0.5)),
    )
    return things, path


def _heap(rng: np.random.Generator, count: int, spread: float) -> list[SceneObject]:
    """Things on the ground around the origin, which may touch; sometimes one on top or a plant."""
    things = []
    for _ in range(count):
        place = (float(rng.normal(0, spread)), float(rng.normal(0, spread)), 0.0)
        things.append(_thing(rng, place, float(rng.uniform(0.3, 0.8)), floating=False))
    if rng.random() < 0.5:
        things.append(_thing(rng, (0.0, 0.0, float(rng.uniform(0.9, 1.5))), 0.35, floating=True))
    if rng.random() < 0.25:
        things += _plant(rng, (float(rng.normal(0, 0.3)), float(rng.normal(0, 0.3)), 0.0), 1.0)
    return things


def _thing(rng: np.random.Generator, place: tuple[float, float, float], size: float, floating: bool) -> SceneObject:
    """An object of any shape, stretched and turned; it stands on the ground unless it floats."""
    kind = str(rng.choice(list(SHAPES)))
    half = size * rng.uniform(0.5, 1.3, 3)
    if kind in ("capsule", "ring"):
        half = np.full(3, size * float(rng.uniform(0.4, 0.8)))
    tilt = float(rng.uniform(0, np.pi)) if floating or rng.random() < 0.25 else 0.0
    axis = (float(rng.normal()), float(rng.normal()), 0.2)
    lowest = float(half[2]) * (2.0 if kind == "capsule" else 0.35 if kind == "ring" else 1.0)
    z = place[2] if floating else lowest if tilt == 0 else float(half.max())
    motion = Motion(
        waypoints=((place[0], place[1], z),),
        size=(float(half[0]), float(half[1]), float(half[2])),
        tilt_axis=axis,
        tilt=tilt,
        spin_axis=_AXIS,
    )
    turned = np.eye(4)
    turned[:3, :3] = rotation_about(_AXIS, float(rng.uniform(0, 2 * np.pi)))
    centre = np.array([place[0], place[1], 0.0])
    turned[:3, 3] = centre - turned[:3, :3] @ centre
    return SceneObject(kind, kind, 1, SHAPES[kind], _texture(rng), motion, tuple(map(tuple, turned.tolist())))


def _plant(rng: np.random.Generator, foot: tuple[float, float, float], size: float) -> list[SceneObject]:
    """Thin stems that spread from one place, with leaves at their ends."""
    hue = float(rng.uniform(0.18, 0.45))
    stems = []
    for _ in range(int(rng.integers(5, 13))):
        around, lean = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.1, 1.1))
        axis = (-np.sin(around), np.cos(around), 0.0)
        direction = rotation_about(axis, lean) @ np.array([0.0, 0.0, 1.0])
        length = size * float(rng.uniform(0.5, 1.0))
        thick = length / 24 * float(rng.uniform(0.5, 1.2))
        centre = np.array(foot) + direction * length / 2
        leaf = _natural(rng, hue)
        stems.append(
            SceneObject(
                "capsule",
                "capsule",
                1,
                _STICK,
                leaf,
                Motion(
                    waypoints=(tuple(centre.tolist()),),
                    size=(thick, thick, length / 26),
                    tilt_axis=axis,
                    tilt=lean,
                ),
            )
        )
        end = np.array(foot) + direction * length
        wide = size * float(rng.uniform(0.06, 0.2))
        stems.append(
            SceneObject(
                "ball",
                "ball",
                1,
                SHAPES["ball"],
                leaf,
                Motion(
                    waypoints=(tuple(end.tolist()),),
                    size=(wide, 0.2 * wide, 1.6 * wide),
                    tilt_axis=(float(rng.normal()), float(rng.normal()), 0.3),
                    tilt=float(rng.uniform(0, np.pi)),
                ),
            )
        )
    return stems


def _ground(rng: np.random.Generator) -> list[SceneObject]:
    hue, seed = float(rng.uniform()), int(rng.integers(2**31))
    plain = tx.Tiles(_color(hue, 0.3, 0.85), _color(hue + 0.1, 0.4, 0.5), size=float(rng.uniform(0.4, 1.2)), seed=seed)
    texture = tx.Mottled(plain, 0.2, 1.5, seed) if rng.random() < 0.4 else _natural(rng, hue)
    return [SceneObject("floor", "ground", 0, Plane(), texture)]


def _table(rng: np.random.Generator, radius: float) -> SceneObject:
    """A round top whose surface is at z = 0."""
    motion = Motion(waypoints=((0.0, 0.0, -0.05),), size=(radius, radius, 0.05))
    return SceneObject("table", "ground", 0, SHAPES["cylinder"], _natural(rng, float(rng.uniform())), motion)


def _walls(rng: np.random.Generator, distance: float) -> list[SceneObject]:
    """Walls on four sides of the origin: behind, left, right, and where arcs begin."""
    return [_wall(rng, angle, distance) for angle in (0.0, np.pi / 2, -np.pi / 2, np.pi)]


def _wall(rng: np.random.Generator, angle: float, distance: float) -> SceneObject:
    """An endless upright plane at a distance from the origin that faces it; angle 0 lies at y > 0."""
    hue, seed = float(rng.uniform()), int(rng.integers(2**31))
    kind = rng.random()
    texture: tx.Texture = _natural(rng, hue)
    if kind < 0.3:
        texture = tx.Bricks(_color(hue, 0.4, 0.7), _color(hue, 0.15, 0.9), seed=seed)
    elif kind < 0.5:
        texture = tx.Panels(_color(hue, 0.2, 0.95), _color(hue, 0.35, 0.75), _color(hue + 0.1, 0.4, 0.5), seed=seed)
    elif kind < 0.6:  # nothing on it
        texture = tx.Fractal((_color(hue, 0.1, 0.8), _color(hue, 0.1, 0.88)), 0.2, 2, seed=seed)
    turned = np.eye(4)
    turned[:3, :3] = rotation_about(_AXIS, angle)
    upright = Motion(waypoints=((0.0, distance, 0.0),), tilt_axis=(1.0, 0.0, 0.0), tilt=np.pi / 2)
    return SceneObject("wall", "wall", 0, Plane(), texture, upright, tuple(map(tuple, turned.tolist())))


def _color(hue: float, saturation: float, value: float) -> tx.Color:
    return colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))


def _natural(rng: np.random.Generator, hue: float) -> tx.Texture:
    """Irregular patches in two to four related colours, muted or not, coarse or fine."""
    saturation = float(rng.uniform(0.05, 0.75))
    colors = tuple(
        _color(hue + float(rng.normal(0, 0.06)), saturation * float(rng.uniform(0.5, 1.3)), float(value))
        for value in rng.permutation(np.linspace(rng.uniform(0.1, 0.5), rng.uniform(0.6, 1.0), int(rng.integers(2, 5))))
    )
    return tx.Fractal(
        colors,
        frequency=float(np.exp(rng.uniform(np.log(0.25), np.log(1.6)))),
        octaves=int(rng.integers(2, 6)),
        roughness=float(rng.uniform(0.45, 0.8)),
        contrast=float(rng.uniform(0.6, 2.0)),
        seed=int(rng.integers(2**31)),
    )


def _texture(rng: np.random.Generator) -> tx.Texture:
    """Of a thing: natural, one of the patterns, or a pattern that is mottled."""
    hue, seed = float(rng.uniform()), int(rng.integers(2**31))
    if rng.random() < 0.5:
        return _natural(rng, hue)
    strong, pale = _color(hue, rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)), _color(hue + 0.1, 0.3, 0.92)
    other = _color(hue + rng.uniform(0.2, 0.6), 0.6, 0.7)
    patterns: list[tx.Texture] = [
        tx.Bands((strong, pale, other), float(rng.uniform(1.5, 4.0)), wave=float(rng.uniform(0.0, 0.2))),
        tx.Spots(strong, pale, float(rng.uniform(0.8, 1.8))),
        tx.Sectors((strong, pale), int(2 * rng.integers(2, 5)), float(rng.uniform(-1.5, 1.5))),
        tx.Crate(strong, other, int(rng.integers(3, 6)), seed),
        tx.BeachBall((strong, pale, other)),
        tx.Fractal((strong, strong), 1.0, 1, seed=seed),  # one colour
    ]
    chosen = patterns[int(rng.integers(len(patterns)))]
    return (
        tx.Mottled(chosen, float(rng.uniform(0.05, 0.3)), float(rng.uniform(1, 4)), seed)
        if rng.random() < 0.5
        else chosen
    )
