"""COLMAP models read: cameras with Nerfstudio's distortion, poses, and which point is seen where."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.process.geometry import Camera, Pose, camera_to_world


def load_pycolmap() -> Any:
    """The module; a SemfieldError that says how to install it."""
    try:
        import pycolmap
    except ImportError as error:
        raise SemfieldError(
            "Poses are found by pycolmap, which is not installed: pip install 'semfield-ns[process]', or import poses "
            "(--poses)."
        ) from error
    return pycolmap


def read_model(
    model: Any, names: Sequence[str]
) -> tuple[dict[int, Camera], dict[int, Pose], Float[np.ndarray, "M 3"], dict[int, list[int]]]:
    """Cameras, poses, points (world), and the points that each frame sees, by the number of the frame.

    names: image of each frame; images of other names are left out.
    """
    number_of = {name: number for number, name in enumerate(names)}
    row = {point: i for i, point in enumerate(sorted(model.points3D))}
    xyz = np.array([model.points3D[point].xyz for point in row]).reshape(-1, 3)
    cameras, poses, seen = {}, {}, {}
    for image in model.images.values():
        if image.has_pose and image.name in number_of:
            number = number_of[image.name]
            w2c = np.eye(4)
            w2c[:3] = image.cam_from_world().matrix()
            cameras[number] = from_colmap(model.cameras[image.camera_id])
            poses[number] = camera_to_world(w2c)
            seen[number] = [row[p.point3D_id] for p in image.points2D if p.has_point3D()]
    return cameras, poses, xyz, seen


def from_colmap(camera: Any) -> Camera:
    """A COLMAP camera of one of the models that Nerfstudio's distortion covers."""
    values: dict[str, float] = dict(
        zip((part.strip() for part in camera.params_info.split(",")), camera.params, strict=True)
    )
    if camera.model_name not in ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"):
        raise SemfieldError(
            f"The COLMAP camera model {camera.model_name} is not supported: undistort the images, or use PINHOLE, "
            "SIMPLE_RADIAL, RADIAL or OPENCV."
        )
    fx = values["f"] if "f" in values else values["fx"]
    distortion = [values.get("k", values.get("k1", 0.0)), values.get("k2", 0.0), 0.0, 0.0]
    distortion += [values.get("p1", 0.0), values.get("p2", 0.0)]
    return Camera(
        fx, values.get("fy", fx), values["cx"], values["cy"], camera.width, camera.height, np.array(distortion)
    )


def mean_error(model: Any) -> float:
    """Mean reprojection error, px."""
    return float(model.compute_mean_reprojection_error())
