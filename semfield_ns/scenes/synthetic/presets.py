"""The named scenes, functions of seed, clip length and picture size; the seed moves colours, patterns and places."""

import colorsys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.labels import SemanticClass
from semfield_ns.scenes.synthetic import textures as tx
from semfield_ns.scenes.synthetic.cameras import ArcPath, Intrinsics
from semfield_ns.scenes.synthetic.motion import Motion, Vector
from semfield_ns.scenes.synthetic.scene import AnalyticScene, SceneObject
from semfield_ns.scenes.synthetic.shapes import Box, Capsule, Cone, Cylinder, Plane, Shape, Sphere, Torus
from semfield_ns.scenes.synthetic.varied import varied_scene

MOVING_CLASSES = (
    SemanticClass("wall", (176, 190, 197), False),
    SemanticClass("ground", (121, 85, 72), False),
    SemanticClass("pillar", (255, 202, 40), False),
    SemanticClass("ball", (229, 57, 53), True),
    SemanticClass("crate", (67, 160, 71), True),
    SemanticClass("balloon", (94, 53, 177), True),
)
"""Classes that all dynamic presets share, in this order, so that a model may learn from one and meet another."""
ROD = SemanticClass("rod", (0, 172, 193), True)
STILL_CLASSES = (
    SemanticClass("wall", (176, 190, 197), False),
    SemanticClass("ground", (121, 85, 72), False),
    SemanticClass("ball", (229, 57, 53), False),
    SemanticClass("box", (67, 160, 71), False),
    SemanticClass("cylinder", (255, 202, 40), False),
    SemanticClass("cone", (251, 140, 0), False),
    SemanticClass("ring", (216, 27, 96), False),
    SemanticClass("capsule", (94, 53, 177), False),
)
"""Classes of every static scene, whatever its seed."""

HELD_OUT = ((0.15, (0.0, 0.0, 0.0)), (0.38, (0.0, 0.1, 0.14)), (0.63, (0.0, 0.0, 0.0)), (0.85, (0.0, 0.12, -0.12)))
WHITE = (0.95, 0.94, 0.9)


def _hsv(hue: float, saturation: float, value: float) -> tx.Color:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _wall(name: str, foot: Vector, angle: float, texture: tx.Texture) -> SceneObject:
    """An endless upright plane through `foot`; its texture has x along the wall and y up. Angle 0 faces -y."""
    to_upright = Motion(waypoints=(foot,), tilt_axis=(1.0, 0.0, 0.0), tilt=np.pi / 2, spin_axis=(0.0, 0.0, 1.0))
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    centre = np.array([*foot[:2], 0.0])
    turned[:3, 3] = centre - turned[:3, :3] @ centre
    return SceneObject(name, "wall", 0, Plane(), texture, to_upright, tuple(map(tuple, turned.tolist())))


def _room(rng: np.random.Generator, depth: float, half_width: float, hue: float) -> tuple[SceneObject, ...]:
    """Floor, back wall at y = depth and side walls at x = +-half_width. Hue colours the walls."""
    seeds = [int(s) for s in rng.integers(0, 2**31, 4)]
    floor = tx.Tiles(_hsv(0.09, 0.22, 0.86), _hsv(0.07, 0.42, 0.56), seed=seeds[0])
    back = tx.Bricks(_hsv(hue, 0.36, 0.76), _hsv(hue + 0.04, 0.16, 0.88), seed=seeds[1])
    left, right = (
        tx.Panels(_hsv(hue + shift, 0.16, 0.97), _hsv(hue + shift, 0.32, 0.84), _hsv(hue + shift, 0.4, 0.6), seed=seed)
        for shift, seed in ((0.08, seeds[2]), (0.56, seeds[3]))
    )
    return (
        SceneObject("floor", "ground", 0, Plane(), floor),
        _wall("back wall", (0.0, depth, 0.0), 0.0, back),
        _wall("left wall", (-half_width, 0.0, 0.0), np.pi / 2, left),
        _wall("right wall", (half_width, 0.0, 0.0), -np.pi / 2, right),
    )


