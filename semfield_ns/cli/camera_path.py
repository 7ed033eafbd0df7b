"""`semfield camera-path`: camera paths with time, for `ns-render camera-path` and the viewer's Render tab."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

PathKind = Literal["train", "bullet-time", "freeze-time", "spiral"]
Poses = Float[np.ndarray, "N 4 4"]

MAX_KEYFRAMES = 12
SPIRAL_TURNS = 2
SPIRAL_RADIUS = 0.5
"""of the spiral, as a share of the standard deviation of the training cameras' positions along each axis"""


def camera_path(
    load_config: Path,
    output: Path,
    kind: PathKind = "train",
    seconds: float = 4.0,
    fps: float = 24.0,
    at: float = 0.5,
) -> None:
    """Write a camera path, with time, for ns-render.

    To render it: ns-render camera-path --load-config CONFIG --camera-path-filename OUTPUT

    Args:
        load_config: Folder of a trained run, or its config.yml.
        output: JSON file to write.
        kind: train: the training camera as time goes by. bullet-time: time stands still, the camera moves along the
            training path. freeze-time: the camera stands still, time goes by. spiral: a small spiral around the mean
            training camera as time goes by. Of a scene whose camera only turned, other viewpoints are not known, and no
            path leaves its place.
        seconds: Length of the video.
        fps: Frames per second of the video.
        at: From 0 to 1: the moment at which time stands still in bullet-time, or the place on the training path where
            the camera stands still in freeze-time.
    """
    from semfield_ns.io import write_json

    cameras = _training_cameras(load_config)
    width, height = int(cameras.width[0]), int(cameras.height[0])
    c2w = np.tile(np.eye(4), (len(cameras), 1, 1))
    c2w[:, :3] = cameras.camera_to_worlds.double().numpy()
    path = build_camera_path(
        c2w,
        None if cameras.times is None else cameras.times.double().numpy().reshape(-1),
        width=width,
        height=height,
        fov=math.degrees(2 * math.atan(height / 2 / float(cameras.fy[0]))),
        kind=kind,
        seconds=seconds,
        fps=fps,
        at=at,
    )
    write_json(output, path)
    if np.ptp(c2w[:, :3, 3], axis=0).max() < 1e-6:
        print("The camera of this scene stayed in its place: other viewpoints are not known, and no path leaves it.")
    print(f"Wrote {len(path['camera_path'])} cameras to {output}")


def _training_cameras(load_config: Path) -> "Cameras":
    """The cameras of a run's training frames in the coordinates that its model was trained in."""
    from semfield_ns.cli.one_scene import read_run

    config = read_run(load_config)
    datamanager = config.pipeline.datamanager
    if datamanager.data is not None:
        datamanager.dataparser.data = Path(datamanager.data)
    cameras = datamanager.dataparser.setup().get_dataparser_outputs(split="train").cameras
    cameras.rescale_output_resolution(datamanager.camera_res_scale_factor)
    return cameras


def build_camera_path(
    c2w: Poses,
    times: Float[np.ndarray, "N"] | None,
    *,
    width: int,
    height: int,
    fov: float,
    kind: PathKind = "train",
    seconds: float = 4.0,
    fps: float = 24.0,
    at: float = 0.5,
) -> dict[str, Any]:
    """A camera path as Nerfstudio's viewer writes and `get_path_from_json` reads it.

    Args:
        c2w: training cameras, OpenGL camera-to-world, in the model's coordinates, in any order.
        times: their times in [0, 1]; None for a static scene, whose cameras are then taken in the order given.
        width: of the video in pixels.
        height: of the video in pixels.
        fov: vertical field of view in degrees.
        kind: see `camera_path`.
        seconds: length of the video.
        fps: frames per second of the video.
        at: see `camera_path`.

    Raises:
        SemfieldError: the length, the frame rate or `at` makes no sense, there is no camera, or a static scene is asked
            to let time go by in front of a camera that stands still.
    """
    if not (seconds > 0 and fps > 0 and math.isfinite(seconds * fps)):
        raise SemfieldError(f"A camera path needs seconds and fps above 0, not {seconds} and {fps}.")
    if not 0 <= at <= 1:
        raise SemfieldError(f"--at is a place in the video from 0 (start) to 1 (end), not {at}.")
    if len(c2w) == 0:
        raise SemfieldError("A camera path needs at least one training camera, and the scene has none.")
    if times is None and kind == "freeze-time":
        raise SemfieldError("The scene is static, so nothing would move in a freeze-time path: use train or spiral.")

    steps = max(round(seconds * fps), 1)
    poses, moments = trajectory(np.asarray(c2w, dtype=np.float64), times, kind, steps, at)
    entries = [{"camera_to_world": pose.reshape(-1).tolist(), "fov": fov, "aspect": width / height} for pose in poses]
    if moments is not None:
        for entry, moment in zip(entries, moments, strict=True):
            entry["render_time"] = float(moment)
    keyframes = {round(place) for place in np.linspace(0, steps - 1, MAX_KEYFRAMES)}
    return {
        "default_fov": fov,
        "default_transition_sec": steps / fps / max(len(keyframes) - 1, 1),
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": fps,
        "seconds": steps / fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "crop": None,
        "keyframes": [_keyframe(entries[i]) for i in sorted(keyframes)],
        "camera_path": entries,
    }


