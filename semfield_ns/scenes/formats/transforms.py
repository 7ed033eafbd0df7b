"""transforms.json: Nerfstudio's format, extended by time, cameras, semantics, masks and flow."""

import os
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_json, write_json
from semfield_ns.scenes.formats.ply import read_ply_points, write_ply_points
from semfield_ns.scenes.labels import LabelMap
from semfield_ns.scenes.scene import DepthKind, Frame, Scene, assemble_scene

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
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_FISHEYE = "OPENCV_FISHEYE"
_CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", _FISHEYE)
_NERFSTUDIO_DEPTH_UNIT = 1e-3  # Nerfstudio's default meaning of a depth file: thousandths of the scene's unit


def read_transforms(path: Path) -> Scene:
    """Read a transforms.json.

    Frames without any `time` get 0, 1, 2, ... in the order listed. `train_filenames`, `val_filenames` and
    `test_filenames` split the frames (val and test are both held out); without them all frames are for training.
    Top level, all optional: `semantics`, `ply_file_path`, `near`, `far`, `depth_kind` ("metric" or "disparity"),
    `depth_unit_scale_factor` (scene units for one unit of a depth file; Nerfstudio's 0.001 if absent).

    Raises SemfieldError naming the file, and the frame and key, for anything missing, malformed or contradictory.
    """
    path = Path(path)
    meta = read_json(path)
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise SemfieldError(f'{path} has no list "frames".')
    if not meta["frames"]:
        raise SemfieldError(f"{path} lists no frames.")
    _camera_model(str(path), {}, meta)
    frames = [_read_frame(path, meta, entry, index) for index, entry in enumerate(meta["frames"])]
    _check_all_or_none_timed(path, meta["frames"], frames)
    train, test = _split(path, meta, frames)
    has_depth = any(frame.depth_path for frame in frames)
    return assemble_scene(
        path.parent,
        train,
        test,
        label_map=LabelMap.from_transforms(meta["semantics"], str(path)) if "semantics" in meta else None,
        depth_kind=_depth_kind(path, meta) if has_depth else None,
        depth_unit_scale=_positive(path, meta, "depth_unit_scale_factor", _NERFSTUDIO_DEPTH_UNIT) if has_depth else 1.0,
        near=_positive(path, meta, "near", None),
        far=_positive(path, meta, "far", None),
        points=read_ply_points(path.parent / meta["ply_file_path"]) if meta.get("ply_file_path") else None,
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
    values = {key: _number(where, meta, entry, key) for key in _INTRINSICS if key != "fl_y"}
    values["fl_y"] = _number(where, meta, entry, "fl_y" if "fl_y" in entry or "fl_y" in meta else "fl_x")
    for key in ("w", "h"):
        if values[key] != int(values[key]):
            raise SemfieldError(f'{where}: "{key}" is {values[key]:g}, not a whole number of pixels.')
    root = path.parent
    fisheye = _camera_model(where, meta, entry) == _FISHEYE
    distortion = _distortion(where, meta, entry)
    if fisheye and distortion[4:].any():
        raise SemfieldError(f"{where}: a camera of the model {_FISHEYE} has k1 to k4, and no p1 and p2.")
    return Frame(
        image_path=root / entry["file_path"],
        c2w=_pose(where, entry["transform_matrix"]),
        fx=values["fl_x"],
        fy=values["fl_y"],
        cx=values["cx"],
        cy=values["cy"],
        width=int(values["w"]),
        height=int(values["h"]),
        distortion=distortion,
        fisheye=fisheye,
        time=_number(where, {}, entry, "time") if "time" in entry else float(index),
        camera_id=str(entry.get("camera_id", "0")),
        **{field: _file(where, root, entry, key) for key, field in _PATHS.items()},  # type: ignore[arg-type]
    )


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
    """Of the frame, or else of the whole file."""
    model = entry.get("camera_model", meta.get("camera_model", "OPENCV"))
    if model not in _CAMERA_MODELS:
        raise SemfieldError(
            f"{where}: camera_model {model!r} is not supported, use one of {', '.join(_CAMERA_MODELS)}."
        )
    return str(model)


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
    return pose


def _file(where: str, root: Path, entry: dict[str, Any], key: str) -> Path | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise SemfieldError(f'{where}: "{key}" is {value!r}, not a path.')
    return root / value


def _check_all_or_none_timed(path: Path, entries: list[dict[str, Any]], frames: list[Frame]) -> None:
    timed = ["time" in entry for entry in entries]
    if any(timed) and not all(timed):
        index = timed.index(False)
        raise SemfieldError(
            f'{path}, {frames[index].where} (number {index}) has no "time" though other frames have one: '
            "give a time to all frames or to none."
        )


def _split(path: Path, meta: dict[str, Any], frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    keys = [key for key in ("train_filenames", "val_filenames", "test_filenames") if key in meta]
    if not keys:
        return frames, []
    if "train_filenames" not in meta:
        raise SemfieldError(f'{path} has "{keys[0]}" but no "train_filenames": list the training images too.')
    known = {os.path.normpath(frame.image_path) for frame in frames}
    chosen: dict[str, set[str]] = {}
    for key in keys:
        if not isinstance(meta[key], list) or not all(isinstance(name, str) for name in meta[key]):
            raise SemfieldError(f'{path}: "{key}" is not a list of file names.')
        chosen[key] = {os.path.normpath(path.parent / name) for name in meta[key]}
        if unmatched := sorted(chosen[key] - known):
            raise SemfieldError(f'{path}: "{key}" names {unmatched[0]}, which is the "file_path" of no frame.')
    held_out = chosen.get("val_filenames", set()) | chosen.get("test_filenames", set())
    train = [frame for frame in frames if os.path.normpath(frame.image_path) in chosen["train_filenames"]]
    return train, [frame for frame in frames if os.path.normpath(frame.image_path) in held_out]


def _depth_kind(path: Path, meta: dict[str, Any]) -> DepthKind:
    kind = meta.get("depth_kind", "metric")
    if kind not in ("metric", "disparity"):
        raise SemfieldError(f'{path}: "depth_kind" is {kind!r}, it must be "metric" or "disparity".')
    return cast(Literal["metric", "disparity"], kind)


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
