"""transforms.json: Nerfstudio's format, extended by time, cameras, semantics, masks and flow."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import existing_picture, image_size, read_json, reason, write_json
from semfield_ns.scenes.formats.ply import read_ply_points, write_ply_points
from semfield_ns.scenes.labels import LabelMap
from semfield_ns.scenes.order import cameras_by_name, times_by_name
from semfield_ns.scenes.scene import CameraMotion, DepthKind, Frame, Scene, assemble_scene, with_pictures

logger = logging.getLogger("semfield")

# JSON key -> field of Frame
_PATHS = {
    "semantic_path": "semantic_path",
    "instance_path": "instance_path",
    "dynamic_mask_path": "dynamic_mask_path",
    "object_mask_path": "object_mask_path",
    "flow_fwd_path": "flow_fwd_path",
    "flow_bwd_path": "flow_bwd_path",
    "depth_file_path": "depth_path",
    "mask_path": "mask_path",
}
_INTRINSICS = {"fl_x": "fx", "fl_y": "fy", "cx": "cx", "cy": "cy", "w": "width", "h": "height"}
_TIMES = ("time", "timestamp")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_FISHEYE = "OPENCV_FISHEYE"
_CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", _FISHEYE)
# Keys by which other programs say what a lens does, and that nothing here undoes.
_FOREIGN = (
    *("k5", "k6", "b1", "b2", "s1", "s2", "s3", "s4", "omega", "xi", "rolling_shutter"),
    *("latlong", "is_latlong", "ortho", "is_ortho", "equirectangular", "is_equirectangular", "ftheta", "is_ftheta"),
    *(f"ftheta_p{i}" for i in range(5)),
)
_MODEL_KEYS = ("camera_model", "camera_type", "lens_model", "distortion_model", "projection")
_NERFSTUDIO_DEPTH_UNIT = 1e-3  # Nerfstudio's default meaning of a depth file: thousandths of the scene's unit


def read_transforms(path: Path) -> Scene:
    """Read a transforms.json.

    Frames without any `time` (or `timestamp`) get 0, 1, 2, ... in the order of the numbers in their names, for each
    camera; pictures of the same names in several folders are those of several cameras. `train_filenames`,
    `val_filenames` and `test_filenames` split the frames (val and test are both held out); without them all frames are
    for training. Frames without their picture are left out where they are few.
    Top level, all optional: `semantics`, `ply_file_path`, `near`, `far`, `depth_kind` ("metric" or "disparity"),
    `depth_unit_scale_factor` (scene units for one unit of a depth file; Nerfstudio's 0.001 if absent), `camera_motion`
    ("moving", "turning" or "still").

    Raises SemfieldError naming the file, and the frame and key, for anything missing, malformed or contradictory.
    """
    path = Path(path)
    meta = _without_nulls(read_json(path))
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise SemfieldError(f'{path} has no list "frames".')
    if not meta["frames"]:
        raise SemfieldError(f"{path} lists no frames.")
    return assembled(path, meta)


def assembled(path: Path, meta: dict[str, Any]) -> Scene:
    """The scene that the content of a transforms.json at a path tells of."""
    _camera_model(str(path), {}, meta)
    entries = [_without_nulls(entry) for entry in meta["frames"]]
    frames = [_read_frame(path, meta, entry, index) for index, entry in enumerate(entries)]
    _each_once(path, frames)
    frames = _with_pictures(path, _timed(path, entries, frames))
    train, test = _split(path, meta, frames)
    has_depth = any(frame.depth_path for frame in frames)
    points = _file(str(path), path.parent, meta, "ply_file_path")
    near, far = (_positive(path, meta, key, None) for key in ("near", "far"))
    if near is not None and far is not None and near >= far:
        raise SemfieldError(f'{path}: "near" is {near:g} and "far" {far:g}: the nearest content comes first.')
    return assemble_scene(
        path.parent,
        train,
        test,
        label_map=LabelMap.from_transforms(meta["semantics"], str(path)) if "semantics" in meta else None,
        depth_kind=_one_of(path, meta, "depth_kind", get_args(DepthKind), "metric") if has_depth else None,
        depth_unit_scale=_positive(path, meta, "depth_unit_scale_factor", _NERFSTUDIO_DEPTH_UNIT) if has_depth else 1.0,
        near=near,
        far=far,
        points=None if points is None else read_ply_points(points),
        camera_motion=_one_of(path, meta, "camera_motion", get_args(CameraMotion), "moving"),
    )


def write_transforms(scene: Scene, output_dir: Path) -> Path:
    """Write a scene's transforms.json into a folder, atomically; read_transforms gives the same scene back.

    Images and other files stay where they are and are named relative to the folder; points go to points3D.ply.
    Returns the path of the transforms.json.
    """
    output_dir = Path(output_dir)
    meta: dict[str, Any] = {"camera_model": "OPENCV"}
    if scene.label_map is not None:
        meta["semantics"] = scene.label_map.to_transforms()
    if scene.depth_kind is not None:
        meta |= {"depth_kind": scene.depth_kind, "depth_unit_scale_factor": scene.depth_unit_scale}
    meta |= {key: value for key, value in (("near", scene.near), ("far", scene.far)) if value is not None}
    if scene.camera_motion != "moving":
        meta["camera_motion"] = scene.camera_motion
    if scene.points is not None:
        write_ply_points(output_dir / "points3D.ply", scene.points)
        meta["ply_file_path"] = "points3D.ply"
    if scene.test:
        meta["train_filenames"] = [_relative(frame.image_path, output_dir) for frame in scene.train]
        meta["test_filenames"] = [_relative(frame.image_path, output_dir) for frame in scene.test]
    listed: dict[Path, Frame] = {frame.image_path: frame for frame in [*scene.train, *scene.test]}
    meta["frames"] = [_frame_entry(frame, output_dir) for frame in listed.values()]
    write_json(output_dir / "transforms.json", meta)
    return output_dir / "transforms.json"


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_frame(path: Path, meta: dict[str, Any], entry: Any, index: int) -> Frame:
    where = f"{path}, frame {index}"
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str) or not entry["file_path"]:
        raise SemfieldError(f'{where} has no "file_path".')
    where = f"{where} ({entry['file_path']})"
    if "transform_matrix" not in entry:
        raise SemfieldError(f'{where} has no "transform_matrix".')
    root = path.parent
    picture = existing_picture(_place(where, root, entry, "file_path"))
    values = _intrinsics(where, meta, entry, picture)
    fisheye = _camera_model(where, meta, entry) == _FISHEYE
    distortion = _distortion(where, meta, entry)
    if fisheye and distortion[4:].any():
        raise SemfieldError(f"{where}: a camera of the model {_FISHEYE} has k1 to k4, and no p1 and p2.")
    return Frame(
        image_path=picture,
        c2w=_pose(where, entry["transform_matrix"]),
        fx=values["fl_x"],
        fy=values["fl_y"],
        cx=values["cx"],
        cy=values["cy"],
        width=int(values["w"]),
        height=int(values["h"]),
        distortion=distortion,
        fisheye=fisheye,
        time=next((_number(where, {}, entry, key) for key in _TIMES if key in entry), 0.0),
        camera_id=str(entry.get("camera_id", "0")),
        **{field: _file(where, root, entry, key) for key, field in _PATHS.items()},  # type: ignore[arg-type]
    )


def _intrinsics(where: str, meta: dict[str, Any], entry: dict[str, Any], picture: Path) -> dict[str, float]:
    """Numbers of the frame or of the file. What Blender's files leave out, the picture and its angles of view tell."""
    given = meta | entry
    values: dict[str, float] = {}
    if "w" not in given or "h" not in given:
        height, width = image_size(picture, f"{where}, image")
        given = {"w": width, "h": height} | given
    for key in ("w", "h"):
        values[key] = _number(where, {}, given, key)
        if values[key] != int(values[key]):
            raise SemfieldError(f'{where}: "{key}" is {values[key]:g}, not a whole number of pixels.')
    for key, side, angle in (("fl_x", "w", "camera_angle_x"), ("fl_y", "h", "camera_angle_y")):
        if key not in given and angle in given:
            radians = _number(where, {}, given, angle)
            if not 0 < radians < np.pi:
                raise SemfieldError(f'{where}: "{angle}" is {radians:g}; it is an angle in radians, between 0 and pi.')
            given[key] = values[side] / 2 / np.tan(radians / 2)
    values["fl_x"] = _number(where, {}, given, "fl_x")
    values["fl_y"] = _number(where, {}, given, "fl_y" if "fl_y" in given else "fl_x")
    for key, side in (("cx", "w"), ("cy", "h")):
        values[key] = _number(where, {key: values[side] / 2}, given, key)
    return values


def _with_pictures(path: Path, frames: list[Frame]) -> list[Frame]:
    """The frames whose pictures are there; flow to one that is not leads nowhere."""
    kept = with_pictures({str(frame.image_path): frame.image_path for frame in frames}, str(path))
    lost = {(frame.camera_id, i) for i, frame in enumerate(frames) if str(frame.image_path) not in kept}
    found = []
    for i, frame in enumerate(frames):
        if (frame.camera_id, i) in lost:
            continue
        before, after = (_next(frames, i, step) in lost for step in (-1, 1))
        if before or after:
            frame = replace(
                frame,
                flow_bwd_path=None if before else frame.flow_bwd_path,
                flow_fwd_path=None if after else frame.flow_fwd_path,
            )
        found.append(frame)
    return found


def _next(frames: list[Frame], i: int, step: int) -> tuple[str, int]:
    """The nearest frame of the same camera on one side in the list."""
    side = range(i + step, len(frames) if step > 0 else -1, step)
    return frames[i].camera_id, next((k for k in side if frames[k].camera_id == frames[i].camera_id), -1)


def _number(where: str, meta: dict[str, Any], entry: dict[str, Any], key: str) -> float:
    """A number of the frame, or else of the whole file."""
    value = entry.get(key, meta.get(key))
    if value is None:
        raise SemfieldError(f'{where}: "{key}" is given neither for the frame nor for the file.')
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SemfieldError(f'{where}: "{key}" is {value!r}, not a number.')
    if not np.isfinite(value):
        raise SemfieldError(f'{where}: "{key}" is {value}, not a finite number.')
    return float(value)


def _camera_model(where: str, meta: dict[str, Any], entry: dict[str, Any]) -> str:
    """Of the frame, or else of the whole file. Instant-ngp says `is_fisheye` instead.

    Raises:
        SemfieldError: some key says that the lens is another one.
    """
    values = meta | entry
    for key in _FOREIGN:
        if key in values and np.any(values[key]):
            raise SemfieldError(
                f'{where}: "{key}" is {values[key]!r}, which is of a lens that is not supported: undistort the '
                "pictures with the program that found it."
            )
    model = "OPENCV"
    for key in _MODEL_KEYS:
        name = str(values.get(key, model)).upper()
        name = {"PERSPECTIVE": "PINHOLE", "BROWN": "OPENCV", "FISHEYE": _FISHEYE, "NONE": "PINHOLE"}.get(name, name)
        if name not in _CAMERA_MODELS:
            raise SemfieldError(
                f"{where}: {key} {values[key]!r} is not supported, use one of {', '.join(_CAMERA_MODELS)}; pictures of "
                "other lenses have to be undistorted first."
            )
        model = name if key in values else model
    return _FISHEYE if values.get("is_fisheye") else model


def _distortion(where: str, meta: dict[str, Any], entry: dict[str, Any]) -> np.ndarray:
    listed = entry.get("distortion_params", meta.get("distortion_params"))
    if listed is None:
        present = {key: 0.0 for key in _DISTORTION} | meta
        return np.array([_number(where, present, entry, key) for key in _DISTORTION])
    try:
        return np.array(listed, dtype=np.float64).reshape(6)
    except (TypeError, ValueError) as error:
        raise SemfieldError(f'{where}: "distortion_params" must be the 6 numbers k1 k2 k3 k4 p1 p2.') from error


def _pose(where: str, matrix: Any) -> np.ndarray:
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SemfieldError(f'{where}: "transform_matrix" is not a matrix of numbers.') from error
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
    if pose.shape != (4, 4):
        raise SemfieldError(f'{where}: "transform_matrix" has the shape {pose.shape}, not (4, 4).')
    lengths = np.linalg.norm(pose[:3, :3], axis=0)
    if np.isfinite(lengths).all() and lengths.min() > 0 and lengths.max() - lengths.min() < 1e-3 * lengths.max():
        pose[:3, :3] /= lengths.mean()  # scaled as a whole: directions and position are what they are
    return pose


def _file(where: str, root: Path, entry: dict[str, Any], key: str) -> Path | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise SemfieldError(f'{where}: "{key}" is {value!r}, not a path.')
    return existing_picture(_place(where, root, entry, key))


def _place(where: str, root: Path, entry: dict[str, Any], key: str) -> Path:
    """Where a file of the frame is, or would be. Windows separates folders by backslashes."""
    try:
        path = root / entry[key]
        return path if path.exists() else root / entry[key].replace("\\", "/")
    except (OSError, ValueError) as error:
        raise SemfieldError(f'{where}: "{key}" is no path of a file ({reason(error)}).') from error


def _each_once(path: Path, frames: list[Frame]) -> None:
    """Raise SemfieldError where two frames are of one picture: one of their poses and times is wrong."""
    first: dict[Path, int] = {}
    for index, frame in enumerate(frames):
        if (other := first.setdefault(frame.image_path, index)) != index:
            raise SemfieldError(f"{path}: the frames {other} and {index} are both of {frame.image_path}: keep one.")


def _without_nulls(value: Any) -> Any:
    """An object without the keys whose value is null, as some programs write what they do not know."""
    return {key: v for key, v in value.items() if v is not None} if isinstance(value, dict) else value


def _timed(path: Path, entries: list[dict[str, Any]], frames: list[Frame]) -> list[Frame]:
    """The frames with their times, or with those that their names tell, in that order then."""
    key = next((key for key in _TIMES if any(key in entry for entry in entries)), None)
    if key is not None:
        index = next((i for i, entry in enumerate(entries) if key not in entry), None)
        if index is not None:
            raise SemfieldError(
                f'{path}, {frames[index].where} (number {index}) has no "{key}" though other frames have one: '
                "give a time to all frames or to none."
            )
        return frames
    names = list(dict.fromkeys(entry["file_path"] for entry in entries))
    camera_of = {entry["file_path"]: str(entry.get("camera_id", "0")) for entry in entries}
    if not any("camera_id" in entry for entry in entries):
        camera_of = dict(zip(names, cameras_by_name(names), strict=True))
    times = dict(zip(names, times_by_name(names, [camera_of[name] for name in names], str(path)), strict=True))
    found = [
        replace(frame, time=times[entry["file_path"]], camera_id=camera_of[entry["file_path"]])
        for frame, entry in zip(frames, entries, strict=True)
    ]
    if found != (ordered := sorted(found, key=lambda frame: frame.time)):
        logger.info("%s: frames have no times, and are read in the order of the numbers in their names.", path)
    return ordered


def _split(path: Path, meta: dict[str, Any], frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    keys = [key for key in ("train_filenames", "val_filenames", "test_filenames") if key in meta]
    if not keys:
        return frames, []
    if "train_filenames" not in meta:
        raise SemfieldError(f'{path} has "{keys[0]}" but no "train_filenames": list the training images too.')
    known = {os.path.normpath(frame.image_path) for frame in frames}
    listed = [_place(str(path), path.parent, entry, "file_path") for entry in meta["frames"]]
    left_out = {os.path.normpath(existing_picture(picture)) for picture in listed}
    chosen: dict[str, set[str]] = {}
    for key in keys:
        if not isinstance(meta[key], list) or not all(isinstance(name, str) for name in meta[key]):
            raise SemfieldError(f'{path}: "{key}" is not a list of file names.')
        places = [_place(str(path), path.parent, {key: name}, key) for name in meta[key]]
        chosen[key] = {os.path.normpath(existing_picture(place)) for place in places}
        if unmatched := sorted(chosen[key] - known - left_out):
            raise SemfieldError(f'{path}: "{key}" names {unmatched[0]}, which is the "file_path" of no frame.')
    held_out = chosen.get("val_filenames", set()) | chosen.get("test_filenames", set())
    train = [frame for frame in frames if os.path.normpath(frame.image_path) in chosen["train_filenames"]]
    return train, [frame for frame in frames if os.path.normpath(frame.image_path) in held_out]


def _one_of(path: Path, meta: dict[str, Any], key: str, allowed: tuple[str, ...], default: str) -> Any:
    value = meta.get(key, default)
    if value not in allowed:
        listed = ", ".join(f'"{name}"' for name in allowed[:-1])
        raise SemfieldError(f'{path}: "{key}" is {value!r}, it must be {listed} or "{allowed[-1]}".')
    return value


def _positive(path: Path, meta: dict[str, Any], key: str, default: float | None) -> Any:
    if meta.get(key) is None:
        return default
    value = _number(str(path), {}, meta, key)
    if value <= 0:
        raise SemfieldError(f'{path}: "{key}" is {value:g}, it must be positive.')
    return value


# --- writing ---------------------------------------------------------------------------------------------------------


def _frame_entry(frame: Frame, root: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"file_path": _relative(frame.image_path, root)}
    entry |= {key: getattr(frame, field) for key, field in _INTRINSICS.items()}
    entry |= {key: float(value) for key, value in zip(_DISTORTION, frame.distortion, strict=True)}
    if frame.fisheye:
        entry["camera_model"] = _FISHEYE
    entry |= {"time": frame.time, "camera_id": frame.camera_id}
    for key, field in _PATHS.items():
        file = getattr(frame, field)
        if file is not None:
            entry[key] = _relative(file, root)
    entry["transform_matrix"] = frame.c2w.tolist()
    return entry


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
