"""A scene that Gaussians can be fitted to: the photos of a scene, with depth that several of them agree on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from semfield_ns.gsn.library import PosedScene
from semfield_ns.io import read_rgb, write_npy, write_png
from semfield_ns.scenes.formats.transforms import write_transforms
from semfield_ns.scenes.lenses import resampled, undistorted
from semfield_ns.scenes.scene import Frame, assemble_scene
from semfield_ns.scenes.stereo import PosedPicture, confirmed, neighbours, plane_sweep

LONGEST = 240
"""px: the longer side of the pictures that depth is found in"""
COMPARED = 4
"""nearest views that a picture is compared with"""
WITNESSES = 6
"""nearest views that are asked whether they see the same surface"""

Watch = Callable[[Sequence[int]], Iterable[int]]


def write_posed_scene(scene: PosedScene, folder: Path, watch: Watch = lambda numbers: numbers) -> Path:
    """Writes the photos of a scene, at the size that they are loaded in, with their depth.

    Photos are undistorted. Depth that no other view confirms is unknown: 0. All photos are of one moment; the same are
    held out.

    Args:
        scene: of photos.
        folder: of the scene to write.
        watch: goes through the photos whose depth is found.

    Returns:
        The transforms.json, in the scene's own coordinates.

    Raises:
        SemfieldError: a photo cannot be undistorted.
    """
    train = [_posed(scene, index).reduced(LONGEST) for index in scene.train]
    depths = [
        plane_sweep(train[n], [train[o] for o in neighbours(train, n, COMPARED)], scene.near, scene.far)
        for n in watch(range(len(train)))
    ]

    def written(index: int) -> Frame:
        (frame, rgb), image = _pinhole(scene, index), folder / "images" / f"{index:04d}.png"
        write_png(image, rgb)
        return replace(frame, image_path=image, time=0.0, camera_id=f"{index:04d}", lens=None)

    def with_depth(number: int) -> Frame:
        frame = written(scene.train[number])
        others = [(train[other], depths[other]) for other in neighbours(train, number, WITNESSES)]
        known = np.where(confirmed(train[number], depths[number], others), depths[number] / scene.scale, 0)
        file = folder / "depth" / f"{scene.train[number]:04d}.npy"
        size = frame.width, frame.height
        write_npy(file, np.asarray(cv2.resize(known, size, interpolation=cv2.INTER_NEAREST), np.float32))
        return replace(frame, depth_path=file)

    posed = assemble_scene(
        folder,
        [with_depth(number) for number in range(len(train))],
        [written(index) for index in scene.held_out],
        depth_kind="metric",
        near=scene.near / scene.scale,
        far=scene.far / scene.scale,
    )
    return write_transforms(posed, folder)


def _pinhole(scene: PosedScene, index: int) -> tuple[Frame, UInt8[np.ndarray, "H W 3"]]:
    """A photo as a pinhole sees it."""
    frame = undistorted(scene.frames[index])
    rgb = read_rgb(frame.image_path, f"{frame.where}, image", frame.size)
    return frame, resampled(rgb, frame, cv2.INTER_LINEAR)


def _posed(scene: PosedScene, index: int) -> PosedPicture:
    """The same, in the coordinates of the normalised scene."""
    frame, rgb = _pinhole(scene, index)
    pose = scene.cameras.camera_to_worlds[index].double().numpy()
    return PosedPicture(rgb, pose, (frame.fx, frame.fy, frame.cx, frame.cy))
