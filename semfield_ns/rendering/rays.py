"""Rays and the samples along them, made without a wait for the device that they are on."""

from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Int, Shaped
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.model_components.ray_samplers import LinearDisparitySampler
from torch import Tensor, nn

from semfield_ns.rendering.constants import constant


def sent(value: Shaped[Tensor, "*shape"], device: torch.device | str) -> Shaped[Tensor, "*shape"]:
    """The value on a device; the host does not wait until it is there."""
    device = torch.device(device)
    if value.device.type == "cpu" and device.type == "cuda":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


def sent_rays(bundle: RayBundle, device: torch.device | str) -> RayBundle:
    """Rays on a device; the host does not wait until they are there."""
    values = {field.name: getattr(bundle, field.name) for field in fields(bundle)}
    metadata = {name: sent(value, device) for name, value in values.pop("metadata").items()}
    there: dict[str, Any] = {name: value if value is None else sent(value, device) for name, value in values.items()}
    return RayBundle(**there, metadata=metadata)


class PinholeRays(nn.Module):
    """Rays through pixels, those of Nerfstudio's `RayGenerator` for perspective cameras without distortion.

    Args:
        cameras: where the rays are to be.
    """

    def __init__(self, cameras: Cameras) -> None:
        super().__init__()
        self.cameras = cameras

    def forward(self, ray_indices: Int[Tensor, "rays 3"]) -> RayBundle:
        """The rays of (camera, row, column)."""
        cameras = self.cameras
        indices = sent(ray_indices, cameras.device)
        camera = indices[:, 0]
        focal = torch.cat([cameras.fx, cameras.fy], dim=-1)[camera]
        centre = torch.cat([cameras.cx, cameras.cy], dim=-1)[camera]
        pose = cameras.camera_to_worlds[camera]
        pixels = indices[:, 1:].flip(-1) + 0.5 - centre
        # The pixel itself, and those to its right and below, for its area.
        corners = torch.stack([pixels, *(pixels + constant(step, pixels) for step in ((1, 0), (0, 1)))])
        local = corners / focal * constant((1, -1), pixels)
        local = torch.cat([local, torch.full_like(local[..., :1], -1.0)], dim=-1)
        world = (local[..., None, :] * pose[..., :3]).sum(dim=-1)
        norm = world.norm(dim=-1, keepdim=True)
        ahead, right, below = (world / norm).unbind()
        area = (ahead - right).norm(dim=-1, keepdim=True) * (ahead - below).norm(dim=-1, keepdim=True)
        return RayBundle(
            origins=pose[..., 3],
            directions=ahead,
            pixel_area=area,
            camera_indices=camera[:, None],
            times=None if cameras.times is None else cameras.times[camera],
            metadata={"directions_norm": norm[0]},
        )


class DisparitySampler(LinearDisparitySampler):
    """Nerfstudio's stratified samples, evenly spaced in disparity."""

    def generate_ray_samples(self, ray_bundle: RayBundle | None = None, num_samples: int | None = None) -> RaySamples:
        """`num_samples` samples between the ends of each ray."""
        assert ray_bundle is not None and num_samples is not None
        assert ray_bundle.nears is not None and ray_bundle.fars is not None, "the collider sets them"
        bins = torch.linspace(0.0, 1.0, num_samples + 1, device=ray_bundle.origins.device)[None]
        if self.train_stratified and self.training:
            jitter = torch.rand((len(ray_bundle), num_samples + 1), dtype=bins.dtype, device=bins.device)
            centres = (bins[:, 1:] + bins[:, :-1]) / 2
            lower, upper = torch.cat([bins[:, :1], centres], dim=-1), torch.cat([centres, bins[:, -1:]], dim=-1)
            bins = lower + (upper - lower) * jitter
        near, far = 1 / ray_bundle.nears, 1 / ray_bundle.fars

        def distance(spacing: Tensor) -> Tensor:
            return 1 / torch.lerp(near, far, spacing)

        ends = distance(bins)
        return ray_bundle.get_ray_samples(
            bin_starts=ends[..., :-1, None],
            bin_ends=ends[..., 1:, None],
            spacing_starts=bins[..., :-1, None],
            spacing_ends=bins[..., 1:, None],
            spacing_to_euclidean_fn=distance,
        )
