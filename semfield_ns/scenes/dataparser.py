"""Any scene as Nerfstudio's commands want it: cameras with times, normalised, and which labels may be read."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.collection import shared_label_map
from semfield_ns.scenes.dataset import read_depth
from semfield_ns.scenes.flow import ensure_flows
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.labels import SemanticClass
from semfield_ns.scenes.lenses import undistorted_frames
from semfield_ns.scenes.scene import Frame, Scene
from semfield_ns.scenes.schedule import labelled_frames

logger = logging.getLogger("semfield")

_NEAR_AT = 1 / 0.9  # the LLFF and Nvidia rule: 0.9 of the nearest content is at depth 1
_EVAL_EVERY = 8


@dataclass
class SemfieldDataParserConfig(DataParserConfig):
    """Scenes with semantics: transforms.json (extended), Semantic Nvidia, LLFF."""

    _target: type = field(default_factory=lambda: SemfieldDataParser)
    """target class to instantiate"""
    data: Path = Path()
    """folder of the scene, or its transforms.json"""
    labels: str = "all"
    """frames whose labels training uses: all, none, first-25%, scattered-25%, every-2, or numbers such as 0,1,11"""
    dynamic_masks: Literal["all", "labelled", "none"] = "all"
    """frames whose dynamic masks training uses; "labelled" if masks made from labels would leak these"""
    eval_frames: Literal["auto", "held-out", "unlabelled", "train"] = "auto"
    """evaluate on held-out frames, frames with hidden labels, or every 8th training frame; auto: the first there is"""
    images: str | None = None
    """image folder of an LLFF or Nvidia scene, e.g. images_4 (default: images_2 for Nvidia, the smallest for LLFF)"""
    downscale_factor: int = 1
    """shrink images, and everything that belongs to them, by this factor when they are read"""
    undistort: bool = True
    """undistort images from lenses with distortion, and everything that belongs to their pixels"""
    scale_factor: float = 1.0
    """multiplies the scale of the normalised scene"""
    depth_unit_scale_factor: float | None = None
    """scene units for one unit of a depth file (default: what transforms.json says, else Nerfstudio's 0.001)"""
    estimate_flow: bool = True
    """estimate optical flow by OpenCV DIS where a scene has none (kept in $SEMFIELD_CACHE or ~/.cache/semfield_ns)"""
    classes: tyro.conf.Suppress[tuple[SemanticClass, ...]] = ()
    """class list of a model of several scenes, of which the scene's own is a part; set when such a model is trained"""


@dataclass
class SemfieldDataParser(DataParser):
    """Reads a scene of any layout, normalises it, and splits it.

    train: all training frames. Labels (and instance ids) that the schedule hides are not in their `Frame`s at all.
    val, test: held-out frames with labels, else the training frames whose labels the schedule hides, else every 8th
    training frame.

    Poses are recentred on the average pose and scaled so that the nearest content is at depth 1/0.9; without near
    bounds, depth or points, so that the cameras fit into [-1, 1]. All splits get the same transform.

    metadata of the outputs:
        frames: list of Frame in dataset order; sizes and intrinsics as loaded, poses in the scene's own units
        to_model: (3,4) float64, from the scene's own world to the normalised one
        label_map: LabelMap or None
        labelled: dataset indices of frames with labels that may be read
        camera_motion: "moving"; "turning" or "still" where all poses are of one place
        depth_kind: "metric", "disparity" or None
        depth_scale: multiplies values of depth files to give normalised units (1 for disparity)
        near, far: depth of the nearest and furthest content in normalised units, or None
        time_table: (T,) float32, normalised times of the training video, ascending
        camera_ids: camera_id of each frame
        points: (M,3) float32 sparse points in normalised units, or None
    """

    config: SemfieldDataParserConfig
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        config = self.config
        if config.downscale_factor < 1 or not config.scale_factor > 0:
            raise SemfieldError("downscale-factor must be at least 1, and scale-factor above 0.")
        scene = read_scene(config.data, config.images)
        if config.depth_unit_scale_factor is not None and scene.depth_kind == "metric":
            scene = replace(scene, depth_unit_scale=config.depth_unit_scale_factor)
        frames = select_frames(scene, split, config.labels, config.dynamic_masks, config.eval_frames)
        if split == "train":
            frames = of_one_size(frames)
        if split == "train" and config.estimate_flow:
            frames = ensure_flows(frames)
        frames = [shrink(frame, config.downscale_factor) for frame in frames]
        # Nothing after this knows fisheyes.
        if config.undistort or any(frame.fisheye for frame in frames):
            frames = undistorted_frames(frames)

        recentre, depth = average_pose_inverse(scene.train), depth_range(scene)
        scale = config.scale_factor * unit_scale(scene, recentre, depth)
        poses = np.stack([recentre @ frame.c2w for frame in frames])
        poses[:, :3, 3] *= scale
        points = None if scene.points is None else (scene.points @ recentre[:3, :3].T + recentre[:3, 3]) * scale
        has_masks = any(frame.mask_path for frame in frames)
        return DataparserOutputs(
            image_filenames=[frame.image_path for frame in frames],
            cameras=make_cameras(frames, poses, normalised_times(scene, [frame.time for frame in frames])),
            scene_box=SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])),
            # The dataset reads masks itself; a frame without one is used whole.
            mask_filenames=[frame.mask_path for frame in frames] if has_masks else None,  # type: ignore[misc]
            dataparser_transform=torch.from_numpy(recentre[:3]).float(),
            dataparser_scale=scale,
            metadata={
                "frames": frames,
                "to_model": scale * recentre[:3],
                "label_map": shared_label_map(scene.label_map, config.classes),
                "labelled": [i for i, frame in enumerate(frames) if frame.semantic_path is not None],
                "camera_motion": scene.camera_motion,
                "depth_kind": scene.depth_kind,
                "depth_scale": scale * scene.depth_unit_scale if scene.depth_kind == "metric" else 1.0,
                "near": depth.near and depth.near * scale,
                "far": depth.far and depth.far * scale,
                "time_table": torch.from_numpy(normalised_times(scene, scene.times)),
                "camera_ids": [frame.camera_id for frame in frames],
                "points": None if points is None else torch.from_numpy(points).float(),
            },
        )


