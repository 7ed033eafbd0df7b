"""A camera as a value: what a stroke remembers of the view that it was drawn in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.projection import inside, project

_SAME_CAMERA = 1e-4
"""in poses of normalised scenes, and in shares of a picture"""


@dataclass(frozen=True)
class ViewCamera:
    """One perspective camera in the model's world. All numbers are float32 values, so JSON keeps them bit for bit."""

    camera_to_world: tuple[float, ...]
    """12 numbers: the rows of the 3x4 matrix, OpenGL (x right, y up, z back)"""
    fx: float
    """pixels, like fy, cx, cy; the centre of the first pixel is (0.5, 0.5)"""
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    time: float | None = None
    """in [0, 1]; None for static scenes"""
    distortion: tuple[float, ...] = ()
    """nothing, or k1, k2, k3, k4, p1, p2"""

    def __post_init__(self) -> None:
        for name, length in (("camera_to_world", (12,)), ("distortion", (0, 6))):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) not in length or not all(math.isfinite(value) for value in values):
                raise SemfieldError(f"The {name} of a camera is {length[-1]} finite numbers, not {len(values)}.")
            object.__setattr__(self, name, values)
        if not (self.width >= 1 and self.height >= 1 and self.fx > 0 and self.fy > 0):
            raise SemfieldError("A camera has a size of at least one pixel, and focal lengths above 0.")

    @classmethod
    def of(cls, cameras: Cameras, index: int = 0) -> "ViewCamera":
        """One of Nerfstudio's cameras.

        Raises:
            SemfieldError: it is not a perspective camera.
        """
        if int(cameras.camera_type.reshape(-1)[index]) != CameraType.PERSPECTIVE.value:
            raise SemfieldError("Strokes are drawn in perspective views: choose the camera type Perspective.")

        def number(values: Tensor) -> float:
            return float(values.reshape(-1)[index])

        bent: tuple[float, ...] = ()
        if cameras.distortion_params is not None:
            bent = tuple(cameras.distortion_params.reshape(-1, 6)[index].tolist())
        return cls(
            camera_to_world=tuple(cameras.camera_to_worlds.reshape(-1, 12)[index].tolist()),
            fx=number(cameras.fx),
            fy=number(cameras.fy),
            cx=number(cameras.cx),
            cy=number(cameras.cy),
            width=int(number(cameras.width)),
            height=int(number(cameras.height)),
            time=None if cameras.times is None else number(cameras.times),
            distortion=bent if any(bent) else (),
        )

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """Where it is, in the model's world."""
        return np.array(self.camera_to_world).reshape(3, 4)[:, 3]

    def cameras(self) -> Cameras:
        """The same camera as Nerfstudio's, one of shape [1], on the CPU."""
        return Cameras(
            camera_to_worlds=torch.tensor(self.camera_to_world).view(1, 3, 4),
            fx=torch.tensor([[self.fx]]),
            fy=torch.tensor([[self.fy]]),
            cx=torch.tensor([[self.cx]]),
            cy=torch.tensor([[self.cy]]),
            width=torch.tensor([[self.width]]),
            height=torch.tensor([[self.height]]),
            distortion_params=torch.tensor([self.distortion]) if self.distortion else None,
            times=None if self.time is None else torch.tensor([[self.time]]),
        )

    def scaled(self, factor: float) -> "ViewCamera":
        """The same view at another resolution, at least 2 by 2 pixels."""
        return self.at_size(*(max(2, round(side * factor)) for side in (self.height, self.width)))

    def at_size(self, height: int, width: int) -> "ViewCamera":
        """The same view in another number of pixels."""
        x, y = width / self.width, height / self.height
        # Rounded to float32, like all numbers of a camera.
        fx, fy, cx, cy = torch.tensor([self.fx * x, self.fy * y, self.cx * x, self.cy * y]).tolist()
        return replace(self, width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy)

    def project(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Pixels (x, y) of world points, their depths along the optical axis, and whether they are in the picture."""
        pose = torch.tensor(self.camera_to_world, device=points.device).view(3, 4)
        intrinsics = torch.tensor([self.fx, self.fy, self.cx, self.cy], device=points.device)
        distortion = torch.tensor(self.distortion, device=points.device) if self.distortion else None
        pixels, depth = project(points, pose, intrinsics, distortion)
        size = torch.tensor([self.width, self.height], dtype=torch.float32, device=points.device)
        return pixels, depth, inside(pixels, depth, size)


def same_camera(camera: Cameras, cameras: Cameras, candidates: Sequence[int]) -> int | None:
    """The candidate that has the pose and the field of view of a camera, at whatever resolution, if there is one."""
    chosen = list(candidates)

    def described(some: Cameras) -> Float[Tensor, "N 16"]:
        width, height = some.width.reshape(-1, 1), some.height.reshape(-1, 1)
        view = [some.fx.reshape(-1, 1) / width, some.fy.reshape(-1, 1) / height]
        view += [some.cx.reshape(-1, 1) / width, some.cy.reshape(-1, 1) / height]
        return torch.cat([some.camera_to_worlds.reshape(-1, 12), *view], dim=1).cpu()

    difference = (described(cameras)[chosen] - described(camera)[:1]).abs().amax(dim=1)
    best = int(difference.argmin())
    return chosen[best] if float(difference[best]) < _SAME_CAMERA else None