def _keyframe(entry: dict[str, Any]) -> dict[str, Any]:
    """What the viewer's Render tab loads a path from."""
    keyframe = {"matrix": entry["camera_to_world"], "fov": entry["fov"], "aspect": entry["aspect"]}
    if "render_time" in entry:
        keyframe |= {"render_time": entry["render_time"], "override_time_enabled": True}
    return keyframe | {"override_transition_enabled": False, "override_transition_sec": None}


def trajectory(
    c2w: Poses, times: Float[np.ndarray, "N"] | None, kind: PathKind, steps: int, at: float
) -> tuple[Float[np.ndarray, "steps 4 4"], Float[np.ndarray, "steps"] | None]:
    """Poses and, unless the scene is static, moments of a path. See `build_camera_path` for the arguments."""
    keys, path = _training_path(c2w, times)
    running = np.linspace(keys[0], keys[-1], steps)
    chosen = keys[0] + at * (keys[-1] - keys[0])

    if kind == "train":
        poses, moments = interpolate_poses(keys, path, running), running
    elif kind == "bullet-time":
        # A rig has several cameras at that moment: these are swept. A single camera is swept through its own past.
        rig = c2w[:0] if times is None else c2w[times == times[np.abs(times - chosen).argmin()]]
        sweep, sweep_keys = (rig, np.linspace(0, 1, len(rig))) if len(rig) > 1 else (path, keys)
        poses = interpolate_poses(sweep_keys, sweep, np.linspace(sweep_keys[0], sweep_keys[-1], steps))
        moments = np.full(steps, chosen)
    elif kind == "freeze-time":
        poses, moments = interpolate_poses(keys, path, np.full(steps, chosen)), running
    else:
        poses, moments = spiral_poses(path, steps), running
    return poses, None if times is None else moments


def _training_path(
    c2w: Poses, times: Float[np.ndarray, "N"] | None
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K 4 4"]]:
    """The training camera's path: strictly rising keys (the times, if there are any) and the poses there."""
    if times is not None:
        keys, first = np.unique(times, return_index=True)  # of a rig, the first camera
        return keys, c2w[first]
    return np.linspace(0, 1, len(c2w)), c2w


def interpolate_poses(
    keys: Float[np.ndarray, "K"], poses: Float[np.ndarray, "K 4 4"], query: Float[np.ndarray, "Q"]
) -> Float[np.ndarray, "Q 4 4"]:
    """Smooth path through poses: cubic through the positions, the shortest turn from one orientation to the next.

    Args:
        keys: strictly rising places of the poses on the path.
        poses: rigid camera-to-world matrices.
        query: places to look up; beyond the ends the path stands still.
    """
    from scipy.interpolate import CubicHermiteSpline
    from scipy.spatial.transform import Rotation, Slerp

    if len(keys) == 1:
        return np.repeat(poses, len(query), axis=0)
    query = np.clip(query, keys[0], keys[-1])
    velocity = np.gradient(poses[:, :3, 3], keys, axis=0)
    result = np.tile(np.eye(4), (len(query), 1, 1))
    result[:, :3, :3] = Slerp(keys, Rotation.from_matrix(poses[:, :3, :3]))(query).as_matrix()
    result[:, :3, 3] = CubicHermiteSpline(keys, poses[:, :3, 3], velocity)(query)
    return result


def spiral_poses(poses: Float[np.ndarray, "K 4 4"], steps: int) -> Float[np.ndarray, "steps 4 4"]:
    """A spiral in the image plane of the mean camera, whose orientation it keeps; as wide as the cameras are spread."""
    from scipy.spatial.transform import Rotation

    orientation = Rotation.from_matrix(poses[:, :3, :3]).mean().as_matrix()
    centre = poses[:, :3, 3].mean(axis=0)
    radius = SPIRAL_RADIUS * np.linalg.norm((poses[:, :3, 3] - centre) @ orientation, axis=0) / math.sqrt(len(poses))
    angle = np.linspace(0, 2 * np.pi * SPIRAL_TURNS, steps, endpoint=False)
    offset = np.stack([np.cos(angle), np.sin(angle), np.sin(angle / SPIRAL_TURNS)], axis=-1) * radius
    result = np.tile(np.eye(4), (steps, 1, 1))
    result[:, :3, :3] = orientation
    result[:, :3, 3] = centre + offset @ orientation.T
    return result
