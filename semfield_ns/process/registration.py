"""Posed frames and the sparse points they see, wherever they came from.

Poses are OpenGL camera-to-world.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.io import read_npz, write_npz
from semfield_ns.process.geometry import Camera, Pose
from semfield_ns.process.models import ModelCard
from semfield_ns.process.names import FrameNames, match_images

__all__ = ["FrameNames", "Registration", "match_images", "median_parallax"]


@dataclass(frozen=True, eq=False)
class Registration:
    """Posed frames and the sparse points they see."""

    cameras: dict[int, Camera]
    """of each registered frame, by its number"""
    poses: dict[int, Pose]
    points: Float[np.ndarray, "M 3"]
    """world"""
    seen: dict[int, list[int]]
    """points that a frame sees, by its number"""
    figures: dict[str, Any]
    """for the report"""
    card: ModelCard

    @property
    def one_place(self) -> bool:
        """Whether the camera only turned, or stood: there is then no depth, and no view from elsewhere."""
        return bool(self.figures.get("camera_motion", "moving") != "moving")

    def depths(self, number: int) -> tuple[Float[np.ndarray, "K 2"], Float[np.ndarray, "K"]]:
        """Pixels and z-depths of the sparse points that a frame sees, in front of it and inside the image."""
        points = self.points[self.seen.get(number, [])]
        w2c = np.linalg.inv(self.poses[number])
        local = (points @ w2c[:3, :3].T + w2c[:3, 3]) * [1, -1, -1]
        local = local[local[:, 2] > 1e-9]
        camera = self.cameras[number]
        pixels = camera.project(local) if len(local) else np.zeros((0, 2))
        inside = ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(-1)
        return pixels[inside], local[inside, 2]

    def save(self, path: Path) -> None:
        """One .npz, written atomically; `load` reads it."""
        numbers = sorted(self.poses)
        rows = [self.cameras[n] for n in numbers]
        lengths = [len(self.seen.get(n, [])) for n in numbers]
        write_npz(
            path,
            numbers=np.array(numbers),
            poses=np.stack([self.poses[n] for n in numbers]),
            intrinsics=np.array([[c.fx, c.fy, c.cx, c.cy, c.width, c.height, *c.distortion] for c in rows]),
            points=self.points.reshape(-1, 3),
            lengths=np.array(lengths),
            seen=np.array([p for n in numbers for p in self.seen.get(n, [])], dtype=np.int64),
            about=np.array(json.dumps({"figures": self.figures, "card": self.card.to_json()})),
        )

    @classmethod
    def load(cls, path: Path) -> "Registration":
        arrays = read_npz(path, "poses")
        numbers = [int(n) for n in arrays["numbers"]]
        cameras = {
            n: Camera(row[0], row[1], row[2], row[3], int(row[4]), int(row[5]), row[6:])
            for n, row in zip(numbers, arrays["intrinsics"], strict=True)
        }
        parts = np.split(arrays["seen"], np.cumsum(arrays["lengths"])[:-1])
        about = json.loads(str(arrays["about"]))
        return cls(
            cameras,
            dict(zip(numbers, arrays["poses"], strict=True)),
            arrays["points"],
            {n: part.tolist() for n, part in zip(numbers, parts, strict=True)},
            about["figures"],
            ModelCard(**about["card"]),
        )


def median_parallax(
    points: Float[np.ndarray, "M 3"], poses: dict[int, Pose], seen: dict[int, list[int]], most: int = 2000
) -> float:
    """Median over points of the widest angle, degrees, between the rays of cameras that see it."""
    if not len(points):
        return 0.0
    watchers: dict[int, list[np.ndarray]] = {}
    for number, visible in seen.items():
        for point in visible:
            watchers.setdefault(point, []).append(poses[number][:3, 3])
    angles = []
    for point in sorted(watchers)[:: max(1, len(watchers) // most)]:
        rays = np.stack(watchers[point]) - points[point]
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        angles.append(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))
    return float(np.median(angles)) if angles else 0.0
