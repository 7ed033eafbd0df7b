"""The Semantic Nvidia layout: LLFF poses of a monocular video, with disparity, flow, motion masks and labels."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import capital
from semfield_ns.scenes.formats.llff import (
    frames_at_poses,
    image_folder,
    in_natural_order,
    list_images,
    match_by_stem,
    read_poses_bounds,
)
from semfield_ns.scenes.labels import LabelMap
from semfield_ns.scenes.scene import Frame, Scene, assemble_scene

_LABELS = "SegmentationClass_train"
_MARKS = (_LABELS, "flow", "disp", "motion_masks", "multiview_GT")


def is_nvidia(path: Path) -> bool:
    """Whether a folder has LLFF poses and something that only this layout has."""
    return (path / "poses_bounds.npy").exists() and any((path / mark).is_dir() for mark in _MARKS)


def read_nvidia(path: Path, images: str | None = None) -> Scene:
    """Read one scene of the layout; frame i is camera i at time i.

    Args:
        path: the scene's folder; labelmap.txt and foreground_object.txt lie in it or beside it.
        images: the image folder; images_2 if None and there is one, else the smallest images there are.

    Held-out frames come from multiview_GT/{time}/cam{pose}, with labels from multiview_GT_semantic. Camera numbers
    start from 1 unless there is a cam00. Labels, masks and held-out images may be a whole multiple of the size of the
    training images (the annotators worked at full size); they are reduced when they are read.
    Where one of the folders disp, motion_masks or flow exists, it must be complete; labels may be for some frames only.
    Raises SemfieldError naming the frame and the file.
    """
    path = Path(path)
    files = list_images(image_folder(path, images, prefer="images_2"))
    poses, hwf, bounds = read_poses_bounds(path / "poses_bounds.npy", len(files))
    frames = frames_at_poses(files, poses, hwf, path / "poses_bounds.npy")
    if in_natural_order(frames)[-1].image_path != frames[-1].image_path:
        raise SemfieldError(
            f"{files[0].parent} has images whose names are not in the order of their numbers (10 before 2): give all "
            "numbers as many digits, in all folders of the scene."
        )
    train = _with_files(path, frames)
    labelled = (path / _LABELS).is_dir() or (path / "multiview_GT_semantic").is_dir()
    return assemble_scene(
        path,
        train,
        _held_out(path, frames),
        multiples=True,
        label_map=LabelMap.from_nvidia(_beside(path, "labelmap.txt"), _beside(path, "foreground_object.txt"))
        if labelled
        else None,
        depth_kind="disparity" if (path / "disp").is_dir() else None,
        near=float(np.percentile(bounds[:, 0], 5)),
        far=float(bounds[:, 1].max()),
    )


def _beside(path: Path, name: str) -> Path:
    """A file of the scene's folder, or of its parent (which all scenes share)."""
    return path / name if (path / name).exists() else path.resolve().parent / name


def _with_files(path: Path, frames: list[Frame]) -> list[Frame]:
    """Attach labels, disparity, motion masks (by the name of the image) and flow (by the number of the frame)."""
    labels = match_by_stem(frames, path / _LABELS, ".png")
    disparities = _complete(frames, path / "disp", ".npy", "disparity")
    masks = _complete(frames, path / "motion_masks", ".png", "motion mask")
    flow, last = path / "flow", len(frames) - 1
    return [
        replace(
            frame,
            semantic_path=labels[i],
            depth_path=disparities[i],
            dynamic_mask_path=masks[i],
            flow_fwd_path=flow / f"{i:03d}_fwd.npz" if flow.is_dir() and i < last else None,
            flow_bwd_path=flow / f"{i:03d}_bwd.npz" if flow.is_dir() and i > 0 else None,
        )
        for i, frame in enumerate(frames)
    ]


def _complete(frames: list[Frame], folder: Path, suffix: str, what: str) -> list[Path | None]:
    files = match_by_stem(frames, folder, suffix)
    if folder.is_dir() and None in files:
        frame = frames[files.index(None)]
        raise SemfieldError(f"{capital(frame.where)}: its {what} {folder / frame.image_path.stem}{suffix} is missing.")
    return files


def _held_out(path: Path, frames: list[Frame]) -> list[Frame]:
    """Frames of multiview_GT: any time seen from any pose of the video."""
    folder = path / "multiview_GT"
    if not folder.is_dir():
        return []
    found = [(file, *_time_and_camera(file)) for file in sorted(folder.glob("*/cam*.*"))]
    if not found:
        raise SemfieldError(f"{folder} holds no image of the form 00000000/cam01.jpg.")
    first = min(1, *(camera for _, _, camera in found))
    held_out = []
    for file, time, camera in found:
        if time >= len(frames) or not 0 <= camera - first < len(frames):
            raise SemfieldError(
                f"Held-out image {file} has a time or camera that the {len(frames)} training frames lack."
            )
        labels = path / "multiview_GT_semantic" / file.parent.name / f"{file.stem}.png"
        held_out.append(
            replace(
                frames[camera - first],
                image_path=file,
                time=float(time),
                camera_id=file.stem,
                semantic_path=labels if labels.exists() else None,
            )
        )
    return held_out


def _time_and_camera(file: Path) -> tuple[int, int]:
    camera = re.fullmatch(r"cam(\d+)", file.stem)
    if camera is None or not file.parent.name.isdigit():
        raise SemfieldError(f"Held-out image {file} is not of the form 00000000/cam01.jpg.")
    return int(file.parent.name), int(camera[1])
