"""Scene layouts. `read_scene` finds out which one a folder has."""

from pathlib import Path

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.formats.colmap import colmap_model, read_colmap
from semfield_ns.scenes.formats.llff import read_llff
from semfield_ns.scenes.formats.nvidia import is_nvidia, read_nvidia
from semfield_ns.scenes.formats.transforms import read_transforms, write_transforms
from semfield_ns.scenes.scene import Scene

__all__ = ["is_scene", "read_colmap", "read_llff", "read_nvidia", "read_scene", "read_transforms", "write_transforms"]


_MARKERS = ("transforms.json", "poses_bounds.npy")


def read_scene(path: Path, images: str | None = None) -> Scene:
    """Read a scene of any layout: transforms.json, Semantic Nvidia, LLFF, or a COLMAP model.

    Args:
        path: the scene's folder, or its transforms.json.
        images: which image folder of a layout with several (LLFF, Nvidia, COLMAP), such as "images_4".

    Raises SemfieldError when the folder has none of the layouts, or for anything wrong in the scene.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".json":
        return read_transforms(path)
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
    if colmap_model(path) is not None:
        return read_colmap(path, images)
    below = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and is_scene(folder))
    hint = f"; did you mean {path / below[0]}" if below else ""
    raise SemfieldError(f"{path} holds no scene: transforms.json, poses_bounds.npy or a COLMAP model is missing{hint}.")


def is_scene(path: Path) -> bool:
    """Whether a folder looks like a scene of one of the layouts."""
    return any((path / marker).is_file() for marker in _MARKERS) or colmap_model(path) is not None