def _jitter(rng: np.random.Generator, points: tuple[Vector, ...], amount: float = 0.06) -> tuple[Vector, ...]:
    """The waypoints, all shifted by one small random step along the floor."""
    dx, dy = rng.uniform(-amount, amount, 2)
    return tuple((x + dx, y + dy, z) for x, y, z in points)


def _moving_scene(
    name: str, seed: int, objects: tuple[SceneObject, ...], num_frames: int, width: int, height: int, path: ArcPath
) -> AnalyticScene:
    """A dynamic scene whose motions last exactly as long as the clip."""
    duration = float(max(num_frames - 1, 1))
    timed = tuple(replace(o, motion=replace(o.motion, duration=duration)) for o in objects)
    classes = MOVING_CLASSES + ((ROD,) if any(o.class_name == ROD.name for o in objects) else ())
    camera = Intrinsics.centred(width, height, 0.85)
    return AnalyticScene(name, seed, classes, timed, camera, path, num_frames, HELD_OUT)


def _ball(instance: int, motion: Motion, hue: float) -> SceneObject:
    texture = tx.BeachBall((_hsv(hue, 0.8, 0.9), WHITE, _hsv(hue + 0.13, 0.7, 0.95)))
    return SceneObject("ball", "ball", instance, Sphere(), texture, motion)


def _crate(instance: int, motion: Motion, hue: float, seed: int) -> SceneObject:
    texture = tx.Crate(_hsv(hue, 0.55, 0.78), _hsv(hue - 0.02, 0.65, 0.5), seed=seed)
    return SceneObject("crate", "crate", instance, Box(), texture, motion)


def _balloon(instance: int, motion: Motion, hue: float) -> SceneObject:
    texture = tx.Bands((_hsv(hue, 0.65, 0.85), _hsv(hue + 0.14, 0.5, 0.95), WHITE), bands=3.0)
    return SceneObject("balloon", "balloon", instance, Sphere(), texture, motion)


def _pillar(instance: int, place: tuple[float, float], radius: float, height: float, hue: float) -> SceneObject:
    texture = tx.Sectors((_hsv(hue, 0.5, 0.9), _hsv(hue + 0.03, 0.65, 0.62)), sectors=6, twist=2.0)
    motion = Motion(waypoints=((*place, height / 2),), size=(radius, radius, height / 2))
    return SceneObject("pillar", "pillar", instance, Cylinder(), texture, motion)


def demo(seed: int, num_frames: int, width: int, height: int) -> AnalyticScene:
    """A bouncing ball in front, a turning crate behind, a breathing balloon above, two pillars between them."""
    rng = np.random.default_rng([seed, 1])
    shift = rng.uniform(-0.02, 0.02, 3) if seed else np.zeros(3)
    ball = Motion(
        waypoints=_jitter(rng, ((-1.55, -0.9, 0.62), (-0.5, -1.05, 0.85), (0.45, -1.0, 0.58), (1.45, -0.75, 0.8))),
        size=(0.52, 0.52, 0.52),
        tilt_axis=(1.0, 0.3, 0.0),
        tilt=0.5,
        spin_axis=(0.15, 1.0, 0.1),
        spin=3.4,
        pulse=(0.05, 0.05, -0.09),
    )
    crate = Motion(
        waypoints=_jitter(rng, ((1.75, 1.05, 0.66), (0.55, 1.25, 0.66), (-0.75, 1.15, 0.66))),
        size=(0.62, 0.62, 0.62),
        tilt=0.35,
        spin=1.5,
        pulse=(-0.07, 0.07, 0.07),
        pulse_cycles=1.5,
    )
    balloon = Motion(
        waypoints=_jitter(rng, ((-1.5, 0.7, 2.0), (-0.3, 0.75, 2.2), (1.1, 0.8, 2.0))),
        size=(0.5, 0.5, 0.62),
        tilt_axis=(0.0, 1.0, 0.0),
        tilt=0.2,
        spin=-1.3,
        sway=(0.0, 0.0, 0.1),
        sway_cycles=2.0,
        pulse=(0.18, 0.18, -0.16),
    )
    objects = (
        *_room(rng, 2.7, 3.5, 0.56 + shift[0]),
        _pillar(1, (1.25, 0.1), 0.26, 2.3, 0.12),
        _pillar(2, (-2.3, 1.6), 0.36, 1.2, 0.45),
        _ball(3, ball, 0.0 + shift[1]),
        _crate(4, crate, 0.09, int(rng.integers(2**31))),
        _balloon(5, balloon, 0.76 + shift[2]),
    )
    path = ArcPath(target=(0.0, 0.35, 0.95), radius=4.9, height=1.65, sweep=0.5)
    return _moving_scene("demo", seed, objects, num_frames, width, height, path)


