"""A folder as COLMAP leaves it: a sparse model beside the images, without a transforms.json."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import capital, existing_picture, image_size, natural_key, reason, say_once
from semfield_ns.scenes.formats.llff import image_folder
from semfield_ns.scenes.order import cameras_by_name, times_by_name
from semfield_ns.scenes.scene import Frame, Scene, assemble_scene, with_pictures

_PLACES = ("sparse", "colmap/sparse")
_PARTS = ("cameras", "images", "points3D")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def colmap_model(path: Path) -> Path | None:
    """The folder of the sparse model in a scene's folder, if there is one."""
    found = list(_models(path))
    largest = max(found, key=_registered, default=None)  # the first of equals
    if len(found) > 1:
        say_once(f"{path} has {len(found)} COLMAP models; the largest is used: {largest}.")
    return largest


def _models(path: Path) -> Iterator[Path]:
    """Sparse models: where COLMAP's mapper stops and begins again, there are sparse/0, sparse/1, ..."""
    for place in _PLACES:
        numbered = [folder for folder in (path / place).glob("*") if folder.name.isdecimal()]
        folders = [path / place, *sorted(numbered, key=lambda folder: natural_key(folder.name))]
        found = [folder for folder in folders if _suffix(folder) is not None]
        yield from found
        if found:
            return


def _suffix(model: Path) -> str | None:
    """Of the files of a model; None where there is none."""
    for suffix in (".bin", ".txt"):
        if all((model / f"{part}{suffix}").is_file() for part in _PARTS[:2]):
            return suffix
    return None


def _registered(model: Path) -> int:
    """Images of a model, by what its file begins with; 0 where that cannot be read."""
    try:
        if _suffix(model) == ".bin":
            return int.from_bytes((model / "images.bin").read_bytes()[:8], "little")
        return sum(not line.startswith("#") for line in (model / "images.txt").open(encoding="utf-8")) // 2
    except (OSError, UnicodeDecodeError):
        return 0


def read_colmap(path: Path, images: str | None = None) -> Scene:
    """Read a COLMAP scene: registered images with cameras, in the order of the numbers in their names, and points.

    Args:
        path: the scene's folder, with the model in sparse or colmap/sparse; the largest, if there are several.
        images: the image folder, such as images_4; `images` by default.

    Time counts the images of a camera; folders that hold images of the same names are those of several cameras.

    Raises:
        SemfieldError: naming the file, the image or the camera that cannot be read or is missing.
    """
    path = Path(path)
    model = colmap_model(path)
    if model is None:
        raise SemfieldError(f"{path} holds no COLMAP model: cameras and images (.bin or .txt) in sparse/0.")
    cameras, entries, points = _read_model(model)
    folder = image_folder(path, images, prefer="images")
    pictures = {entry.name: existing_picture(folder / entry.name) for entry in entries}
    entries = [entry for entry in entries if entry.name in with_pictures(pictures, str(model))]
    ids = cameras_by_name([entry.name for entry in entries])
    times = times_by_name([entry.name for entry in entries], ids, str(model))
    frames = [
        replace(_frame(entry, _intrinsics(cameras, entry, model), pictures[entry.name]), time=time, camera_id=camera_id)
        for entry, time, camera_id in zip(entries, times, ids, strict=True)
    ]
    return assemble_scene(path, sorted(frames, key=lambda frame: frame.time), points=points)


