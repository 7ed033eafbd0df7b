"""Many scenes as one data set: poses in memory, pictures read when they are needed and kept up to a budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.memory import BoundedCache
from semfield_ns.gsn.normalisation import normalise, range_of
from semfield_ns.gsn.projection import SourceViews, project
from semfield_ns.io import capital, read_rgb
from semfield_ns.rendering.rays import sent
from semfield_ns.scenes.dataparser import make_cameras
from semfield_ns.scenes.dataset import read_depth
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.scene import Frame, Scene

_HOLD_OUT_EVERY = 8
MIN_VIEWS = 3


@dataclass(frozen=True, eq=False)
class PosedScene:
    """A static scene in normalised coordinates."""

    name: str
    """relative to the root it was found in"""
    frames: list[Frame]
    """at the size they are loaded in; poses in the scene's own units"""
    cameras: Cameras
    """of all frames, normalised"""
    train: list[int]
    """images that may be sources and targets of training"""
    held_out: list[int]
    """images for evaluation alone"""
    near: float
    """depth at which rays start"""
    far: float
    """depth at which rays end"""
    transform: Float[Tensor, "3 4"]
    """from the scene's world to the recentred one, before scaling"""
    scale: float
    ranges: Float[Tensor, "N 2"] | None = None
    """nearest and furthest depth in every image, where known; NaN for some"""
    depth_paths: tuple[Path | None, ...] = ()
    """depth files of the frames; none where the scene brings no depth, or relative one"""
    depth_unit: float = 1.0
    """normalised units of 1 in a depth file"""

    def bounds(self, sources: Sequence[int]) -> tuple[float, float]:
        """Depths between which rays are looked at that are rendered from these images."""
        if self.ranges is None:
            return self.near, self.far
        return range_of(self.ranges[list(sources)], self.near, self.far)

    @property
    def centres(self) -> Float[Tensor, "N 3"]:
        """Camera centres."""
        return self.cameras.camera_to_worlds[:, :3, 3]


def load_scene(
    path: Path, name: str, images: str | None = None, longest_side: int | None = None, hold_out: bool = True
) -> PosedScene:
    """Reads one scene of any layout and normalises it.

    Args:
        path: its folder or transforms.json.
        name: to call it by.
        images: image folder of an LLFF scene; the smallest by default.
        longest_side: shrink pictures so that no side is longer, pixels.
        hold_out: keep every 8th image out of training where the scene itself holds none out.

    Raises:
        SemfieldError: as the readers do, and for too few views or views without overlap.
    """
    scene = read_scene(path, images)
    round_one = next((frame for frame in (*scene.train, *scene.test) if frame.fisheye), None)
    if round_one is not None:
        raise SemfieldError(
            f"{capital(round_one.where)} is of a fisheye, which gsn does not support: undistort the pictures of "
            f"{scene.root} first, such as with COLMAP's image_undistorter."
        )
    normalised = normalise(scene)
    frames = [resized(frame, longest_side) for frame in (*scene.train, *scene.test)]
    train, held_out = split(scene, hold_out)
    if len(train) < MIN_VIEWS:
        raise SemfieldError(
            f"Scene {scene.root} has {len(train)} training images; at least {MIN_VIEWS} are needed, besides those "
            "held out for evaluation."
        )
    odd = next((frames[index] for index in train if frames[index].size != frames[train[0]].size), None)
    if odd is not None:
        first = frames[train[0]]
        raise SemfieldError(
            f"Source views have to be of one size, but {odd.where} has {odd.width}x{odd.height} pixels and "
            f"{first.where} {first.width}x{first.height}: resize the images of {scene.root}."
        )
    cameras = make_cameras(frames, normalised.poses, np.zeros(len(frames), dtype=np.float32))
    cameras.times = None
    posed = PosedScene(
        name,
        frames,
        cameras,
        train,
        held_out,
        normalised.near,
        normalised.far,
        torch.from_numpy(normalised.transform).float(),
        normalised.scale,
        None if normalised.ranges is None else torch.from_numpy(normalised.ranges).float(),
        *_depth_files(scene, normalised.scale),
    )
    if not views_overlap(posed):
        raise SemfieldError(
            f"Scene {scene.root}: no image shows anything that another one shows; check its poses and bounds."
        )
    return posed


def _depth_files(scene: Scene, scale: float) -> tuple[tuple[Path | None, ...], float]:
    paths = tuple(frame.depth_path for frame in (*scene.train, *scene.test))
    metric = scene.depth_kind == "metric" and any(paths)
    return paths if metric else (), scale * scene.depth_unit_scale


def split(scene: Scene, hold_out: bool) -> tuple[list[int], list[int]]:
    """Indices for training and for evaluation, of the scene's training frames followed by its test frames."""
    count = len(scene.train)
    if scene.test:
        return list(range(count)), list(range(count, count + len(scene.test)))
    if not hold_out:
        return list(range(count)), []
    held_out = list(range(0, count, _HOLD_OUT_EVERY))
    return [index for index in range(count) if index not in held_out], held_out