def demo_b(seed: int, num_frames: int, width: int, height: int) -> AnalyticScene:
    """The classes of `demo` in another room: other colours, places and motions, and a second ball."""
    rng = np.random.default_rng([seed, 2])
    shift = rng.uniform(-0.02, 0.02, 3) if seed else np.zeros(3)
    crate = Motion(
        waypoints=_jitter(rng, ((-1.6, -0.65, 0.5), (-0.65, -0.9, 0.5), (0.3, -0.75, 0.5))),
        size=(0.46, 0.46, 0.46),
        tilt=-0.4,
        spin=-1.3,
        pulse=(0.08, -0.08, 0.08),
    )
    big_ball = Motion(
        waypoints=_jitter(rng, ((1.5, 0.5, 0.66), (0.5, 0.8, 0.9), (-0.5, 0.95, 0.66), (-1.4, 0.8, 0.85))),
        size=(0.6, 0.6, 0.6),
        tilt_axis=(1.0, 0.0, 0.2),
        tilt=-0.6,
        spin_axis=(0.0, 1.0, 0.2),
        spin=-2.6,
        pulse=(-0.06, 0.06, 0.06),
    )
    small_ball = Motion(
        waypoints=_jitter(rng, ((2.0, -0.9, 0.32), (1.5, -0.45, 0.55), (1.75, 0.1, 0.32))),
        size=(0.3, 0.3, 0.3),
        spin_axis=(1.0, 0.2, 0.0),
        spin=2.5,
    )
    balloon = Motion(
        waypoints=_jitter(rng, ((1.1, -0.1, 1.8), (0.3, 0.0, 1.65), (-0.8, -0.1, 1.9))),
        size=(0.52, 0.44, 0.52),
        spin=1.7,
        sway=(0.0, 0.1, 0.08),
        pulse=(-0.15, 0.15, 0.17),
        pulse_cycles=1.5,
    )
    objects = (
        *_room(rng, 2.5, 3.3, 0.96 + shift[0]),
        _pillar(1, (-1.5, 1.75), 0.3, 2.6, 0.55),
        _pillar(2, (2.3, 1.2), 0.4, 0.9, 0.3),
        _crate(3, crate, 0.13, int(rng.integers(2**31))),
        _ball(4, big_ball, 0.6 + shift[1]),
        _ball(5, small_ball, 0.33),
        _balloon(6, balloon, 0.88 + shift[2]),
    )
    path = ArcPath(target=(0.0, 0.3, 0.9), radius=4.8, height=1.45, sweep=-0.5, height_wave=-0.1)
    return _moving_scene("demo-b", seed, objects, num_frames, width, height, path)


def fast(seed: int, num_frames: int, width: int, height: int) -> AnalyticScene:
    """`demo` with a ball that crosses the picture three times, by more than its radius from frame to frame."""
    scene = demo(seed, num_frames, width, height)
    turns = ((-1.8, -0.9, 0.7), (1.7, -0.7, 1.1), (-1.7, -0.9, 0.6), (1.8, -0.8, 0.9))
    ball = next(o for o in scene.objects if o.class_name == "ball")
    quick = replace(ball, motion=replace(ball.motion, waypoints=turns, size=(0.4, 0.4, 0.4), spin=7.0))
    objects = tuple(quick if o.instance == ball.instance else o for o in scene.objects)
    return replace(scene, name="fast", objects=objects)


