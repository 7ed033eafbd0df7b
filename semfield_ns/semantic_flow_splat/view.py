"""A pinhole camera at a time step."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One camera of a video or in between. Its numbers are on the CPU: who renders has to know them there."""

    pose: Float[Tensor, "3 4"]
    """camera to world, OpenGL"""
    intrinsics: Float[Tensor, "4"]
    """fx, fy, cx, cy in px"""
    width: int
    height: int
    step: float
    """time step, a fraction between two"""
    device: torch.device
    """of the Gaussians"""

    def there(self, numbers: Tensor) -> Tensor:
        """The pose or the intrinsics on the device of the Gaussians, without waiting for it."""
        return numbers.to(self.device, non_blocking=True)

    def directions(self) -> Float[Tensor, "H W 3"]:
        """Of the rays through the middles of pixels, in the world; as long as it takes to get to depth 1."""
        fx, fy, cx, cy = self.intrinsics.tolist()
        across = (torch.arange(self.width, device=self.device) + 0.5 - cx) / fx
        down = (torch.arange(self.height, device=self.device) + 0.5 - cy) / fy
        right, up, back = self.there(self.pose[:, :3]).unbind(dim=1)
        return across[None, :, None] * right - down[:, None, None] * up - back

    def resized(self, width: int, height: int) -> "View":
        """The same view with another number of pixels."""
        x, y = width / self.width, height / self.height
        scale = self.intrinsics.new_tensor([x, y, x, y])
        return replace(self, intrinsics=self.intrinsics * scale, width=width, height=height)


def view_of(camera: Cameras, step: float, device: torch.device) -> View:
    """What a camera of shape [1] looks through at a time step, for Gaussians on a device."""
    camera = camera.to("cpu")
    intrinsics = torch.stack([v.reshape(-1)[0] for v in (camera.fx, camera.fy, camera.cx, camera.cy)])
    pose = camera.camera_to_worlds.reshape(-1, 3, 4)[0].float()
    width, height = int(camera.width.reshape(-1)[0]), int(camera.height.reshape(-1)[0])
    return View(pose, intrinsics.float(), width, height, step, device)
