"""Gaussian splats on the surfaces of an analytic scene, with the object that each of them belongs to."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from semfield_ns.gaussians.harmonics import CONSTANT
from semfield_ns.scenes.synthetic.cameras import rays_through
from semfield_ns.scenes.synthetic.scene import AnalyticScene

SH_REST = 45
"""higher coefficients of spherical harmonics, of degree 3"""


def surface_splats(
    scene: AnalyticScene, count: int, seed: int = 0, time: float = 0.0, thickness: float = 0.005
) -> tuple[np.ndarray, Int[np.ndarray, "N"]]:
    """Gaussians where random rays of the scene's path, and of places around it, meet surfaces.

    Args:
        scene: the scene.
        count: of rays; those that meet nothing give no Gaussian.
        seed: of the rays and of all properties that nothing determines.
        time: in frames.
        thickness: standard deviation of a Gaussian's place along its ray, relative to the depth.

    Returns:
        Vertices in the format of 3D Gaussian splatting (structured, [N], 62 floats), and instance ids (0: background).
    """
    rng = np.random.default_rng(seed)
    cameras = [scene.path.at(float(rng.uniform(0, 1)), tuple(rng.uniform(-0.25, 0.25, 3).tolist())) for _ in range(24)]
    places, owners = [], []
    for c2w in cameras:
        uv = rng.random((count // len(cameras), 2)) * (scene.intrinsics.width, scene.intrinsics.height)
        origin, directions = rays_through(uv, c2w, scene.intrinsics)
        hits = scene.cast(origin, directions, time)
        met = hits.index >= 0
        depth = hits.depth[met] * (1 + thickness * rng.standard_normal(int(met.sum())))
        places.append(origin + depth[:, None] * directions[met])
        owners.append(np.array([entry.instance for entry in scene.objects])[hits.index[met]])
    return splat_vertices(np.concatenate(places), rng), np.concatenate(owners)


def seen_splats(
    scene: AnalyticScene, count: int, seed: int = 0, thickness: float = 0.005
) -> tuple[np.ndarray, Int[np.ndarray, "N"]]:
    """Gaussians with the colours of the surfaces that they lie on, as a trained splat has them; harmonics of degree 1.

    Args:
        scene: one that stands still.
        count: of Gaussians, about.
        seed: of their places.
        thickness: as for `surface_splats`.

    Returns:
        As `surface_splats`; nearly opaque, round, and as large as they are apart.
    """
    rng = np.random.default_rng(seed)
    cameras = [scene.path.at(float(rng.uniform(0, 1)), tuple(rng.uniform(-0.25, 0.25, 3).tolist())) for _ in range(24)]
    places, owners, colors = [], [], []
    for c2w in cameras:
        truth = scene.render(c2w, samples_per_axis=1)
        met = np.flatnonzero(truth["depth"].ravel() > 0)
        chosen = rng.choice(met, min(len(met), count // len(cameras)), replace=False)
        noise = 1 + thickness * rng.standard_normal((len(chosen), 1))
        places.append(c2w[:3, 3] + noise * (truth["position"].reshape(-1, 3)[chosen] - c2w[:3, 3]))
        owners.append(truth["instances"].ravel()[chosen].astype(int))
        colors.append(truth["rgb"].reshape(-1, 3)[chosen])
    points = np.concatenate(places)
    vertices = splat_vertices(points, rng, rest=9)
    apart = cKDTree(points).query(points, k=4)[0][:, 1:].mean(axis=1).clip(1e-3, 0.2)
    for index, channel in enumerate(np.concatenate(colors).T):
        vertices[f"f_dc_{index}"] = (channel - 0.5) / CONSTANT
        vertices[f"scale_{index}"] = np.log(0.8 * apart)
    for index in range(9):
        vertices[f"f_rest_{index}"] *= 0.02
    vertices["opacity"] = 3.0
    return vertices, np.concatenate(owners)


def splat_vertices(places: Float[np.ndarray, "N 3"], rng: np.random.Generator, rest: int = SH_REST) -> np.ndarray:
    """Gaussians at places, with random properties of every other kind."""
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(rest))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    vertices = np.zeros(len(places), [(name, "<f4") for name in names])
    for index, name in enumerate(names):
        vertices[name] = places[:, index] if index < 3 else rng.standard_normal(len(places))
    return vertices
