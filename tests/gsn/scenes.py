"""Random source views, and rays through them, for tests and benchmarks of the network."""

import torch

from semfield_ns.gsn.network import GSNNetwork, NetworkConfig
from semfield_ns.gsn.projection import SourceViews
from semfield_ns.gsn.sampling import inverse_depths
from tests.gsn.reference import ReferenceHead, ReferenceTrunk, look

FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))


def random_views(
    views: int, height: int, width: int, feature_dim: int = 64, seed: int = 0, behind: int = 0, grid: int = 8
) -> SourceViews:
    """Cameras near the origin that look along -z; the last `behind` of them look backwards."""
    generator = torch.Generator().manual_seed(seed)
    pose = torch.eye(4).repeat(views, 1, 1)
    pose[:, :3, 3] = 0.3 * torch.randn(views, 3, generator=generator)
    angle = 0.05 * torch.randn(views, generator=generator)
    angle[views - behind :] += torch.pi
    pose[:, 0, 0], pose[:, 0, 2] = angle.cos(), angle.sin()
    pose[:, 2, 0], pose[:, 2, 2] = -angle.sin(), angle.cos()
    tokens = torch.randn(views, feature_dim, -(-height // grid), -(-width // grid), generator=generator)
    return SourceViews(
        images=torch.rand(views, 3, height, width, generator=generator),
        camera_to_world=pose[:, :3],
        intrinsics=torch.tensor([0.8 * width, 0.8 * width, width / 2, height / 2]).expand(views, 4).contiguous(),
        tokens=(tokens / tokens.norm(dim=1, keepdim=True),),
    )


def random_rays(rays: int, samples: int, seed: int = 0, spread: float = 0.4, near: float = 1.2, far: float = 6.0):
    """Origins, directions with z = 1 in the camera, and depths."""
    generator = torch.Generator().manual_seed(seed + 1)
    xy = spread * (2 * torch.rand(rays, 2, generator=generator) - 1)
    directions = torch.cat([xy, -torch.ones(rays, 1)], dim=-1)
    depths = inverse_depths(torch.full((rays, 1), near), torch.full((rays, 1), far), samples)
    return torch.zeros(rays, 3), directions, depths


def reference_of(network: GSNNetwork) -> tuple[ReferenceTrunk, ReferenceHead | None]:
    """The plain modules with the same weights."""
    config: NetworkConfig = network.config
    trunk = ReferenceTrunk(
        config.dim, config.blocks, config.image_dim, config.heads, config.direction == "trunk", config.masked_pooling
    )
    trunk.load_state_dict(network.net_coarse.state_dict())
    head = None
    if network.dino is not None:
        head = ReferenceHead(config.dim, config.feature_dim, config.heads, config.masked_pooling)
        head.load_state_dict(network.dino.state_dict())
        head.eval()
    return trunk.eval(), head


def reference_render(trunk, head, origins, directions, depths, views: SourceViews, teacher_images=None):
    """Official behaviour of the head (it sees the target); `teacher_images`: tokens enlarged to the images."""
    pose = torch.cat([views.camera_to_world, torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(views.images), 1, 4)], dim=1)
    points = origins[:, None] + directions[:, None] * depths[..., None]
    rgb_features, teacher, relative, mask = look(
        points, origins, views.images, views.maps, teacher_images, pose @ FLIP, views.intrinsics
    )
    unit = directions / directions.norm(dim=-1, keepdim=True)
    rgb, weights, stream, keys = trunk(rgb_features, relative, mask, points, unit)
    outputs = {"rgb": rgb, "weights": weights, "depth": (weights * depths).sum(dim=-1, keepdim=True)}
    if head is not None and teacher is not None:
        outputs["features"] = head(stream, keys, teacher, relative, mask)
    return outputs