def thin(seed: int, num_frames: int, width: int, height: int) -> AnalyticScene:
    """`demo` with a thin rod, about two pixels wide at the default size, that swings in front of everything."""
    scene = demo(seed, num_frames, width, height)
    motion = Motion(
        waypoints=((0.55, -1.7, 1.05), (0.05, -1.75, 1.1), (-0.5, -1.7, 1.05)),
        size=(0.03, 0.03, 0.03),
        tilt_axis=(0.0, 1.0, 0.0),
        tilt=0.25,
        spin_axis=(0.0, 1.0, 0.0),
        swing=0.6,
        duration=float(max(num_frames - 1, 1)),
    )
    texture = tx.Bands((_hsv(0.5, 0.75, 0.7), WHITE), bands=0.14, wave=0.0)
    rod = SceneObject(ROD.name, ROD.name, 6, Capsule(half_length=24.0), texture, motion)
    return replace(scene, name="thin", classes=(*MOVING_CLASSES, ROD), objects=(*scene.objects, rod))


RING = Torus(tube=0.35)
STILL_SHAPES: dict[str, Shape] = {
    "ball": Sphere(),
    "box": Box(),
    "cylinder": Cylinder(),
    "cone": Cone(),
    "ring": RING,
    "capsule": Capsule(half_length=1.0),
}


def _random_texture(rng: np.random.Generator, kind: str) -> tx.Texture:
    """A texture in a random hue; crates only for boxes, beach balls only for what is round all over."""
    hue, seed = rng.uniform(), int(rng.integers(2**31))
    strong, pale = _hsv(hue, rng.uniform(0.6, 0.85), rng.uniform(0.6, 0.9)), _hsv(hue + 0.1, 0.35, 0.92)
    other = _hsv(hue + rng.uniform(0.25, 0.6), 0.7, 0.75)
    choices: list[tx.Texture] = [
        tx.Ripples(pale, strong, rng.uniform(0.4, 0.8), seed),
        tx.Bands((strong, pale, other), rng.uniform(1.5, 3.0), wave=rng.uniform(0.0, 0.15)),
        tx.Spots(strong, pale, rng.uniform(0.8, 1.2)),
        tx.Sectors((strong, pale), int(2 * rng.integers(2, 5)), rng.uniform(-1.5, 1.5)),
    ]
    if kind == "box":
        choices.append(tx.Crate(strong, other, int(rng.integers(3, 6)), seed))
    if kind in ("ball", "capsule"):
        choices.append(tx.BeachBall((strong, pale, other)))
    return choices[int(rng.integers(len(choices)))]


def _random_object(rng: np.random.Generator, instance: int, kind: str, place: np.ndarray, reach: float) -> SceneObject:
    """An object that stands on the floor at `place` and stays within `reach` of it."""
    turn = float(rng.uniform(0, 2 * np.pi))
    width, height = reach * rng.uniform(0.65, 0.8, 2)
    if kind in ("cylinder", "cone"):
        height *= 1.6
    size, lowest, tilt = (width, width, height), height, 0.0
    if kind == "box":
        size = (width * 0.85, width * rng.uniform(0.6, 0.85), height)
    elif kind == "ring":
        size, tilt = (0.72 * reach,) * 3, rng.uniform(1.2, np.pi / 2)
        lowest = size[0] * (np.sin(tilt) + RING.tube)
    elif kind == "capsule":
        size = (0.45 * reach,) * 3
        lowest = 2 * size[0]
    motion = Motion(
        waypoints=((float(place[0]), float(place[1]), float(lowest)),),
        size=(float(size[0]), float(size[1]), float(size[2])),
        tilt_axis=(1.0, 0.0, 0.0),
        tilt=float(tilt),
    )
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    centre = np.array([*place, 0.0])
    turned[:3, 3] = centre - turned[:3, :3] @ centre
    texture = _random_texture(rng, kind)
    return SceneObject(kind, kind, instance, STILL_SHAPES[kind], texture, motion, tuple(map(tuple, turned.tolist())))


