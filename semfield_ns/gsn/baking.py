"""A scene that Gaussians can be fitted to: the photos of a scene, with depth that several of them agree on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from semfield_ns.gsn.library import PosedScene
from semfield_ns.io import read_rgb, write_npy, write_png
from semfield_ns.scenes.formats.transforms import write_transforms
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

    Depth that no other view confirms is unknown: 0. All photos are of one moment; the same are held out.

    Args:
        scene: of photos, without lens distortion.
        folder: of the scene to write.
        watch: goes through the photos whose depth is found.

    Returns:
        The transforms.json, in the scene's own coordinates.
    """
    train = [_posed(scene, index).reduced(LONGEST) for index in scene.train]
    depths = [
        plane_sweep(train[n], [train[o] for o in neighbours(train, n, COMPARED)], scene.near, scene.far)
        for n in watch(range(len(train)))
    ]

    def written(index: int) -> Frame:
        frame, image = scene.frames[index], folder / "images" / f"{index:04d}.png"
        write_png(image, _rgb(scene, index))
        return replace(frame, image_path=image, time=0.0, camera_id=f"{index:04d}")

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


def _rgb(scene: PosedScene, index: int) -> np.ndarray:
    frame = scene.frames[index]
    return read_rgb(frame.image_path, f"{frame.where}, image", frame.size)


def _posed(scene: PosedScene, index: int) -> PosedPicture:
    """A photo in the coordinates of the normalised scene."""
    frame = scene.frames[index]
    pose = scene.cameras.camera_to_worlds[index].double().numpy()
    return PosedPicture(_rgb(scene, index), pose, (frame.fx, frame.fy, frame.cx, frame.cy))
