"""Maps from the world to the cube [-1, 1]^3 in which the fields keep their detail, and back.

Every other part of the method (poses, traced points, displacements, projections) stays in world coordinates; only a
field's encoding sees the cube. So there is one coordinate system, and no place where two of them can be mixed.
"""

from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor, nn

WarpKind = Literal["auto", "perspective", "contraction"]

_MAX_TANGENT = 3.0


class PerspectiveWarp(nn.Module):
    """Normalised device coordinates of one reference camera: direction over field of view, and inverse depth.

    With (x, y, d) the point in the reference camera (d along its optical axis):
    `u = x / (d tan_x)`, `v = y / (d tan_y)`, `w = 1 - 2 near / d`; so d = near gives -1 and infinity gives 1.

    Args:
        camera_to_world: the reference camera, OpenGL.
        tangents: (tan_x, tan_y) of the half field of view.
        near: the depth, in world units, that becomes -1.
    """

    camera_to_world: Tensor
    tangents: Tensor
    near: Tensor
    matrix: Tensor
    """What a point is multiplied by, and `offset` added: the numerators of (u, v, w), and d."""
    offset: Tensor

    def __init__(self, camera_to_world: Float[Tensor, "3 4"], tangents: tuple[float, float], near: float) -> None:
        super().__init__()
        self.register_buffer("camera_to_world", camera_to_world.float())
        self.register_buffer("tangents", torch.tensor(tangents, dtype=torch.float32))
        self.register_buffer("near", torch.tensor(near, dtype=torch.float32))
        self.register_load_state_dict_post_hook(lambda module, _: module._prepare())
        self._prepare()

    def _prepare(self) -> None:
        """From the camera, once, what every point needs."""
        right, up, back = self.camera_to_world[:, :3].T
        rows = torch.stack([right / self.tangents[0], up / self.tangents[1], -back, -back])
        offset = -rows @ self.camera_to_world[:, 3]
        offset[2] -= 2 * self.near
        self.register_buffer("matrix", rows, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.nearest = 0.1 * float(self.near)

    def forward(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """World to cube. What (u, v, w) are divided by, the depth, is at least a tenth of near."""
        numerators, depth = nn.functional.linear(points, self.matrix, self.offset).split((3, 1), dim=-1)
        return numerators / depth.clamp(min=self.nearest)

    def inverse(self, cube: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Cube to world, for w < 1."""
        depth = 2 * self.near / (1 - cube[..., 2:])
        local = torch.cat([cube[..., :2] * depth * self.tangents, -depth], dim=-1)
        return local @ self.camera_to_world[:, :3].T + self.camera_to_world[:, 3]


class ContractionWarp(nn.Module):
    """The L-infinity contraction of Nerfstudio (mip-NeRF 360), halved: unbounded space around `centre` into the cube.

    Args:
        centre: world point that becomes the origin.
        radius: world distance up to which space is only scaled (it fills half of the cube).
    """

    centre: Tensor
    radius: Tensor

    def __init__(self, centre: Float[Tensor, "3"], radius: float) -> None:
        super().__init__()
        self.register_buffer("centre", centre.float())
        self.register_buffer("radius", torch.tensor(radius, dtype=torch.float32))

    def forward(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """World to cube."""
        scaled = (points - self.centre) / self.radius
        size = scaled.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
        return scaled * (2 - 1 / size) / size / 2

    def inverse(self, cube: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Cube to world, inside the open cube."""
        scaled = cube * 2
        size = scaled.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
        return scaled / (size * (2 - size)) * self.radius + self.centre


def frustum_corners(cameras: Cameras, depth: float) -> Float[Tensor, "corners 3"]:
    """World points at `depth` along the optical axis behind the four image corners of every camera."""
    width, height = cameras.width.float(), cameras.height.float()
    sides = []
    for x in (torch.zeros_like(width), width):
        for y in (torch.zeros_like(height), height):
            right, up = (x - cameras.cx) / cameras.fx, -(y - cameras.cy) / cameras.fy
            local = torch.cat([right, up, -torch.ones_like(x)], dim=-1) * depth
            pose = cameras.camera_to_worlds
            sides.append(torch.einsum("nij,nj->ni", pose[..., :3], local) + pose[..., 3])
    return torch.cat(sides)


def build_warp(kind: WarpKind, cameras: Cameras, near: float) -> nn.Module:
    """Chooses and fits the warp of a scene.

    Args:
        kind: "auto" takes the perspective warp where one reference camera sees what all cameras see.
        cameras: the training cameras, in world (scene) units.
        near: near plane in scene units.
    """
    poses = cameras.camera_to_worlds
    warp, tangent = _perspective(cameras, near)
    if kind == "perspective" or (kind == "auto" and tangent <= _MAX_TANGENT):
        return warp
    centre = poses[:, :, 3].mean(dim=0)
    extent = (poses[:, :, 3] - centre).abs().max().item()
    return ContractionWarp(centre, radius=max(extent, 0.0) + 4.0 * near)


def _perspective(cameras: Cameras, near: float) -> tuple[PerspectiveWarp, float]:
    poses = cameras.camera_to_worlds
    backward = torch.nn.functional.normalize(poses[:, :, 2].mean(dim=0), dim=0)
    right = poses[:, :, 0].mean(dim=0)
    right = torch.nn.functional.normalize(right - backward * (right @ backward), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(backward, right), backward], dim=-1)
    centre = poses[:, :, 3].mean(dim=0)
    # Step back until no camera is behind the reference: whatever a camera sees beyond near is then in front of it.
    back = ((poses[:, :, 3] - centre) @ backward).max().clamp(min=0)
    origin = centre + back * backward
    corners = torch.cat([frustum_corners(cameras, near), frustum_corners(cameras, 1e3 * near)])
    local = (corners - origin) @ rotation
    depth = -local[:, 2]
    if depth.min() < 0.5 * near:
        tangents = torch.tensor([float("inf")] * 2)
    else:
        tangents = (local[:, :2].abs() / depth[:, None]).amax(dim=0)
    warp = PerspectiveWarp(
        torch.cat([rotation, origin[:, None]], dim=-1),
        tuple(tangents.clamp(max=_MAX_TANGENT).tolist()),
        near * min(1.0, max(depth.min().item() / near, 0.5)),
    )
    return warp, tangents.max().item()