def static(seed: int, num_frames: int, width: int, height: int) -> AnalyticScene:
    """Four to six things of different shapes on the floor, nothing moves; cameras on a wide arc around them."""
    rng = np.random.default_rng([seed, 3])
    count = int(rng.integers(4, 7))
    kinds = [str(kind) for kind in rng.permutation(list(STILL_SHAPES))[:count]]
    places: list[np.ndarray] = []
    reaches: list[float] = []
    while len(places) < count:
        place, reach = rng.uniform((-1.7, -1.3), (1.7, 1.6)), float(rng.uniform(0.5, 0.8))
        apart = [np.linalg.norm(place - p) > reach + r for p, r in zip(places, reaches, strict=True)]
        if all(apart):
            places.append(place)
            reaches.append(reach)
    things = tuple(
        _random_object(rng, k + 1, kind, place, reach)
        for k, (kind, place, reach) in enumerate(zip(kinds, places, reaches, strict=True))
    )
    objects = (*_room(rng, rng.uniform(2.8, 3.4), rng.uniform(4.2, 5.0), rng.uniform()), *things)
    path = ArcPath(
        target=(0.0, 0.2, 0.6),
        radius=float(rng.uniform(4.4, 5.0)),
        height=float(rng.uniform(1.5, 2.2)),
        sweep=float(rng.uniform(0.9, 1.2)),
        height_wave=float(rng.uniform(0.2, 0.4)),
    )
    held_out = tuple((u, (0.0, 0.0, 0.1 * (-1) ** k)) for k, u in enumerate((0.12, 0.29, 0.46, 0.54, 0.71, 0.88)))
    camera = Intrinsics.centred(width, height, 0.85)
    return AnalyticScene("static", seed, STILL_CLASSES, objects, camera, path, num_frames, held_out, static=True)


def varied(seed: int, num_frames: int, width: int, height: int) -> AnalyticScene:
    """Things in a ring of cameras, in front of them, or in a room: see `semfield_ns.scenes.synthetic.varied`."""
    objects, path, camera, held_out = varied_scene(seed, width, height)
    return AnalyticScene("varied", seed, STILL_CLASSES, objects, camera, path, num_frames, held_out, static=True)


PRESETS: dict[str, Callable[[int, int, int, int], AnalyticScene]] = {
    "demo": demo,
    "demo-b": demo_b,
    "fast": fast,
    "thin": thin,
    "static": static,
    "varied": varied,
}


def make_scene(name: str, seed: int = 0, num_frames: int = 24, width: int = 160, height: int = 120) -> AnalyticScene:
    """The scene of a preset.

    Args:
        name: one of PRESETS.
        seed: moves colours, patterns and places; for `static` and `varied` everything.
        num_frames: frames of the clip, or views of a static scene. The path and the motions always take the whole clip.
        width: picture width in pixels.
        height: picture height in pixels.

    Raises:
        SemfieldError: for an unknown name, fewer than 2 frames or an empty picture.
    """
    if name not in PRESETS:
        raise SemfieldError(f"There is no synthetic scene '{name}': choose one of {', '.join(PRESETS)}.")
    if num_frames < 2 or num_frames > 999:
        raise SemfieldError(f"A synthetic scene has 2 to 999 frames, not {num_frames}.")
    if width < 1 or height < 1:
        raise SemfieldError(f"A synthetic picture of {width} x {height} pixels is empty: give a larger size.")
    if seed < 0:
        raise SemfieldError(f"The seed of a synthetic scene is 0 or more, not {seed}.")
    return PRESETS[name](seed, num_frames, width, height)
