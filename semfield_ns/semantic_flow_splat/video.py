"""The frames of a video as pictures with depth, motion masks and optical flow: what Gaussians are started from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from cachetools import LRUCache
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.scenes.dataset import SceneDataset


@dataclass(frozen=True)
class VideoFrame:
    """One frame; world coordinates and units are those of the normalised scene."""

    step: int
    """its time step"""
    pose: Float[Tensor, "3 4"]
    """camera to world, OpenGL"""
    intrinsics: Float[Tensor, "4"]
    """fx, fy, cx, cy in px"""
    image: Float[Tensor, "H W 3"]
    """in [0, 1]"""
    depth: Float[Tensor, "H W"] | None
    """as the scene gives it: along the optical axis, or raw disparity; 0 where it is not known"""
    moving: Bool[Tensor, "H W"] | None
    """None without motion masks"""
    forward: Float[Tensor, "H W 3"] | None
    """flow to the next frame of the camera, px, and whether it is valid (0 or 1)"""
    backward: Float[Tensor, "H W 3"] | None
    """to the previous one"""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def num_bytes(self) -> int:
        """Of the pixels, in memory."""
        images = (self.image, self.depth, self.moving, self.forward, self.backward)
        return sum(image.nbytes for image in images if image is not None)

    def pixels(self) -> Float[Tensor, "H W 2"]:
        """Centres of the pixels: x right, y down."""
        height, width = self.size
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        return torch.stack([columns, rows], dim=-1)

    def directions(self, pixels: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
        """World directions of pixels, of unit length along the optical axis."""
        x = (pixels - self.intrinsics[2:]) / self.intrinsics[:2]
        local = torch.stack([x[..., 0], -x[..., 1], -torch.ones_like(x[..., 0])], dim=-1)
        return local @ self.pose[:, :3].T

    def lift(self, pixels: Float[Tensor, "*batch 2"], depth: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3"]:
        """World points of pixels at depths along the optical axis."""
        return self.pose[:, 3] + depth[..., None] * self.directions(pixels)


Entry = TypeVar("Entry")


class MadeOnDemand(Sequence[Entry]):
    """Entries that are made when they are asked for; those used last are kept, as far as a budget goes.

    Args:
        count: of entries.
        make: the entry at a place.
        num_bytes: what an entry takes.
        budget: bytes.
    """

    def __init__(
        self, count: int, make: Callable[[int], Entry], num_bytes: Callable[[Entry], int], budget: int
    ) -> None:
        self._count, self._make, self._num_bytes = count, make, num_bytes
        self._kept: LRUCache[int, Entry] = LRUCache(budget, num_bytes)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Entry:
        if not 0 <= place < self._count:
            raise IndexError(place)
        if place in self._kept:
            return self._kept[place]
        entry = self._make(place)
        if self._num_bytes(entry) <= self._kept.maxsize:
            self._kept[place] = entry
        return entry


def read_frame(dataset: SceneDataset, index: int, step: int) -> VideoFrame:
    """A frame of a data set; everything is decoded anew.

    Args:
        dataset: training frames, without lens distortion.
        index: of the frame.
        step: its time step.
    """
    item = dataset[index]
    cameras = dataset.cameras
    intrinsics = [getattr(cameras, name)[index].reshape(()) for name in ("fx", "fy", "cx", "cy")]
    return VideoFrame(
        step,
        cameras.camera_to_worlds[index].float(),
        torch.stack(intrinsics).float(),
        item["image"][..., :3],
        item["depth"][..., 0] if "depth" in item else None,
        item["dynamic_mask"][..., 0] > 0.5 if "dynamic_mask" in item else None,
        item.get("flow_forward"),
        item.get("flow_backward"),
    )


def longest_video(camera_ids: Sequence[str]) -> list[int]:
    """The frames of the camera that has most, in the order of time in which a data set has them."""
    chosen = max(dict.fromkeys(camera_ids), key=list(camera_ids).count)
    return [index for index, camera in enumerate(camera_ids) if camera == chosen]


def at_pixels(image: Tensor, pixels: Float[Tensor, "N 2"]) -> Tensor:
    """The values of the pixels that points fall into; those of the border outside.

    Args:
        image: [H, W] or [H, W, channels].
        pixels: x right, y down, centres at +0.5.
    """
    column = pixels[:, 0].long().clamp(0, image.shape[1] - 1)
    row = pixels[:, 1].long().clamp(0, image.shape[0] - 1)
    return image[row, column]