# --- which frames, which labels --------------------------------------------------------------------------------------


def scheduled(scene: Scene, schedule: str) -> list[bool]:
    """For each training frame whether the schedule lets its label be read. Schedules count time steps of the video."""
    steps = [frame.time_index for frame in scene.train]
    if len(scene.times) == 1:  # many cameras at one moment: there is no video to count along
        steps = list(range(len(scene.train)))
    chosen = set(labelled_frames(schedule, max(steps) + 1))
    return [step in chosen for step in steps]


def select_frames(scene: Scene, split: str, labels: str, dynamic_masks: str, eval_frames: str) -> list[Frame]:
    """The frames of a split, with exactly the labels that may be read there."""
    shown = scheduled(scene, labels)
    if split == "train":
        frames = [
            _hide(frame, not show, dynamic_masks == "none" or (dynamic_masks == "labelled" and not show))
            for frame, show in zip(scene.train, shown, strict=True)
        ]
        if scene.label_map is not None and labels != "none" and not any(frame.semantic_path for frame in frames):
            raise SemfieldError(f'Scene {scene.root}: no frame that the label schedule "{labels}" picks has a label.')
        return frames
    hidden = [frame for frame, show in zip(scene.train, shown, strict=True) if not show and frame.semantic_path]
    held_out = [frame for frame in scene.test if frame.semantic_path] or ([] if hidden else scene.test)
    if eval_frames == "held-out":
        held_out = held_out or scene.test
    choices = {"held-out": held_out, "unlabelled": hidden, "train": scene.train[::_EVAL_EVERY]}
    if eval_frames != "auto":
        if not choices[eval_frames]:
            raise SemfieldError(f'Scene {scene.root} has no frames for eval-frames "{eval_frames}": use "auto".')
        return choices[eval_frames]
    return next(frames for frames in choices.values() if frames)


def _hide(frame: Frame, labels: bool, mask: bool) -> Frame:
    """The frame without the paths that must not be read: what is not there cannot leak."""
    if labels:
        frame = replace(frame, semantic_path=None, instance_path=None)
    return replace(frame, dynamic_mask_path=None) if mask else frame


