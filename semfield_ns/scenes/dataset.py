"""The pictures of a scene with all their per-pixel data, at the resolution of the cameras."""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.io import capital, read_image, read_mask, read_npy, read_rgb
from semfield_ns.scenes.flow import read_flow
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.scenes.lenses import resampled, resampled_flow
from semfield_ns.scenes.scene import Frame


class SceneDataset(InputDataset):
    """Images and, where the scene has them, labels, masks, depth and flow; everything resized to the camera,
    and undistorted where the frame has another lens than its files.

    An item has, besides Nerfstudio's `image_idx`, `image` [H,W,3] and `mask` [H,W,1]:

    - semantics: int64 [H,W,1] class ids, IGNORE (-1) where there is no label; always when the scene has classes
    - dynamic_mask: float32 [H,W,1], 1 moving, 0 still, -1 unknown; when any frame of the scene has one
    - depth: float32 [H,W,1], z-depth in scene units or raw disparity (metadata "depth_kind"), 0 where unknown;
      when any frame has one
    - flow_forward, flow_backward: float32 [H,W,3] (dx, dy in px, valid 0 or 1); when any frame has one

    Nothing is kept in memory: Nerfstudio's data managers keep the batches. Files that cannot be decoded raise
    SemfieldError naming the frame and the file.
    """

    exclude_batch_keys_from_device = [  # noqa: RUF012 (Nerfstudio declares it so)
        *InputDataset.exclude_batch_keys_from_device,
        "semantics",
        "dynamic_mask",
        "depth",
        "flow_forward",
        "flow_backward",
    ]

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        if "frames" not in self.metadata:
            raise SemfieldError("SceneDataset reads scenes of the semfield-data dataparser: choose that dataparser.")
        self.frames: list[Frame] = self.metadata["frames"]
        self.label_map = self.metadata["label_map"]
        self._has = {
            key: any(getattr(frame, key) is not None for frame in self.frames)
            for key in ("dynamic_mask_path", "depth_path", "flow_fwd_path", "flow_bwd_path", "mask_path")
        }

    @property
    def has_flow(self) -> bool:
        """Whether any frame has optical flow."""
        return self._has["flow_fwd_path"] or self._has["flow_bwd_path"]

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of an item, px."""
        return int(self.cameras.height[index]), int(self.cameras.width[index])

    def get_numpy_image(self, image_idx: int) -> npt.NDArray[np.uint8]:
        """(H,W,3) uint8. What is transparent shows white."""
        frame = self.frames[image_idx]
        image = read_rgb(frame.image_path, f"{frame.where}, image", self.size(image_idx))
        return resampled(image, frame, cv2.INTER_LINEAR)

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """One item, as listed above."""
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        data: dict[str, Any] = {"image_idx": image_idx, "image": image}
        if self._has["mask_path"]:
            data["mask"] = self._mask(image_idx, "mask_path", "mask", missing=1.0) > 0.5
        return data | self.get_metadata(data)

    def get_metadata(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """Everything but the image and the mask."""
        index = int(data["image_idx"])
        items = {}
        if self.label_map is not None:
            items["semantics"] = self.semantics(index)
        if self._has["dynamic_mask_path"]:
            items["dynamic_mask"] = self._mask(index, "dynamic_mask_path", "dynamic mask", missing=-1.0)
        if self._has["depth_path"]:
            items["depth"] = self._depth(index)
        for key, field in (("flow_forward", "flow_fwd_path"), ("flow_backward", "flow_bwd_path")):
            if self._has["flow_fwd_path"] or self._has["flow_bwd_path"]:
                items[key] = self.flow(index, field)
        return items

    def semantics(self, index: int) -> Int[Tensor, "H W 1"]:
        """Class ids of one frame; IGNORE everywhere if its label is absent or hidden."""
        frame, size = self.frames[index], self.size(index)
        if self.label_map is None or frame.semantic_path is None:
            return torch.full((*size, 1), IGNORE, dtype=torch.int64)
        ids = self.label_map.read(frame.semantic_path, size, f"{frame.where}, label image", resize=True)
        return torch.from_numpy(resampled(ids.astype(np.int32), frame, cv2.INTER_NEAREST).astype(np.int64))[..., None]

    def moving(self) -> Bool[Tensor, "frames H W"] | None:
        """Motion masks of all frames, unknown as still; None without any, or where pictures differ in size."""
        sizes = {self.size(index) for index in range(len(self))}
        if not self._has["dynamic_mask_path"] or len(sizes) > 1:
            return None
        masks = [self._mask(i, "dynamic_mask_path", "dynamic mask", missing=-1.0) for i in range(len(self))]
        return torch.stack([mask[..., 0] > 0.5 for mask in masks])

    def _mask(self, index: int, field: str, what: str, missing: float) -> Float[Tensor, "H W 1"]:
        frame, (height, width) = self.frames[index], self.size(index)
        path: Path | None = getattr(frame, field)
        if path is None:
            return torch.full((height, width, 1), missing)
        values = read_mask(path, f"{frame.where}, {what}").astype(np.uint8)
        mask = resampled(_resize(values, height, width, cv2.INTER_NEAREST), frame, cv2.INTER_NEAREST)
        return torch.from_numpy(mask.astype(np.float32))[..., None]

    def _depth(self, index: int) -> Float[Tensor, "H W 1"]:
        frame, (height, width) = self.frames[index], self.size(index)
        if frame.depth_path is None:
            return torch.zeros((height, width, 1))
        depth = read_depth(frame, self.metadata["depth_kind"] == "metric") * self.metadata["depth_scale"]
        # Metric depth has holes (0) and edges that must not be averaged across.
        smooth = self.metadata["depth_kind"] == "disparity"
        interpolation = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
        depth = _resize(depth.astype(np.float32), height, width, interpolation)
        return torch.from_numpy(resampled(depth, frame, interpolation))[..., None]

    def flow(self, index: int, field: str) -> Float[Tensor, "H W 3"]:
        """Optical flow of one frame, "flow_fwd_path" or "flow_bwd_path"; nowhere valid if it has none."""
        frame, (height, width) = self.frames[index], self.size(index)
        path: Path | None = getattr(frame, field)
        if path is None:
            return torch.zeros((height, width, 3))
        flow, valid = read_flow(path, f"{frame.where}, optical flow")
        scale = np.array([width / flow.shape[1], height / flow.shape[0]], dtype=np.float32)
        flow = _resize(flow * scale, height, width, cv2.INTER_NEAREST)  # no flow between that of two things
        valid = _resize(valid.astype(np.uint8), height, width, cv2.INTER_NEAREST)
        flow, valid = resampled_flow(flow, frame), resampled(valid, frame, cv2.INTER_NEAREST)
        return torch.from_numpy(np.concatenate([flow, valid[..., None].astype(np.float32)], axis=-1))


def read_depth(frame: Frame, metric: bool = False) -> Float[np.ndarray, "H W"]:
    """Values of a frame's depth file (.npy, or 16-bit PNG), 0 where they are not finite or negative.

    Raises:
        SemfieldError: the file is missing, broken, no map of numbers, or has 8 bits where depth is `metric`.
    """
    assert frame.depth_path is not None
    where = f"{frame.where}, depth"
    if frame.depth_path.suffix == ".npy":
        values = read_npy(frame.depth_path, where)
        values = values.squeeze() if values.ndim > 2 else values
    else:
        image = read_image(frame.depth_path, where)
        if image.mode == "P" or (metric and image.mode in ("1", "L")):
            raise SemfieldError(
                f"{capital(where)}: {frame.depth_path} is an 8-bit picture, whose grey levels are no depths: give a "
                '16-bit PNG or an .npy, or say "depth_kind": "disparity" where it is a relative inverse depth.'
            )
        values = np.array(image)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise SemfieldError(f"{capital(where)}: {frame.depth_path} has the shape {values.shape}, not a map (H, W).")
    values = values.astype(np.float32)
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(0))


def _resize(values: np.ndarray, height: int, width: int, interpolation: int) -> np.ndarray:
    if values.shape[:2] == (height, width):
        return values
    return cv2.resize(values, (width, height), interpolation=interpolation)
