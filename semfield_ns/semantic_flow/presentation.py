"""How motion in space looks on a screen."""

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.rendering.projection import project


def screen_flow(
    surface: Float[Tensor, "*image 3"], scene_flow: Float[Tensor, "*image 3"], camera: Cameras
) -> Float[Tensor, "*image 2"]:
    """Optical flow in pixels of moving surface points, seen by one camera that stands still.

    Args:
        surface: world points.
        scene_flow: their displacement, world units.
        camera: one camera.
    """
    pose = camera.camera_to_worlds.reshape(-1, 3, 4)[0].to(surface)
    intrinsics = torch.cat([v.reshape(-1)[:1] for v in (camera.fx, camera.fy, camera.cx, camera.cy)]).to(surface)
    shape = surface.shape[:-1]
    pose, intrinsics = pose.expand(*shape, 3, 4), intrinsics.expand(*shape, 4)
    before, depth = project(surface, pose, intrinsics)
    after, depth_after = project(surface + scene_flow, pose, intrinsics)
    in_front = ((depth > 0) & (depth_after > 0))[..., None]
    return torch.where(in_front, after - before, torch.zeros_like(after))
