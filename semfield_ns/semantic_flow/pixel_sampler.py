"""Pixels for a training step: a given part of them on moving things, drawn without looking at labels."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from torch import Tensor


@dataclass
class MotionPixelSamplerConfig(PixelSamplerConfig):
    """Draws `dynamic_fraction` of the rays from pixels that the motion masks call dynamic."""

    _target: type = field(default_factory=lambda: MotionPixelSampler)


class MotionPixelSampler(PixelSampler):
    """Nerfstudio's sampler, with two pools of pixels. The pools are indexed once, when the images change.

    Without motion masks every pixel is in one pool. A pool that is empty (no dynamic pixel anywhere) gives its part to
    the other.
    """

    def __init__(self, config: PixelSamplerConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.dynamic_fraction = 0.5
        self._indexed: Tensor | None = None
        self._pools: tuple[Tensor, Tensor] | None = None

    def collate_image_dataset_batch(
        self, batch: dict, num_rays_per_batch: int, keep_full_image: bool = False
    ) -> dict[str, Any]:
        """Gathers [rays, ...] values of every per-pixel entry of `batch`, where the entries are.

        Beside what the base class gathers, "num_dynamic" says how many rays, the first ones, are on moving things;
        there is none without motion masks.
        """
        mask: Tensor | None = batch.get("dynamic_mask")
        if mask is not None and self._indexed is not mask:
            usable = batch["mask"][..., 0] > 0.5 if "mask" in batch else torch.ones_like(mask[..., 0], dtype=torch.bool)
            dynamic = mask[..., 0] > 0.5
            self._pools = _positions(dynamic & usable), _positions(~dynamic & usable)
            self._indexed = mask
        images = batch["image"]
        count, height, width = self._shape = images.shape[:3]
        indices = self.sample_method(
            num_rays_per_batch, count, height, width, batch.get("mask"), batch["image_idx"].device
        )
        where = indices.unbind(dim=-1)
        gathered = {key: value[where] for key, value in batch.items() if key != "image_idx" and value is not None}
        gathered["indices"] = torch.stack([batch["image_idx"][where[0]], *where[1:]], dim=-1)
        if mask is not None:
            gathered["num_dynamic"] = self._count(num_rays_per_batch)
        if keep_full_image:
            gathered["full_image"] = images
        return gathered

    def sample_method(
        self,
        batch_size: int,
        num_images: int,
        image_height: int,
        image_width: int,
        mask: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "rays 3"]:
        """(image, row, column) of `batch_size` pixels, dynamic ones first."""
        if self._pools is None:
            return super().sample_method(batch_size, num_images, image_height, image_width, mask=mask, device=device)
        moving, still = self._pools
        count = self._count(batch_size)
        flat = torch.cat([_draw(moving, count), _draw(still, batch_size - count)])
        _, height, width = self._shape
        return torch.stack([flat // (height * width), flat // width % height, flat % width], dim=-1).to(device)

    def _count(self, batch_size: int) -> int:
        """How many rays are drawn on moving things."""
        assert self._pools is not None, "there are motion masks"
        moving, still = self._pools
        if len(moving) == 0:
            return 0
        return batch_size if len(still) == 0 else round(batch_size * self.dynamic_fraction)


def _positions(pixels: Tensor) -> Tensor:
    return torch.nonzero(pixels.flatten())[:, 0]


def _draw(pool: Tensor, count: int) -> Tensor:
    return pool[torch.randint(len(pool), (count,), device=pool.device)] if count else pool[:0]
