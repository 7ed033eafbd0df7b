"""Scenes brought to the coordinates that GNT and GSN were trained in: absolute positions are encoded, so scale matters.

The rule of the LLFF loader: poses recentred on the average pose and scaled by 1 / (0.75 nearest bound), so that the
nearest content is at depth 4/3; rays run from 0.9 times the nearest to 1.6 times the furthest bound.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_npy
from semfield_ns.scenes.dataparser import average_pose_inverse, depth_range, depths_in_view
from semfield_ns.scenes.scene import Frame, Scene

_NEAREST = 0.75
_NEAR_MARGIN, _FAR_MARGIN = 0.9, 1.6
_FOCUS_NEAR, _FOCUS_FAR = 0.5, 1.5  # of the distance to what the cameras look at, where nothing tells a depth
_FOCUS_MARGINS = (1.0, 1.0)
_PERCENTILES, _FEW_POINTS = (0.5, 99.5), 30  # of the depths of points in a view


def range_of(ranges: Float[Tensor, "V 2"], near: float, far: float) -> tuple[float, float]:
    """Depths between which a ray is looked at whose source views have these ranges; not beyond near and far.

    Cameras on an arc around a thing see it at one distance, but the scene's own bounds hold for all of them: samples
    between the sources' bounds are several times denser.
    """
    known = ranges[ranges.isfinite().all(dim=-1)]
    if len(known) == 0:
        return near, far
    return max(near, _NEAR_MARGIN * float(known[:, 0].min())), min(far, _FAR_MARGIN * float(known[:, 1].max()))


class Normalised(NamedTuple):
    """Of one scene, training and held-out frames in this order."""

    poses: Float[np.ndarray, "N 3 4"]
    """camera-to-world, OpenGL axes"""
    near: float
    """depth at which rays start, normalised units"""
    far: float
    """depth at which rays end"""
    transform: Float[np.ndarray, "3 4"]
    """from the scene's world to the recentred one, before scaling"""
    scale: float
    ranges: Float[np.ndarray, "N 2"] | None
    """nearest and furthest depth of the content of every frame by itself, where that is known"""


def normalise(scene: Scene) -> Normalised:
    """Normalised poses and bounds of a scene.

    Raises:
        SemfieldError: nothing tells the depths of the scene.
    """
    near, far, margins = bounds(scene)
    scale = 1 / (_NEAREST * near)
    recentre = average_pose_inverse(scene.train)
    poses = np.stack([recentre @ frame.c2w for frame in (*scene.train, *scene.test)])[:, :3]
    poses[:, :, 3] *= scale
    ranges = frame_ranges(scene)
    ranges = None if ranges is None else ranges * scale
    return Normalised(poses, margins[0] * near * scale, margins[1] * far * scale, recentre[:3], scale, ranges)


def frame_ranges(scene: Scene) -> Float[np.ndarray, "N 2"] | None:
    """Nearest and furthest depth in every frame, in the scene's own units: from poses_bounds.npy, or from the points in
    view; None where neither tells. A frame that shows hardly any point gets NaN.
    """
    table = scene.root / "poses_bounds.npy"
    if table.is_file():
        values = read_npy(table, "poses")[:, 15:]
        return values if len(values) == len(scene.train) + len(scene.test) else None
    if scene.points is None:
        return None
    rows = []
    for frame in (*scene.train, *scene.test):
        depths = depths_in_view(frame, scene.points)
        rows.append(np.percentile(depths, _PERCENTILES) if len(depths) >= _FEW_POINTS else [np.nan, np.nan])
    return np.array(rows)


def bounds(scene: Scene) -> tuple[float, float, tuple[float, float]]:
    """Nearest and furthest depth in the scene's own units, and how much further rays reach.

    From poses_bounds.npy as the official loader reads it (the least of all bounds, not a percentile); else from what
    the scene says or its depth maps or points show; else from where its cameras look.
    """
    table = scene.root / "poses_bounds.npy"
    if table.is_file():
        values = read_npy(table, "poses")[:, 15:]
        return float(values.min()), float(values.max()), (_NEAR_MARGIN, _FAR_MARGIN)
    found = depth_range(scene)
    if found.near is not None and found.far is not None:
        near, far = found.near, found.far
        if not near < far:
            raise SemfieldError(f"Scene {scene.root}: its near bound {near:g} is not below its far bound {far:g}.")
        return near, far, (_NEAR_MARGIN, _FAR_MARGIN)
    distances = focus_distances(scene.train)
    if distances is None:
        raise SemfieldError(
            f"Scene {scene.root} provides no depths, and its cameras do not look at a common point: "
            'add "near" and "far" to its transforms.json.'
        )
    return _FOCUS_NEAR * float(distances.min()), _FOCUS_FAR * float(distances.max()), _FOCUS_MARGINS


def focus_distances(frames: Sequence[Frame]) -> Float[np.ndarray, "N"] | None:
    """Depth in every camera of the point closest to all optical axes; None if it is not in front of all of them."""
    centres = np.stack([frame.c2w[:3, 3] for frame in frames])
    axes = -np.stack([frame.c2w[:3, 2] for frame in frames])
    across = np.eye(3) - axes[:, :, None] * axes[:, None]
    system = across.sum(axis=0)
    if np.linalg.cond(system) > 1e4:
        return None
    focus = np.linalg.solve(system, (across @ centres[..., None])[..., 0].sum(axis=0))
    depths = ((focus - centres) * axes).sum(axis=1)
    return depths if (depths > 0).all() else None
