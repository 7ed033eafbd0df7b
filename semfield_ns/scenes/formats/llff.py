"""LLFF: poses_bounds.npy beside one or more image folders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import PICTURES, image_size, natural_key, read_npy
from semfield_ns.scenes.scene import Frame, Scene, assemble_scene


def read_llff(path: Path, images: str | None = None) -> Scene:
    """Read an LLFF scene: images in the order of their names, one row of poses_bounds.npy each.

    Args:
        path: the scene's folder.
        images: the image folder; the smallest images there are (images_8, images_4, ..., images) if None.

    Time counts the images by the numbers in their names. `object_masks/` gives object masks, by file name.
    near and far are the 5th percentile of the near bounds and the largest far bound.
    Raises SemfieldError naming the file or frame.
    """
    path = Path(path)
    files = list_images(image_folder(path, images, prefer="smallest"))
    poses, hwf, bounds = read_poses_bounds(path / "poses_bounds.npy", len(files))
    frames = in_natural_order(frames_at_poses(files, poses, hwf, path / "poses_bounds.npy"))
    masks = match_by_stem(frames, path / "object_masks", ".png")
    frames = [replace(frame, object_mask_path=mask) for frame, mask in zip(frames, masks, strict=True)]
    near, far = float(np.percentile(bounds[:, 0], 5)), float(bounds[:, 1].max())
    return assemble_scene(path, frames, near=near, far=far, multiples=True)


def image_folder(path: Path, images: str | None, prefer: str) -> Path:
    """The folder of images to use: `images` if given, else the preferred name, else the smallest images there are."""
    if images is not None:
        if not (path / images).is_dir():
            raise SemfieldError(f"Scene {path} has no image folder {images}.")
        return path / images
    if (path / prefer).is_dir():
        return path / prefer
    reduced = [folder for folder in path.glob("images_*") if folder.is_dir() and folder.name[7:].isdigit()]
    folders = sorted(reduced, key=lambda folder: -int(folder.name[7:])) or [path / "images"]
    if not folders[0].is_dir():
        raise SemfieldError(f"Scene {path} has no folder of images (images, images_2, ...).")
    return folders[0]


def list_images(folder: Path) -> list[Path]:
    """Images of a folder sorted by name. Raises SemfieldError if there are none."""
    files = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")
    )
    if not files:
        raise SemfieldError(f"The image folder {folder} holds no image.")
    return files


def read_poses_bounds(
    path: Path, num_images: int
) -> tuple[Float[np.ndarray, "N 4 4"], Float[np.ndarray, "N 3"], Float[np.ndarray, "N 2"]]:
    """Read poses_bounds.npy.

    Returns: camera-to-world matrices with OpenGL axes; height, width, focal length in px; near and far depth.
    Raises SemfieldError for another shape than (num_images, 17), NaN, or bounds that are no depth range.
    """
    table = read_npy(path, "poses")
    if table.ndim != 2 or table.shape[1] != 17 or table.dtype.kind not in "fiu":
        raise SemfieldError(f"Poses: {path} has the shape {table.shape}, not (number of images, 17).")
    if len(table) != num_images:
        raise SemfieldError(f"Poses: {path} has {len(table)} poses for {num_images} images.")
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        raise SemfieldError(f"Poses: {path} has NaN or infinity in row {int(finite.argmin())}.")
    bounds = table[:, 15:].astype(np.float64)
    bad = (bounds[:, 0] <= 0) | (bounds[:, 1] <= bounds[:, 0])
    if bad.any():
        row = int(bad.argmax())
        raise SemfieldError(f"Poses: {path}, row {row}: near and far bounds {bounds[row].tolist()} are no depth range.")
    matrix = table[:, :15].astype(np.float64).reshape(-1, 3, 5)
    down, right, back, position = (matrix[:, :, i] for i in range(4))
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3] = np.stack([right, -down, back, position], axis=-1)  # LLFF [down, right, back] -> [right, up, back]
    return poses, matrix[:, :, 4], bounds


def frames_at_poses(
    files: list[Path], poses: Float[np.ndarray, "N 4 4"], hwf: Float[np.ndarray, "N 3"], where: Path
) -> list[Frame]:
    """One frame an image, with the intrinsics of the full-size image brought to the size of the file."""
    frames = []
    for index, (file, pose, (full_height, full_width, focal)) in enumerate(zip(files, poses, hwf, strict=True)):
        height, width = image_size(file, f"frame {file.parent.name}/{file.name}, image")
        # Reduced images are rounded to whole pixels: the two scales may differ by that much, not more.
        if abs(full_height * width - full_width * height) > max(full_height, full_width):
            raise SemfieldError(
                f"Frame {file.parent.name}/{file.name}: the image is {width}x{height} pixels, which is no reduction of "
                f"the {full_width:g}x{full_height:g} in {where}."
            )
        frames.append(
            Frame(
                image_path=file,
                c2w=pose,
                fx=focal * width / full_width,
                fy=focal * height / full_height,
                cx=width / 2,
                cy=height / 2,
                width=width,
                height=height,
                time=float(index),
            )
        )
    return frames


def in_natural_order(frames: list[Frame]) -> list[Frame]:
    """The frames with times by the numbers in their names; rows of poses are in the order of letters, 10 before 2."""
    ordered = sorted(frames, key=lambda frame: natural_key(frame.image_path.name))
    return [replace(frame, time=float(time)) for time, frame in enumerate(ordered)]


def match_by_stem(frames: list[Frame], folder: Path, suffix: str) -> list[Path | None]:
    """The file of a folder that has the name of each frame's image; None for all where there is no folder.

    Raises SemfieldError for a file of the folder that belongs to no frame: the names would not mean what they seem.
    """
    if not folder.is_dir():
        return [None] * len(frames)
    stems = {frame.image_path.stem for frame in frames}
    strangers = sorted(file for file in folder.glob(f"*{suffix}") if file.stem not in stems)
    if strangers:
        raise SemfieldError(f"{strangers[0]} has the name of no image in {frames[0].image_path.parent}.")
    files = [folder / f"{frame.image_path.stem}{suffix}" for frame in frames]
    return [file if file.exists() else None for file in files]
