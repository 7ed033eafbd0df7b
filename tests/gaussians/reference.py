"""Projection and compositing in plain torch, of any float kind, every pixel with every Gaussian: for small scenes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def project(means, quaternions, scales, camera_to_world, intrinsics, width, height, near=0.01, blur=0.3):
    """Centres [N, 2], depths [N], conics [N, 3] and whether in front of the camera [N]."""
    fx, fy, cx, cy = (float(x) for x in intrinsics)
    # From OpenGL (y up, z backwards) to y down and z forwards.
    axes = camera_to_world[:3, :3].to(means) * torch.tensor([1.0, -1.0, -1.0]).to(means)
    x, y, z = ((means - camera_to_world[:3, 3].to(means)) @ axes).unbind(-1)
    seen = z >= near
    z = torch.where(seen, z, torch.ones_like(z))
    w, i, j, k = F.normalize(quaternions, dim=-1).unbind(-1)
    rotations = torch.stack(
        [
            torch.stack([1 - 2 * (j * j + k * k), 2 * (i * j - w * k), 2 * (i * k + w * j)], -1),
            torch.stack([2 * (i * j + w * k), 1 - 2 * (i * i + k * k), 2 * (j * k - w * i)], -1),
            torch.stack([2 * (i * k - w * j), 2 * (j * k + w * i), 1 - 2 * (i * i + j * j)], -1),
        ],
        -2,
    )
    half = axes.T @ rotations * scales[:, None, :]
    margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    tx = (x / z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    ty = (y / z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * tx / z, zero, fy / z, -fy * ty / z], -1).reshape(-1, 2, 3)
    flat = jacobian @ half
    cov = flat @ flat.transpose(1, 2)
    a, b, c = cov[:, 0, 0] + blur, cov[:, 0, 1], cov[:, 1, 1] + blur
    det = a * c - b * b
    return (
        torch.stack([fx * x / z + cx, fy * y / z + cy], -1),
        z,
        torch.stack([c / det, -b / det, a / det], -1),
        seen,
    )


def contributions(means2d, depths, conics, seen, opacities, width, height) -> tuple[Tensor, Tensor]:
    """What each Gaussian contributes to each pixel, and the transmittance behind it: [H * W, N], in order of depth."""
    order = torch.argsort(torch.where(seen, depths, torch.full_like(depths, torch.inf)).detach(), stable=True)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 1, 2).to(means2d) + 0.5
    dx, dy = (pixels - means2d[order]).unbind(-1)
    a, b, c = conics[order].unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities * seen)[order] * torch.exp(-sigma)
    alpha = alpha.clamp(max=0.999)
    alpha = torch.where(alpha >= 1 / 255, alpha, torch.zeros_like(alpha))
    behind = torch.cumprod(1 - alpha, dim=-1)
    alpha = torch.where(behind > 1e-4, alpha, torch.zeros_like(alpha))
    behind = torch.cumprod(1 - alpha, dim=-1)
    before = torch.cat([torch.ones_like(behind[:, :1]), behind[:, :-1]], dim=-1)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return (alpha * before)[:, back], behind[:, back]


def render(gaussians, camera_to_world, intrinsics, width, height, background=None, near=0.01, blur=0.3):
    """Channels, accumulation, expected depth, median depth and index of a picture, and contributions [H * W, N]."""
    means2d, depths, conics, seen = project(
        gaussians.means, gaussians.quaternions, gaussians.scales, camera_to_world, intrinsics, width, height, near, blur
    )
    weights, behind = contributions(means2d, depths, conics, seen, gaussians.opacities, width, height)
    accumulation = weights.sum(-1, keepdim=True)
    channels = weights @ gaussians.channels
    if background is not None:
        channels = channels + (1 - accumulation) * background
    depth = (weights @ depths[:, None]) / accumulation.clamp(min=1e-10)
    crossing = (behind < 0.5) & (weights > 0)
    nearest = torch.where(crossing, depths, torch.full_like(depths, torch.inf)).amin(-1, keepdim=True)
    median = torch.where(torch.isfinite(nearest), nearest, torch.zeros_like(nearest))
    index = torch.where(accumulation[:, 0] > 0, weights.argmax(-1), -1)
    shape = (height, width)
    return (
        channels.reshape(*shape, -1),
        accumulation.reshape(*shape, 1),
        depth.reshape(*shape, 1),
        median.reshape(*shape, 1),
        index.reshape(shape),
        weights,
    )