def shrink(frame: Frame, factor: int) -> Frame:
    """The frame at 1/factor of its resolution (rounded down to whole pixels)."""
    if factor == 1:
        return frame
    return resized(frame, max(1, frame.height // factor), max(1, frame.width // factor))


def resized(frame: Frame, height: int, width: int) -> Frame:
    """The frame at another resolution."""
    x, y = width / frame.width, height / frame.height
    return replace(
        frame, width=width, height=height, fx=frame.fx * x, cx=frame.cx * x, fy=frame.fy * y, cy=frame.cy * y
    )


def of_one_size(frames: Sequence[Frame]) -> list[Frame]:
    """The frames at the largest of the frequent sizes; pictures and all that belongs to their pixels follow when read.

    Frequent is what more than half as many frames have as have the most frequent one. Where the shape differs, pixels
    stop being squares, which the focal lengths say. Optical flow in files is between pictures of the sizes that they
    had, and is left out.
    """
    sizes = Counter(frame.size for frame in frames)
    if len(sizes) < 2:
        return list(frames)
    common = [size for size in sizes if sizes[size] > max(sizes.values()) / 2]
    height, width = max(common, key=lambda size: size[0] * size[1])
    listed = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
    logger.info("Training images have %d sizes (%s): all are brought to %dx%d.", len(sizes), listed, width, height)
    return [
        replace(
            resized(frame, height, width),
            stored_size=frame.size if frame.height < height and frame.width < width else None,
            flow_fwd_path=None,
            flow_bwd_path=None,
        )
        for frame in frames
    ]


# --- normalisation ---------------------------------------------------------------------------------------------------


def average_pose_inverse(frames: Sequence[Frame]) -> Float[np.ndarray, "4 4"]:
    """World-to-average-camera: mean position, mean viewing and up directions made orthonormal.

    Cameras that look in all directions have no mean direction; then only the position is averaged.
    """
    poses = np.stack([frame.c2w for frame in frames])
    back, up = poses[:, :3, 2].mean(axis=0), poses[:, :3, 1].mean(axis=0)
    right = np.cross(up, back)
    average = np.eye(4)
    average[:3, 3] = poses[:, :3, 3].mean(axis=0)
    if np.linalg.norm(back) > 1e-2 and np.linalg.norm(right) > 1e-3:
        z, x = back / np.linalg.norm(back), right / np.linalg.norm(right)
        average[:3, :3] = np.stack([x, np.cross(z, x), z], axis=-1)
    return np.linalg.inv(average)


class DepthRange(NamedTuple):
    """Depths of the content in the scene's own units; None where nothing tells."""

    near: float | None
    """nearest content"""
    far: float | None
    """furthest content"""
    typical_near: float | None
    """what the scale is set by: less at the mercy of a few near points than `near`"""


def depth_range(scene: Scene) -> DepthRange:
    """The scene's own bounds, or else what depth maps or points in view say (percentiles 0.5, 99.5 and 5)."""
    depths = np.zeros(0) if scene.near and scene.far else _some_depths(scene)
    measured = [float(value) for value in np.percentile(depths, (0.5, 99.5, 5))] if depths.size else [None] * 3
    return DepthRange(scene.near or measured[0], scene.far or measured[1], scene.near or measured[2])


def unit_scale(scene: Scene, recentre: Float[np.ndarray, "4 4"], depth: DepthRange) -> float:
    """The factor from the scene's units to normalised ones."""
    if depth.typical_near is not None:
        return _NEAR_AT / depth.typical_near
    extent = max(float(np.abs((recentre @ frame.c2w)[:3, 3]).max()) for frame in scene.train)
    return 1 / extent if extent > 1e-9 else 1.0


def _some_depths(scene: Scene, num_frames: int = 8) -> Float[np.ndarray, "K"]:
    """Positive depths, in the scene's units, of a few frames spread over the video."""
    frames = scene.train[:: -(-len(scene.train) // num_frames)]
    if scene.depth_kind == "metric":
        maps = [read_depth(frame, metric=True)[::4, ::4].ravel() for frame in frames if frame.depth_path is not None]
        depths = np.concatenate(maps) * scene.depth_unit_scale if maps else np.zeros(0)
    elif scene.points is not None:
        depths = np.concatenate([depths_in_view(frame, scene.points) for frame in scene.train])
    else:
        return np.zeros(0)
    return depths[depths > 0]


def depths_in_view(frame: Frame, points: Float[np.ndarray, "M 3"]) -> Float[np.ndarray, "K"]:
    """z-depths of the points that lie in front of a camera and inside its picture (distortion left aside)."""
    x, y, z = ((points - frame.c2w[:3, 3]) @ frame.c2w[:3, :3] * [1.0, -1.0, -1.0]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = frame.fx * x / z + frame.cx, frame.fy * y / z + frame.cy
    return z[(z > 0) & (u >= 0) & (u < frame.width) & (v >= 0) & (v < frame.height)]


def normalised_times(scene: Scene, times: Sequence[float] | np.ndarray) -> Float[np.ndarray, "N"]:
    """Raw times brought to [0, 1], float32, over all frames of the scene, held-out ones included."""
    every = [frame.time for frame in (*scene.train, *scene.test)]
    start, length = min(every), max(every) - min(every)
    return ((np.asarray(times, dtype=np.float64) - start) / (length or 1.0)).astype(np.float32)


def make_cameras(frames: Sequence[Frame], poses: Float[np.ndarray, "N _ 4"], times: Float[np.ndarray, "N"]) -> Cameras:
    """Nerfstudio cameras with times [N,1] and distortion."""

    def column(name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor([[getattr(frame, name)] for frame in frames], dtype=dtype)

    return Cameras(
        camera_to_worlds=torch.from_numpy(poses[:, :3]).float(),
        fx=column("fx"),
        fy=column("fy"),
        cx=column("cx"),
        cy=column("cy"),
        width=column("width", torch.int64),
        height=column("height", torch.int64),
        distortion_params=torch.from_numpy(np.stack([frame.distortion for frame in frames])).float(),
        camera_type=CameraType.PERSPECTIVE,
        times=torch.from_numpy(times)[:, None],
    )
