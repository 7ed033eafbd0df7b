"""Gaussians with colours by spherical harmonics, as files of 3-D Gaussian splatting hold them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.gaussians.harmonics import harmonics
from semfield_ns.gaussians.values import Gaussians

SAMPLES = 64
"""directions that a rotation of spherical harmonics is fitted at: many more than there are terms"""
OPACITY_RANGE = (1e-6, 1 - 1e-6)
SMALLEST_SCALE = 1e-12
"""of a Gaussian of a file: flat ones have logarithms that are infinite"""


@dataclass(frozen=True)
class Splats:
    """N Gaussians at one moment."""

    gaussians: Gaussians
    """without channels"""
    coefficients: Float[Tensor, "N terms 3"]
    """spherical harmonics of colours: 1, 4, 9 or 16 terms"""
    classes: Int[Tensor, "N"]
    """class ids, -1 where there are no classes"""
    objects: Int[Tensor, "N"]
    """numbers of moving objects, -1 for none"""

    def select(self, which: Bool[Tensor, "N"]) -> "Splats":
        """Those under a mask."""
        return Splats(self.gaussians.select(which), self.coefficients[which], self.classes[which], self.objects[which])

    def transformed(self, rotation: Float[Tensor, "3 3"], factor: float, translation: Float[Tensor, "3"]) -> "Splats":
        """X -> factor * rotation x + translation; the directions of colours turn with it."""
        moved = self.gaussians.transformed(quaternion(rotation), translation, factor)
        return replace(self, gaussians=moved, coefficients=turned(self.coefficients, rotation))

    def vertices(self) -> np.ndarray:
        """Rows in the layout that viewers of splats read: positions, normals (zero), `f_dc_*`, `f_rest_*` (channel by
        channel), logits of opacities, logarithms of scales, quaternions (w first); all float32.
        """
        count, terms = self.coefficients.shape[:2]
        rest = self.coefficients[:, 1:].permute(0, 2, 1).reshape(count, -1)
        opacities = torch.logit(self.gaussians.opacities.clamp(*OPACITY_RANGE))
        columns = {
            **_columns(("x", "y", "z"), self.gaussians.means),
            **_columns(("nx", "ny", "nz"), torch.zeros(count, 3)),
            **_columns([f"f_dc_{i}" for i in range(3)], self.coefficients[:, 0]),
            **_columns([f"f_rest_{i}" for i in range(3 * (terms - 1))], rest),
            "opacity": opacities,
            **_columns([f"scale_{i}" for i in range(3)], self.gaussians.scales.log()),
            **_columns([f"rot_{i}" for i in range(4)], F.normalize(self.gaussians.quaternions, dim=-1)),
        }
        rows = np.empty(count, [(name, "<f4") for name in columns])
        for name, values in columns.items():
            rows[name] = values.detach().cpu().numpy()
        return rows


def splats_of(vertices: np.ndarray) -> Splats:
    """Gaussians of rows in the layout of `Splats.vertices`; other properties are left out.

    Args:
        vertices: structured, [N], with 0, 9, 24 or 45 properties `f_rest_*`. Opacities and scales may be infinite;
            a quaternion of zeros is no rotation.
    """
    names, count = vertices.dtype.names or (), len(vertices)
    terms = 1 + sum(name.startswith("f_rest_") for name in names) // 3

    def stacked(columns: list[str]) -> Tensor:
        values = np.empty((count, len(columns)), np.float32)
        for number, name in enumerate(columns):
            values[:, number] = vertices[name]
        return torch.from_numpy(values)

    quaternions = stacked([f"rot_{i}" for i in range(4)])
    quaternions[(quaternions == 0).all(dim=1)] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    gaussians = Gaussians(
        stacked(["x", "y", "z"]),
        quaternions,
        stacked([f"scale_{i}" for i in range(3)]).exp().clamp(min=SMALLEST_SCALE),
        stacked(["opacity"])[:, 0].sigmoid(),
        torch.zeros(count, 0),
    )
    rest = stacked([f"f_rest_{i}" for i in range(3 * (terms - 1))]).view(count, 3, terms - 1).permute(0, 2, 1)
    coefficients = torch.cat([stacked([f"f_dc_{i}" for i in range(3)])[:, None], rest], dim=1)
    nothing = torch.full((count,), -1)
    return Splats(gaussians, coefficients, nothing, nothing)


def _columns(names: "list[str] | tuple[str, ...]", values: Float[Tensor, "N columns"]) -> dict[str, Tensor]:
    return dict(zip(names, values.unbind(dim=-1), strict=True))


def quaternion(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "4"]:
    """Of a rotation matrix, w first."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation.double().cpu().numpy()).as_quat()
    return rotation.new_tensor([w, x, y, z])


def turned(
    coefficients: Float[Tensor, "N terms channels"], rotation: Float[Tensor, "3 3"]
) -> Float[Tensor, "N terms channels"]:
    """Coefficients of spherical harmonics after their directions were rotated.

    Each degree is a space of its own, in which a rotation is linear: it is found from samples, exactly.
    """
    terms = coefficients.shape[1]
    degree = round(terms**0.5) - 1
    if degree == 0:
        return coefficients
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(SAMPLES, 3, generator=generator, dtype=torch.float64), dim=-1)
    before = harmonics(directions @ rotation.double().cpu(), degree)  # as seen from the old axes
    after = harmonics(directions, degree)
    parts = [coefficients[:, :1]]
    for level in range(1, degree + 1):
        band = slice(level * level, (level + 1) ** 2)
        change = torch.linalg.lstsq(after[:, band], before[:, band]).solution.to(coefficients)
        parts.append(torch.einsum("ij,njc->nic", change, coefficients[:, band]))
    return torch.cat(parts, dim=1)
