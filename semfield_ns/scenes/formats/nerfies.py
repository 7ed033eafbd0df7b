"""Scenes of Nerfies, HyperNeRF and Dycheck: dataset.json, metadata.json, camera/NAME.json and rgb/Nx/NAME.png."""

from pathlib import Path
from typing import Any

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import image_size, read_json
from semfield_ns.scenes.scene import Frame, Scene, assemble_scene

_MARKS = ("dataset.json", "metadata.json", "camera")


def is_nerfies(path: Path) -> bool:
    """Whether a folder has the files of the layout."""
    return all((path / mark).exists() for mark in _MARKS)


def read_nerfies(path: Path, images: str | None = None) -> Scene:
    """Read one scene of the layout.

    Args:
        path: the scene's folder.
        images: the folder of images in rgb/, such as 2x; the smallest images there are by default.

    Raises:
        SemfieldError: naming the file that is missing or has no such numbers.
    """
    folder = _images(path, images)
    listed, about = read_json(path / "dataset.json"), read_json(path / "metadata.json")
    scene = read_json(path / "scene.json") if (path / "scene.json").is_file() else {}
    try:
        train, test = ([str(name) for name in listed.get(key) or []] for key in ("train_ids", "val_ids"))
        if not train:
            train, test = [str(name) for name in listed["ids"]], []
        frames = {name: _frame(path, folder, name, about[name]) for name in (*train, *test)}
        # The bounds are in units of the scene, poses in those of the camera files.
        bounds: dict[str, Any] = {
            key: float(scene[key]) / float(scene.get("scale", 1.0)) for key in ("near", "far") if key in scene
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SemfieldError(
            f"{path}: its dataset.json, metadata.json or camera files lack {error}, which HyperNeRF's have."
        ) from error
    order = sorted(frames, key=lambda name: (frames[name].time, name))
    parts = [[frames[name] for name in order if name in set(part)] for part in (train, test)]
    return assemble_scene(path, parts[0], parts[1], **bounds)


def _images(path: Path, images: str | None) -> Path:
    if images is not None:
        if not (path / "rgb" / images).is_dir():
            raise SemfieldError(f"Scene {path} has no image folder rgb/{images}.")
        return path / "rgb" / images
    folders = [f for f in (path / "rgb").glob("*x") if f.is_dir() and f.name[:-1].isdecimal()]
    if not folders:
        raise SemfieldError(f"Scene {path} has no folder of images (rgb/1x, rgb/2x, ...).")
    return max(folders, key=lambda folder: int(folder.name[:-1]))


def _frame(path: Path, folder: Path, name: str, about: dict[str, Any]) -> Frame:
    camera = read_json(path / "camera" / f"{name}.json")
    picture = folder / f"{name}.png"
    height, width = image_size(picture, f"frame {folder.name}/{name}.png, image")
    full_width, full_height = camera["image_size"]
    x, y = width / full_width, height / full_height
    c2w = np.eye(4)
    c2w[:3, :3] = np.array(camera["orientation"], dtype=np.float64).T * [1, -1, -1]  # OpenCV axes -> OpenGL
    c2w[:3, 3] = camera["position"]
    k1, k2, k3 = (float(value) for value in camera.get("radial_distortion", (0, 0, 0)))
    p1, p2 = (float(value) for value in camera.get("tangential_distortion", camera.get("tangential", (0, 0))))
    if camera.get("skew"):
        raise ValueError("a skew of 0")
    focal = float(camera["focal_length"])
    return Frame(
        image_path=picture,
        c2w=c2w,
        fx=focal * x,
        fy=focal * float(camera.get("pixel_aspect_ratio", 1.0)) * y,
        cx=float(camera["principal_point"][0]) * x,
        cy=float(camera["principal_point"][1]) * y,
        width=width,
        height=height,
        time=float(about.get("time_id", about.get("warp_id", 0))),
        camera_id=str(about.get("camera_id", 0)),
        distortion=np.array([k1, k2, k3, 0.0, p1, p2]),
    )