def resized(frame: Frame, longest_side: int | None) -> Frame:
    """The frame at a size whose longer side is at most so many pixels, without what a static scene has no use for."""
    bare = replace(
        frame,
        semantic_path=None,
        instance_path=None,
        dynamic_mask_path=None,
        flow_fwd_path=None,
        flow_bwd_path=None,
        depth_path=None,
        mask_path=None,
    )
    longest = max(frame.width, frame.height)
    if longest_side is None or longest <= longest_side:
        return bare
    width, height = (max(1, round(side * longest_side / longest)) for side in (frame.width, frame.height))
    x, y = width / frame.width, height / frame.height
    return replace(bare, width=width, height=height, fx=frame.fx * x, cx=frame.cx * x, fy=frame.fy * y, cy=frame.cy * y)


def views_overlap(scene: PosedScene, steps: int = 8) -> bool:
    """Whether a training image shows, at some depth in its middle, a place that another one shows."""
    bundle = scene.cameras.generate_rays(
        camera_indices=torch.tensor(scene.train)[:, None],
        coords=torch.stack([scene.cameras.height[scene.train, 0] / 2, scene.cameras.width[scene.train, 0] / 2], dim=-1),
    )
    inverse = torch.linspace(1 / scene.near, 1 / scene.far, steps)
    depths = (1 / inverse) * bundle.metadata["directions_norm"]
    points = bundle.origins[:, None] + bundle.directions[:, None] * depths[..., None]
    count = len(scene.train)
    seen = torch.zeros(count, count * steps, dtype=torch.bool)
    for row, index in enumerate(scene.train):
        frame = scene.frames[index]
        views = posed_views(scene, [index], torch.empty(1, 3, frame.height, frame.width))
        seen[row] = project(points.reshape(-1, 3), views)[1][0]
    others = seen.view(count, count, steps) & ~torch.eye(count, dtype=torch.bool)[..., None]
    return bool(others.any())


def posed_views(scene: PosedScene, indices: Sequence[int], images: Float[Tensor, "V 3 H W"]) -> SourceViews:
    """Source views of given pictures of a scene, not encoded yet, on the device of the pictures."""
    cameras, index = scene.cameras, list(indices)
    # Nerfstudio's pixel centres are at +0.5, those of `projection` at 0.
    values = [cameras.fx[index], cameras.fy[index], cameras.cx[index] - 0.5, cameras.cy[index] - 0.5]
    assert cameras.distortion_params is not None, "our readers say what they know of it"
    distortion = cameras.distortion_params[index]
    return SourceViews(
        images=images,
        camera_to_world=sent(cameras.camera_to_worlds[index], images.device),
        intrinsics=sent(torch.cat(values, dim=-1).float(), images.device),
        distortion=sent(distortion, images.device) if bool(distortion.any()) else None,
    )


class SceneLibrary:
    """Scenes with their pictures, which are read lazily.

    Memory: poses of all scenes, and at most `image_budget` bytes of pictures (8 bits a channel) and of depth.

    Args:
        scenes: at least one.
        image_budget: bytes.
    """

    def __init__(self, scenes: Sequence[PosedScene], image_budget: int) -> None:
        self.scenes = list(scenes)
        self.images = BoundedCache(image_budget)

    def image(self, scene: int, index: int) -> UInt8[Tensor, "H W 3"]:
        """One picture."""
        frame = self.scenes[scene].frames[index]
        return self.images.get(
            (scene, index), lambda: torch.from_numpy(read_rgb(frame.image_path, f"{frame.where}, image", frame.size))
        )

    def depth(self, scene: int, index: int) -> Float[Tensor, "H W"]:
        """Depth of one picture along the optical axis, normalised units; 0 where it is not known."""
        posed = self.scenes[scene]
        path = posed.depth_paths[index] if posed.depth_paths else None
        frame = replace(posed.frames[index], depth_path=path)
        if path is None:
            return torch.zeros(frame.size)

        def read() -> Tensor:
            values = read_depth(frame, metric=True) * np.float32(posed.depth_unit)
            # Between two surfaces there is none: no interpolation.
            return torch.from_numpy(cv2.resize(values, frame.size[::-1], interpolation=cv2.INTER_NEAREST))

        return self.images.get((scene, index, "depth"), read)

    def views(self, scene: int, indices: Sequence[int], device: torch.device | str = "cpu") -> SourceViews:
        """Source views, not encoded yet."""
        images = sent(torch.stack([self.image(scene, index) for index in indices]), device)
        images = images.permute(0, 3, 1, 2).float() / 255
        return posed_views(self.scenes[scene], indices, images)
