"""Synthetic scenes written as extended transforms.json folders, whole or not at all."""

import glob
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_json, reason, write_json, write_npy, write_npz, write_png
from semfield_ns.scenes.labels import LabelMap
from semfield_ns.scenes.synthetic.presets import make_scene
from semfield_ns.scenes.synthetic.scene import AnalyticScene

VERSION = 1
"""Raised whenever the same arguments give other files, so that older folders are not taken for current ones."""
PATH_KEYS = (
    "file_path",
    "depth_file_path",
    "semantic_path",
    "instance_path",
    "dynamic_mask_path",
    "flow_fwd_path",
    "flow_bwd_path",
)
"""Keys of a frame that name a file."""

Progress = Callable[[int, int], None]


def write_scene(
    name: str,
    output_dir: Path,
    seed: int = 0,
    num_frames: int = 24,
    width: int = 160,
    height: int = 120,
    samples_per_axis: int = 3,
    progress: Progress | None = None,
) -> Path:
    """Write a preset with all its truth into the folder `output_dir`, unless the same scene is there already.

    Everything is written into a hidden sibling folder, which takes its name at the end: a folder with a transforms.json
    is a whole scene.

    Args:
        name: one of PRESETS.
        output_dir: the scene's own folder: absent, empty, or an earlier synthetic scene, which is replaced.
        seed: see `make_scene`, as for the next three.
        num_frames: frames of the clip, or views of a static scene.
        width: picture width in pixels.
        height: picture height in pixels.
        samples_per_axis: anti-aliasing of the pictures, samples_per_axis^2 samples a pixel.
        progress: called with (pictures written, pictures in all).

    Returns:
        output_dir, with transforms.json, images, labels, instances and depth, for moving scenes also masks and flow.

    Raises:
        SemfieldError: for bad arguments, a folder that holds something else, or a disk that cannot be written.
    """
    output_dir = Path(output_dir)
    if samples_per_axis < 1:
        raise SemfieldError(f"A picture needs at least 1 sample a pixel, not samples_per_axis={samples_per_axis}.")
    scene = make_scene(name, seed, num_frames, width, height)
    recipe = {
        "version": VERSION,
        "name": name,
        "seed": seed,
        "num_frames": num_frames,
        "width": width,
        "height": height,
        "samples_per_axis": samples_per_axis,
    }
    if is_complete(output_dir, recipe):
        return output_dir
    _refuse_foreign(output_dir)
    resolved = output_dir.resolve()
    temporary = resolved.with_name(f".{resolved.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        _remove_abandoned(resolved)
        temporary.mkdir(parents=True)
        _write_files(scene, temporary, recipe, samples_per_axis, progress)
        _put_in_place(temporary, resolved, recipe)
    except OSError as error:
        raise SemfieldError(
            f"Cannot write the scene {output_dir} ({reason(error)}): free some space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output_dir


def is_complete(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether the folder holds the scene of this recipe with every file it names."""
    if not (folder / "transforms.json").is_file():
        return False
    try:
        transforms = read_json(folder / "transforms.json")
        if transforms["synthetic"]["recipe"] != recipe:
            return False
        named = [frame[key] for frame in transforms["frames"] for key in PATH_KEYS if key in frame]
    except (SemfieldError, KeyError, TypeError):
        return False
    return all((folder / path).is_file() for path in named)


def _refuse_foreign(folder: Path) -> None:
    """Raise unless the folder is absent, empty, or a synthetic scene of ours that may be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SemfieldError(f"Cannot write a scene to {folder}, which is a file: choose a folder.")
    if not any(folder.iterdir()):
        return
    try:
        ours = "synthetic" in read_json(folder / "transforms.json")
    except (SemfieldError, TypeError):
        ours = False
    if not ours:
        raise SemfieldError(f"The folder {folder} holds something else than a synthetic scene: choose another folder.")


def _remove_abandoned(folder: Path) -> None:
    """Delete what writers of this folder left behind when they were killed on this machine."""
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.{glob.escape(socket.gethostname())}-*.partial"):
        process = path.name.removesuffix(".partial").rpartition("-")[2]
        if not process.isdigit():
            continue
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:  # somebody else's process, so it lives
            continue


def _put_in_place(temporary: Path, folder: Path, recipe: dict[str, Any]) -> None:
    """Give the finished folder its name; the scene that was there, if any, goes only then."""
    if is_complete(folder, recipe):  # another writer was quicker
        return
    if folder.exists():
        old = temporary.with_name(temporary.name.replace(f"-{os.getpid()}.", f"-old-{os.getpid()}."))
        os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, folder)


def _write_files(
    scene: AnalyticScene, root: Path, recipe: dict[str, Any], samples_per_axis: int, progress: Progress | None
) -> None:
    """All frames, then transforms.json."""
    train = [(f"{t:03d}", scene.camera_at(t), t, "moving") for t in range(scene.num_frames)]
    if scene.static:
        train = [(stem, c2w, 0, f"view_{t:03d}") for stem, c2w, t, _ in train]
    test = [
        (f"held_{k:02d}_{t:03d}", c2w, t, f"held_{k:02d}")
        for k, c2w in enumerate(scene.held_out_cameras())
        for t in scene.held_out_times()
    ]
    frames = []
    for stem, c2w, time, camera_id in train + test:
        frame = _write_view(scene, root, stem, c2w, time, samples_per_axis)
        frame["camera_id"] = camera_id
        frames.append(frame)
        if progress is not None:
            progress(len(frames), len(train) + len(test))
    if not scene.static:
        for time in range(scene.num_frames):
            frames[time].update(_write_flows(scene, root, time))
    write_json(root / "transforms.json", _transforms(scene, frames, len(train), recipe))


def _write_view(
    scene: AnalyticScene, root: Path, stem: str, c2w: np.ndarray, time: int, samples_per_axis: int
) -> dict[str, Any]:
    """Render one view and write its pictures; returns its entry in transforms.json."""
    truth = scene.render(c2w, time=time, samples_per_axis=samples_per_axis)
    frame: dict[str, Any] = {
        "file_path": f"images/{stem}.png",
        "depth_file_path": f"depth/{stem}.npy",
        "semantic_path": f"labels/{stem}.png",
        "instance_path": f"instances/{stem}.png",
    }
    write_png(root / frame["file_path"], np.round(truth["rgb"] * 255).astype(np.uint8))
    write_npy(root / frame["depth_file_path"], truth["depth"])
    write_png(root / frame["semantic_path"], truth["semantics"])
    write_png(root / frame["instance_path"], truth["instances"])
    if not scene.static:
        frame["time"] = time
        frame["dynamic_mask_path"] = f"masks/{stem}.png"
        write_png(root / frame["dynamic_mask_path"], truth["dynamic"].astype(np.uint8) * 255)
    frame["transform_matrix"] = c2w.tolist()
    return frame


def _write_flows(scene: AnalyticScene, root: Path, time: int) -> dict[str, str]:
    """Write the flows from a training frame to its neighbours in time; returns their keys in transforms.json."""
    paths = {}
    for key, name, other in (("flow_fwd_path", "fwd", time + 1), ("flow_bwd_path", "bwd", time - 1)):
        if 0 <= other < scene.num_frames:
            flow, valid = scene.flow_between(scene.camera_at(time), time, scene.camera_at(other), other)
            paths[key] = f"flow/{time:03d}_{name}.npz"
            write_npz(root / paths[key], flow=flow, mask=valid)
    return paths


def _transforms(
    scene: AnalyticScene, frames: list[dict[str, Any]], num_train: int, recipe: dict[str, Any]
) -> dict[str, Any]:
    """The content of transforms.json."""
    camera = scene.intrinsics
    names = [frame["file_path"] for frame in frames]
    return {
        "camera_model": "OPENCV",
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "w": camera.width,
        "h": camera.height,
        "depth_unit_scale_factor": 1.0,
        "semantics": LabelMap(scene.classes).to_transforms(),
        "synthetic": {
            "recipe": recipe,
            "instances": [{"id": o.instance, "name": o.name, "class": o.class_name} for o in scene.instances],
        },
        "train_filenames": names[:num_train],
        "val_filenames": names[num_train:],
        "test_filenames": names[num_train:],
        "frames": frames,
    }
