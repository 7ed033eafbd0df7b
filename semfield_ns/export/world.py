"""The worlds that things are in: the model's (normalised), the scene's own files', and that of somebody's splats.

A world is given by the affine map [4, 4] that takes points of the scene's own world into it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_json

Affine = Float[np.ndarray, "4 4"]


def affine(transform: Any, scale: float = 1.0) -> Affine:
    """The map x -> scale * (transform @ [x, 1]) of a [3, 4] or [4, 4] transform."""
    result = np.eye(4)
    result[:3] = scale * np.asarray(transform, dtype=np.float64)[:3]
    return result


def scene_to_model(outputs: Any) -> Affine:
    """From the scene's own world into the model's, by what a data parser gave; in doubles where it gives them.

    Coordinates of maps are so large that floats lose their millimetres.
    """
    exact = outputs.metadata.get("to_model")
    if exact is not None:
        return affine(exact)
    return affine(outputs.dataparser_transform, float(outputs.dataparser_scale))


def move(points: Float[np.ndarray, "*batch 3"], map_: Affine) -> Float[np.ndarray, "*batch 3"]:
    """Points through an affine map."""
    return points @ map_[:3, :3].T + map_[:3, 3]


def from_colmap(scene: Path) -> tuple[Affine, float]:
    """How the world of COLMAP was turned into that of a transforms.json, and by what it was scaled besides.

    Args:
        scene: folder of the scene, or its transforms.json. Other layouts were not turned.
    """
    path = scene / "transforms.json" if scene.is_dir() else scene
    if path.suffix != ".json" or not path.is_file():
        return np.eye(4), 1.0
    content = read_json(path)
    try:
        scale = float(content.get("applied_scale", 1.0))
        if "applied_transform" in content:
            return affine(content["applied_transform"]), scale
        # What Nerfstudio takes for granted of older files.
        turned = (path.parent / "colmap" / "sparse" / "0").exists()
        return affine([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]) if turned else np.eye(4), scale
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise SemfieldError(f"{path}: its applied_transform is not a 3x4 matrix.") from error


def world_of_colmap(scene: Path) -> Affine:
    """From the scene's own world to that of COLMAP, before it was turned."""
    turn, scale = from_colmap(scene)
    return np.linalg.inv(affine(turn, scale))


def world_of_run(file: Path, scene: Path) -> Affine:
    """From the scene's own world to that of a run of Nerfstudio, by the `dataparser_transforms.json` beside its config.

    Nerfstudio counts from the world of COLMAP where the scene's transforms.json tells how that was turned.

    Args:
        file: dataparser_transforms.json.
        scene: the scene that the run is of.

    Raises:
        SemfieldError: the file is missing or is no such file.
    """
    content = read_json(file)
    turn, scale = from_colmap(scene)
    try:
        if np.shape(content["transform"]) not in ((3, 4), (4, 4)):
            raise ValueError("another shape")
        found = affine(affine(content["transform"]) @ np.linalg.inv(turn), float(content["scale"]) / scale)
        if not abs(np.linalg.det(found)) > 0:
            raise ValueError("not invertible")
    except (KeyError, TypeError, ValueError, ZeroDivisionError, np.linalg.LinAlgError) as error:
        raise SemfieldError(
            f"{file} is not the dataparser_transforms.json of a run: it has to have a 3x4 'transform' and a 'scale'."
        ) from error
    return found
