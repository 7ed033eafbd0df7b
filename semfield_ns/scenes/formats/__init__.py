"""Scene layouts. `read_scene` finds out which one a folder has."""

from pathlib import Path

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.formats.blender import is_blender, read_blender
from semfield_ns.scenes.formats.colmap import colmap_model, read_colmap
from semfield_ns.scenes.formats.llff import read_llff
from semfield_ns.scenes.formats.nerfies import is_nerfies, read_nerfies
from semfield_ns.scenes.formats.nvidia import is_nvidia, read_nvidia
from semfield_ns.scenes.formats.transforms import read_transforms, write_transforms
from semfield_ns.scenes.scene import Scene

__all__ = ["is_scene", "read_colmap", "read_llff", "read_nvidia", "read_scene", "read_transforms", "write_transforms"]


_MARKERS = ("transforms.json", "poses_bounds.npy", "transforms_train.json")
_CONVERTED = {
    ("keyframes/*cameras",): "a capture of Polycam: convert it with ns-process-data polycam, and give its output.",
    ("metadata", "rgbd"): "a capture of Record3D: convert it with ns-process-data record3d, and give its output.",
    ("EXR_RGBD/metadata",): "a capture of Record3D: convert it with ns-process-data record3d, and give its output.",
    ("*_transforms.json",): "a transforms.json of another name: give that file itself.",
    ("bundle.out",): "a model of Bundler, which is not read: convert it to COLMAP's.",
    ("*.r3d",): "a file of Record3D: unpack it, and convert it with ns-process-data record3d.",
}
"""what other programs leave, and what to do with it"""


def read_scene(path: Path, images: str | None = None) -> Scene:
    """Read a scene of any layout: transforms.json, Semantic Nvidia, LLFF, Blender, HyperNeRF, or a COLMAP model.

    Args:
        path: the scene's folder, or its transforms.json.
        images: which image folder of a layout with several (LLFF, Nvidia, COLMAP), such as "images_4".

    Raises SemfieldError when the folder has none of the layouts, or for anything wrong in the scene.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() == ".json":
        return read_transforms(path)
    if path.is_file() and path.suffix.lower() in (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"):
        raise SemfieldError(f"{path} is a video: make a scene of it with semfield process, and give that folder.")
    if not path.is_dir():
        raise SemfieldError(
            f"There is no scene at {path}: give the folder that holds transforms.json or poses_bounds.npy."
        )
    if (path / "transforms.json").exists():
        return read_transforms(path / "transforms.json")
    if is_nvidia(path):
        return read_nvidia(path, images)
    if (path / "poses_bounds.npy").exists():
        return read_llff(path, images)
    if is_blender(path):
        return read_blender(path)
    if is_nerfies(path):
        return read_nerfies(path, images)
    if colmap_model(path) is not None:
        return read_colmap(path, images)
    for marks, advice in _CONVERTED.items():
        if all(any(path.glob(mark)) for mark in marks):
            raise SemfieldError(f"{path} holds {advice}")
    below = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and is_scene(folder))
    hint = f"; did you mean {path / below[0]}" if below else ""
    raise SemfieldError(f"{path} holds no scene: transforms.json, poses_bounds.npy or a COLMAP model is missing{hint}.")


def is_scene(path: Path) -> bool:
    """Whether a folder looks like a scene of one of the layouts."""
    return any((path / marker).is_file() for marker in _MARKERS) or is_nerfies(path) or colmap_model(path) is not None
