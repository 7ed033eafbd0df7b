"""How an object moves: smooth translation, rotation and stretching as functions of time in frames."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Vector = tuple[float, float, float]


def rotation_about(axis: Vector, angle: float) -> Float[np.ndarray, "3 3"]:
    """Rotation by `angle` radians about `axis` (Rodrigues' formula)."""
    x, y, z = np.array(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def smooth_path(waypoints: tuple[Vector, ...], u: float) -> Float[np.ndarray, " 3"]:
    """Point at u in [0, 1] of the Catmull-Rom curve through the waypoints; beyond the ends it goes on straight."""
    points = np.array(waypoints, float)
    if len(points) == 1:
        return points[0]
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    position = u * (len(points) - 1)
    start = int(np.clip(np.floor(position), 0, len(points) - 2))
    f = position - start
    before, here, following, after = padded[start : start + 4]
    if f < 0 or f > 1:
        inner = smooth_path(waypoints, float(np.clip(u, 0.0, 1.0)))
        slope = (following - before) / 2 if f < 0 else (after - here) / 2
        return inner + slope * (f if f < 0 else f - 1)
    tangent_in, tangent_out = (following - before) / 2, (after - here) / 2
    cubic = 2 * here - 2 * following + tangent_in + tangent_out
    square = 3 * following - 3 * here - 2 * tangent_in - tangent_out
    return ((cubic * f + square) * f + tangent_in) * f + here


@dataclass(frozen=True)
class Motion:
    """Where an object's material is in the world. All of it is smooth in time; the defaults stand still."""

    waypoints: tuple[Vector, ...] = ((0.0, 0.0, 0.0),)
    """Places of the object's centre, passed at even times from the first frame to the last."""
    size: Vector = (1.0, 1.0, 1.0)
    """Half extents along the object's own axes."""
    sway: Vector = (0.0, 0.0, 0.0)
    """Amplitude of a swinging movement added to the path."""
    sway_cycles: float = 1.0
    """Swings in the whole clip."""
    tilt_axis: Vector = (0.0, 0.0, 1.0)
    """Axis of the turn that is always there."""
    tilt: float = 0.0
    """Angle of that turn in radians."""
    spin_axis: Vector = (0.0, 0.0, 1.0)
    """World axis of the turning movement."""
    spin: float = 0.0
    """Angle turned in the whole clip, in radians."""
    swing: float = 0.0
    """Amplitude in radians of turning to and fro about the spin axis, once in the clip."""
    pulse: Vector = (0.0, 0.0, 0.0)
    """Relative amplitudes of a periodic stretching along the object's own axes; below 1."""
    pulse_cycles: float = 2.0
    """Stretchings in the whole clip."""
    duration: float = 1.0
    """Frames from the first to the last of the clip."""

    def pose_at(self, time: float) -> Float[np.ndarray, "4 4"]:
        """Affine map from material to world coordinates at a time in frames (any real number)."""
        u = time / self.duration
        turn = self.spin * u + self.swing * np.sin(2 * np.pi * u)
        stretch = np.array(self.size) * (1 + np.array(self.pulse) * np.sin(2 * np.pi * self.pulse_cycles * u))
        pose = np.eye(4)
        pose[:3, :3] = rotation_about(self.spin_axis, turn) @ rotation_about(self.tilt_axis, self.tilt) * stretch
        pose[:3, 3] = smooth_path(self.waypoints, u) + np.array(self.sway) * np.sin(2 * np.pi * self.sway_cycles * u)
        return pose

    @property
    def moves(self) -> bool:
        """Whether the object does anything at all."""
        amounts = (self.spin, self.swing, *self.sway, *self.pulse)
        return len(set(self.waypoints)) > 1 or any(amount != 0 for amount in amounts)
