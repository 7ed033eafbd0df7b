"""A folder as COLMAP leaves it: a sparse model beside the images, without a transforms.json."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import image_size, reason
from semfield_ns.scenes.formats.llff import image_folder
from semfield_ns.scenes.scene import Frame, Scene, assemble_scene

_PLACES = ("sparse/0", "colmap/sparse/0", "sparse")
_PARTS = ("cameras", "images", "points3D")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def colmap_model(path: Path) -> Path | None:
    """The folder of the sparse model in a scene's folder, if there is one."""
    for place in _PLACES:
        for suffix in (".bin", ".txt"):
            if all((path / place / f"{part}{suffix}").is_file() for part in _PARTS[:2]):
                return path / place
    return None


def read_colmap(path: Path, images: str | None = None) -> Scene:
    """Read a COLMAP scene: registered images in the order of their names, with their cameras and the sparse points.

    Args:
        path: the scene's folder, with the model in sparse/0, colmap/sparse/0 or sparse.
        images: the image folder, such as images_4; `images` by default.

    Time is the number of the image.

    Raises:
        SemfieldError: naming the file, the image or the camera that cannot be read or is missing.
    """
    path = Path(path)
    model = colmap_model(path)
    if model is None:
        raise SemfieldError(f"{path} holds no COLMAP model: cameras and images (.bin or .txt) in sparse/0.")
    cameras, entries, points = _read_model(model)
    folder = image_folder(path, images, prefer="images")
    entries = sorted(entries, key=lambda entry: entry.name)
    frames = [_frame(entry, _intrinsics(cameras, entry, model), folder, time) for time, entry in enumerate(entries)]
    return assemble_scene(path, frames, points=points)


def _read_model(model: Path) -> tuple[dict[int, Any], list[Any], Float[np.ndarray, "M 3"] | None]:
    from nerfstudio.data.utils import colmap_parsing_utils as colmap

    text = not (model / "cameras.bin").is_file()
    suffix = ".txt" if text else ".bin"
    readers = (
        (colmap.read_cameras_text, colmap.read_images_text, colmap.read_points3D_text)
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


def _intrinsics(cameras: dict[int, Any], entry: Any, model: Path) -> dict[str, Any]:
    from nerfstudio.process_data.colmap_utils import parse_colmap_camera_params

    camera = cameras.get(entry.camera_id)
    if camera is None:
        raise SemfieldError(f"The COLMAP model {model} has no camera {entry.camera_id}, which {entry.name} names.")
    try:
        return parse_colmap_camera_params(camera)
    except NotImplementedError as error:
        raise SemfieldError(f"The COLMAP model {model} has a {camera.model} camera, which is not supported.") from error


def _frame(entry: Any, intrinsics: dict[str, Any], folder: Path, time: int) -> Frame:
    file = folder / entry.name
    height, width = image_size(file, f"frame {folder.name}/{entry.name}, image")
    x, y = width / intrinsics["w"], height / intrinsics["h"]
    if abs(x - y) * max(width, height) > 1.5 * max(x, y):
        raise SemfieldError(
            f"Frame {folder.name}/{entry.name}: the image is {width}x{height} pixels, which is no reduction of its "
            f"camera's {intrinsics['w']}x{intrinsics['h']}."
        )
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3], world_to_camera[:3, 3] = entry.qvec2rotmat(), entry.tvec
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
        time=float(time),
        distortion=np.array([float(intrinsics.get(key, 0.0)) for key in _DISTORTION]),
        fisheye=intrinsics["camera_model"] == "OPENCV_FISHEYE",
    )
