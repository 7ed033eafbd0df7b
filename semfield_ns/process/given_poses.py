"""Camera poses that another program found: transforms.json, COLMAP (VGGT), MegaSaM, ViPE."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import natural_key, read_npz, reason
from semfield_ns.process.colmap import load_pycolmap, mean_error, read_model
from semfield_ns.process.frames import FEWEST, orientation
from semfield_ns.process.geometry import Camera, Pose, camera_to_world
from semfield_ns.process.models import ModelCard
from semfield_ns.process.names import FrameNames, Judge, match_images, skeleton
from semfield_ns.process.registration import Registration
from semfield_ns.process.same_pictures import same_pictures
from semfield_ns.scenes.formats.colmap import colmap_model


def import_poses(
    path: Path, frames: Sequence[FrameNames], size: tuple[int, int], source_count: int, images: Path | None = None
) -> Registration:
    """Poses of another program for the picked frames.

    Args:
        path: a transforms.json (or the folder of one, as ns-process-data writes it), a COLMAP model (a folder with
            cameras.bin or .txt, or one above its sparse/0; VGGT writes such), an .npz of VGGT's predictions (extrinsic,
            intrinsic) or of MegaSaM (cam_c2w, intrinsic), or a folder of ViPE (pose/*.npz, intrinsics/*.npz).
        frames: the picked frames.
        size: (width, height) of the picked frames, px.
        source_count: frames of the video or images of the folder.
        images: folder of the picked frames. Pictures that lie beside the poses are compared with them, where names
            leave it open which is which.
    Raises: SemfieldError for anything else, or poses for too few of the frames.
    """
    path = Path(path)
    if not path.exists():
        raise SemfieldError(f"The poses {path} do not exist: give a transforms.json, a COLMAP model or an .npz.")
    transforms = path / "transforms.json" if path.is_dir() else path
    model = _colmap_folder(path)
    if transforms.suffix == ".json" and transforms.is_file():
        found = _import_transforms(transforms, frames, images)
    elif model is not None:
        found = _import_colmap(model, frames, images)
    elif path.suffix == ".npz":
        arrays = read_npz(path, "poses")
        found = (_from_vggt if "extrinsic" in arrays else _from_megasam)(path, arrays, frames, source_count)
    elif path.is_dir() and (path / "pose").is_dir():
        found = _import_vipe(path, frames)
    else:
        raise SemfieldError(
            f"{path} has no poses in a known format: give a transforms.json, a COLMAP model (cameras.bin), an .npz "
            "of VGGT (extrinsic, intrinsic) or MegaSaM (cam_c2w, intrinsic), or a folder of ViPE (pose/, intrinsics/)."
        )
    if len(found.poses) < FEWEST:
        raise SemfieldError(
            f"{path} has poses for {len(found.poses)} of the {len(frames)} picked frames: they are matched by the "
            "names of the images (0000.png, the name in the folder, or a number that counts the frames of the source)."
        )
    cameras = {number: resized(camera, size, str(path)) for number, camera in found.cameras.items()}
    figures = found.figures | {"registered": len(found.poses), "frames": len(frames)}
    figures |= {"focal_px": next(iter(cameras.values())).focal, "points": len(found.points)}
    return replace(found, cameras=cameras, figures=figures)


def resized(camera: Camera, size: tuple[int, int], where: str) -> Camera:
    """The camera of the same picture at another size (width, height).

    Raises:
        SemfieldError: it is of another shape, so that it is not of the same picture.
    """
    x, y = size[0] / camera.width, size[1] / camera.height
    if abs(x - y) * max(camera.width, camera.height) > 3.0 * max(x, y, 1.0):
        raise SemfieldError(
            f"{where}: its cameras are of {camera.width}x{camera.height} pixels, the frames of {size[0]}x{size[1]}, "
            "which is another shape: the pictures were cropped or turned in between; give the pictures that the poses "
            "were found for."
        )
    return Camera(camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y, *size, camera.distortion)


def turned(camera: Camera, pose: Pose, orientation: int) -> tuple[Camera, Pose]:
    """The camera of a picture as it is shown, from that of its stored pixels, which programs that find poses see.

    orientation: as EXIF has it, 1, 3, 6 or 8.
    """
    if orientation == 1:
        return camera, pose
    # Shown axes in stored ones: x and y of the picture (y down).
    turn = {3: ((-1, 0), (0, -1)), 6: ((0, -1), (1, 0)), 8: ((0, 1), (-1, 0))}[orientation]
    axes = np.array(turn, dtype=np.float64)
    fx, fy = np.abs(axes) @ [camera.fx, camera.fy]
    width, height = (round(v) for v in np.abs(axes) @ [camera.width, camera.height])
    middle = np.array([camera.width / 2, camera.height / 2])
    cx, cy = axes @ (np.array([camera.cx, camera.cy]) - middle) + [width / 2, height / 2]
    k, (p1, p2) = camera.distortion[:4], camera.distortion[4:]
    bent = axes @ [p2, p1]
    flip = np.diag([1.0, -1.0])
    rotation = np.eye(4)
    rotation[:2, :2] = flip @ axes.T @ flip  # OpenGL: y up
    return Camera(fx, fy, cx, cy, width, height, np.array([*k, bent[1], bent[0]])), pose @ rotation


def _shown(camera: Camera, pose: Pose, picture: Path) -> tuple[Camera, Pose]:
    """The camera of a picture as its EXIF tag wants it shown, which is how frames are written."""
    found = orientation(picture)
    if found in (2, 4, 5, 7):
        raise SemfieldError(f"{picture} is mirrored by its EXIF tag, and its pose is not: remove the tag.")
    return turned(camera, pose, found if found in (3, 6, 8) else 1)


def _given(poses: dict[int, Pose], cameras: dict[int, Camera], name: str, **fields: Any) -> Registration:
    card = ModelCard("poses", f"imported from {name}", "given", "that of its maker")
    values: dict[str, Any] = {"points": np.zeros((0, 3)), "seen": {}, "figures": {}, "card": card} | fields
    return Registration(cameras, poses, **values)


def _import_transforms(path: Path, frames: Sequence[FrameNames], images: Path | None) -> Registration:
    from semfield_ns.scenes.formats.transforms import read_transforms

    scene = read_transforms(path)
    # Held out are frames of the video, or views of other cameras that are numbered by its moments.
    known = {frame.image_path: frame for frame in scene.train}
    series = {skeleton(image.name) for image in known}
    known |= {frame.image_path: frame for frame in scene.test if skeleton(frame.image_path.name) in series}
    pictures = sorted(known, key=lambda image: natural_key(image.name))
    found = {
        n: known[image] for n, image in match_images(pictures, frames, str(path), _judge(pictures, images)).items()
    }
    bent = next((frame for frame in found.values() if frame.fisheye), None)
    if bent is not None:
        raise SemfieldError(
            f"{path}: {bent.where} is of a fisheye, and flow and depth are found through other lenses: undistort the "
            "video first."
        )
    cameras, poses = {}, {}
    for number, frame in found.items():
        camera = Camera(frame.fx, frame.fy, frame.cx, frame.cy, frame.width, frame.height, frame.distortion)
        cameras[number], poses[number] = _shown(camera, frame.c2w, frame.image_path)
    points = np.zeros((0, 3)) if scene.points is None else scene.points
    seen = {number: list(range(len(points))) for number in poses}  # which are hidden is not known
    return _given(poses, cameras, path.name, points=points, seen=seen)


def _judge(pictures: Sequence[Path], images: Path | None) -> Judge | None:
    """Tells by the pictures beside poses which of them are of which frame."""
    if images is None or not all(picture.is_file() for picture in pictures):
        return None
    return lambda readings: same_pictures(pictures, images, readings)


def _colmap_folder(path: Path) -> Path | None:
    if any((path / f"cameras.{suffix}").is_file() for suffix in ("bin", "txt")):
        return path
    return colmap_model(path)


def _import_colmap(path: Path, frames: Sequence[FrameNames], images: Path | None) -> Registration:
    pycolmap = load_pycolmap()
    try:
        model = pycolmap.Reconstruction(str(path))
    except (RuntimeError, ValueError) as error:
        raise SemfieldError(f"{path} is not a complete COLMAP model ({reason(error)}).") from error
    names = [image.name for image in model.images.values()]
    folder = next((p / "images" for p in (path, *path.parents[:3]) if (p / "images" / names[0]).is_file()), None)
    pictures = [Path(name) for name in names] if folder is None else [folder / name for name in names]
    found = match_images(pictures, frames, str(path), _judge(pictures, images))
    name_of = dict(zip(pictures, names, strict=True))
    listed = [name_of[found[frame.number]] if frame.number in found else "" for frame in frames]
    cameras, poses, points, seen = read_model(model, listed)
    if folder is not None:
        for number in poses:
            cameras[number], poses[number] = _shown(cameras[number], poses[number], found[number])
    figures = {"reprojection_error_px": mean_error(model)} if len(points) else {}
    return _given(poses, cameras, f"COLMAP ({path.name})", points=points, seen=seen, figures=figures)


Arrays = dict[str, np.ndarray]


def _from_megasam(path: Path, arrays: Arrays, frames: Sequence[FrameNames], source_count: int) -> Registration:
    """OpenCV camera-to-world, and one pinhole for all frames, at the size of the depth maps."""
    c2w, intrinsic = arrays.get("cam_c2w"), arrays.get("intrinsic")
    if c2w is None or intrinsic is None or c2w.ndim != 3 or c2w.shape[1:] != (4, 4) or intrinsic.shape != (3, 3):
        raise SemfieldError(f"{path} needs cam_c2w (N,4,4) and intrinsic (3,3), as MegaSaM writes them.")
    place = _places(path, len(c2w), frames, source_count)
    camera = _from_matrix(arrays.get("depths"), intrinsic)
    poses = {number: camera_to_world(np.linalg.inv(c2w[i].astype(np.float64))) for number, i in place.items()}
    return _given(poses, dict.fromkeys(poses, camera), "MegaSaM")


def _from_vggt(path: Path, arrays: Arrays, frames: Sequence[FrameNames], source_count: int) -> Registration:
    """OpenCV world-to-camera and a pinhole for each frame, at the size of the depth maps."""
    w2c, intrinsic, depth = (np.asarray(arrays.get(key, 0.0)) for key in ("extrinsic", "intrinsic", "depth"))
    if w2c.shape[-2:] != (3, 4) or intrinsic.shape != (*w2c.shape[:-2], 3, 3):
        raise SemfieldError(f"{path} needs extrinsic (N,3,4) and intrinsic (N,3,3), as VGGT writes them.")
    w2c, intrinsic = w2c.reshape(-1, 3, 4).astype(np.float64), intrinsic.reshape(-1, 3, 3)
    depths = depth.reshape(len(w2c), *depth.shape[-3:-1]) if depth.ndim > 3 else None
    poses, cameras = {}, {}
    for number, i in _places(path, len(w2c), frames, source_count).items():
        poses[number] = camera_to_world(np.vstack([w2c[i], [0, 0, 0, 1]]))
        cameras[number] = _from_matrix(depths, intrinsic[i])
    return _given(poses, cameras, "VGGT")


def _places(path: Path, count: int, frames: Sequence[FrameNames], source_count: int) -> dict[int, int]:
    """Row of each picked frame in arrays that have no names."""
    if count == len(frames):
        return {frame.number: i for i, frame in enumerate(frames)}
    if count == source_count:
        return {frame.number: frame.index for frame in frames}
    raise SemfieldError(
        f"{path} has {count} poses, but {len(frames)} frames were picked of {source_count}: give one pose for each "
        "frame of the one or the other."
    )


def _from_matrix(depths: np.ndarray | None, intrinsic: Float[np.ndarray, "3 3"]) -> Camera:
    """A pinhole; the image is as large as the depth maps, or twice its principal point."""
    cx, cy = float(intrinsic[0, 2]), float(intrinsic[1, 2])
    height, width = depths.shape[1:3] if depths is not None and depths.ndim == 3 else (round(2 * cy), round(2 * cx))
    return Camera(float(intrinsic[0, 0]), float(intrinsic[1, 1]), cx, cy, width, height)


def _import_vipe(path: Path, frames: Sequence[FrameNames]) -> Registration:
    files = [sorted((path / kind).glob("*.npz")) for kind in ("pose", "intrinsics")]
    if not all(len(found) == 1 for found in files):
        raise SemfieldError(f"{path} needs one file in pose/ and one in intrinsics/, as ViPE writes them for a video.")
    pose, lens = (read_npz(found[0], "poses") for found in files)
    for arrays, file in zip((pose, lens), files, strict=True):
        if "data" not in arrays or "inds" not in arrays:
            raise SemfieldError(f"{file[0]} needs the arrays data and inds, as ViPE writes them.")
    lens_of = {int(i): row for i, row in zip(lens["inds"], lens["data"], strict=True)}
    pose_of = {int(i): row for i, row in zip(pose["inds"], pose["data"], strict=True)}
    poses, cameras = {}, {}
    for frame in frames:
        if frame.index in pose_of and frame.index in lens_of:
            fx, fy, cx, cy = (float(v) for v in lens_of[frame.index][:4])
            poses[frame.number] = camera_to_world(np.linalg.inv(pose_of[frame.index].astype(np.float64)))
            cameras[frame.number] = Camera(fx, fy, cx, cy, round(2 * cx), round(2 * cy))
    return _given(poses, cameras, "ViPE")
