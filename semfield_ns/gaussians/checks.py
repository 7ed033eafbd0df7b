"""What callers may hand over: shapes, kinds of numbers and devices, checked before a kernel sees them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from semfield_ns.errors import SemfieldError

MAX_SIDE = 1 << 15
"""Pixels of the longer side of a picture; a larger one is a mistake in a camera."""


def floats(name: str, tensor: Tensor, shape: Sequence[int | None], like: Tensor | None = None) -> Tensor:
    """The tensor as float32, differentiably.

    Args:
        name: what to call it in errors.
        tensor: of any kind of floating-point number, contiguous or not.
        shape: its expected shape; None where any size will do.
        like: a tensor that has to be on the same device.

    Raises:
        SemfieldError: for another shape, for integers, and for another device.
    """
    fits = tensor.dim() == len(shape) and all(n is None or n == m for n, m in zip(shape, tensor.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise SemfieldError(f"{name} of Gaussians: shape {list(tensor.shape)} where [{wanted}] is needed.")
    if not tensor.is_floating_point():
        raise SemfieldError(f"{name} of Gaussians: {tensor.dtype} where floating-point numbers are needed.")
    if like is not None and tensor.device != like.device:
        raise SemfieldError(f"{name} of Gaussians: on {tensor.device}, the others on {like.device}; move one of them.")
    return tensor.to(torch.float32)


def size(width: int, height: int) -> None:
    """Raises SemfieldError unless a picture may have this size in pixels."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise SemfieldError(f"A picture of {width}x{height} pixels: each side has to be from 1 to {MAX_SIDE}.")


def camera(camera_to_world: Tensor, intrinsics: Tensor | Sequence[float]) -> tuple[list[list[float]], list[float]]:
    """The first three rows of a pose, and fx, fy, cx, cy, as Python numbers; neither gets gradients.

    Raises:
        SemfieldError: for other shapes, for numbers that are not finite and for focal lengths that are not positive.
    """
    if tuple(camera_to_world.shape) not in ((3, 4), (4, 4)):
        raise SemfieldError(f"camera_to_world: shape {list(camera_to_world.shape)} where [3, 4] or [4, 4] is needed.")
    pose = camera_to_world.detach().to("cpu", torch.float64)[:3]
    numbers = torch.as_tensor(intrinsics).detach().to("cpu", torch.float64)
    if tuple(numbers.shape) != (4,):
        raise SemfieldError(f"intrinsics: shape {list(numbers.shape)} where fx, fy, cx, cy are needed.")
    if not (bool(torch.isfinite(pose).all()) and bool(torch.isfinite(numbers).all())):
        raise SemfieldError("The camera has numbers that are not finite; check its pose and intrinsics.")
    if not bool((numbers[:2] > 0).all()):
        raise SemfieldError(f"intrinsics: focal lengths {numbers[:2].tolist()} px where positive ones are needed.")
    return pose.tolist(), numbers.tolist()
