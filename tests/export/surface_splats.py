"""Gaussian splats on the surfaces of an analytic scene, with the object that each of them belongs to."""

import numpy as np
from jaxtyping import Float, Int

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


def splat_vertices(places: Float[np.ndarray, "N 3"], rng: np.random.Generator) -> np.ndarray:
    """Gaussians at places, with random properties of every other kind."""
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(SH_REST))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    vertices = np.zeros(len(places), [(name, "<f4") for name in names])
    for index, name in enumerate(names):
        vertices[name] = places[:, index] if index < 3 else rng.standard_normal(len(places))
    return vertices