def _read_model(model: Path) -> tuple[dict[int, Any], list[Any], Float[np.ndarray, "M 3"] | None]:
    from nerfstudio.data.utils import colmap_parsing_utils as colmap

    text = not (model / "cameras.bin").is_file()
    suffix = ".txt" if text else ".bin"
    readers = (
        (colmap.read_cameras_text, _read_images_text, colmap.read_points3D_text)
        if text
        else (colmap.read_cameras_binary, colmap.read_images_binary, colmap.read_points3D_binary)
    )
    found: list[Any] = []
    for part, read in zip(_PARTS, readers, strict=True):
        file = model / f"{part}{suffix}"
        if part == "points3D" and not file.is_file():
            found.append({})
            continue
        try:
            found.append(read(str(file)))
        except Exception as error:  # the parser raises whatever a damaged file leads it to
            raise SemfieldError(f"Cannot read the COLMAP model's {file} ({reason(error)[:120]}).") from error
    cameras, entries, points = found
    if not entries:
        raise SemfieldError(f"The COLMAP model {model} has no registered image.")
    return cameras, list(entries.values()), np.array([point.xyz for point in points.values()]) if points else None


def _read_images_text(path: str) -> dict[int, Any]:
    """As Nerfstudio's parser, for names with spaces too.

    Raises:
        ValueError: something is no number, or the second line of an image, which lists its corners, is missing.
    """
    from nerfstudio.data.utils.colmap_parsing_utils import Image

    lines = [line for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if not line.startswith("#")]
    images = {}
    nothing = np.zeros((0, 2)), np.zeros(0, dtype=int)
    for line, corners in zip_longest(lines[::2], lines[1::2], fillvalue=""):
        if line.strip():
            number, *values, camera, name = line.split(maxsplit=9)
            if len(listed := corners.split()) % 3 or (listed and not listed[-1].lstrip("-").isdecimal()):
                raise ValueError(f"the line of corners after {name.strip()} is missing: an empty one will do")
            pose = np.array([float(value) for value in values])
            images[int(number)] = Image(int(number), pose[:4], pose[4:], int(camera), name.strip(), *nothing)
    return images


def _intrinsics(cameras: dict[int, Any], entry: Any, model: Path) -> dict[str, Any]:
    from nerfstudio.process_data.colmap_utils import parse_colmap_camera_params

    camera = cameras.get(entry.camera_id)
    if camera is None:
        raise SemfieldError(f"The COLMAP model {model} has no camera {entry.camera_id}, which {entry.name} names.")
    try:
        return parse_colmap_camera_params(camera)
    except NotImplementedError as error:
        raise SemfieldError(
            f"The COLMAP model {model} has a {camera.model} camera, which is not supported: undistort the pictures "
            "with COLMAP's image_undistorter."
        ) from error
    except IndexError as error:
        raise SemfieldError(
            f"The COLMAP model {model}: camera {entry.camera_id} has {len(camera.params)} parameters, too few for the "
            f"model {camera.model}."
        ) from error


def _frame(entry: Any, intrinsics: dict[str, Any], file: Path) -> Frame:
    where = f"frame {file.parent.name}/{file.name}"
    height, width = image_size(file, f"{where}, image")
    x, y = width / intrinsics["w"], height / intrinsics["h"]
    if abs(x - y) * max(width, height) > 1.5 * max(x, y):
        raise SemfieldError(
            f"{capital(where)}: the image is {width}x{height} pixels, which is no reduction of its "
            f"camera's {intrinsics['w']}x{intrinsics['h']}."
        )
    length = float(np.linalg.norm(entry.qvec))
    if length == 0:
        raise SemfieldError(f"{capital(where)}: the quaternion of its pose is zero, which is no rotation.")
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = entry._replace(qvec=entry.qvec / length).qvec2rotmat()
    world_to_camera[:3, 3] = entry.tvec
    c2w = np.linalg.inv(world_to_camera)
    c2w[:3, 1:3] *= -1  # OpenCV axes (y down, z forwards) -> OpenGL
    return Frame(
        image_path=file,
        c2w=c2w,
        fx=intrinsics["fl_x"] * x,
        fy=intrinsics["fl_y"] * y,
        cx=intrinsics["cx"] * x,
        cy=intrinsics["cy"] * y,
        width=width,
        height=height,
        distortion=np.array([float(intrinsics.get(key, 0.0)) for key in _DISTORTION]),
        fisheye=intrinsics["camera_model"] == "OPENCV_FISHEYE",
    )
