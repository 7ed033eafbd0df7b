"""The Gaussians of a run as .ply files that viewers of splats open."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.export.splats import write_divided
from semfield_ns.export.views import Label
from semfield_ns.export.world import Affine
from semfield_ns.gaussians.splats import Splats
from semfield_ns.io import atomic_path, write_json, write_npy
from semfield_ns.scene_model import MovingSceneModel, SceneModel
from semfield_ns.scenes.formats.ply import Ply, write_ply
from semfield_ns.scenes.formats.splats import read_splats

_LARGE = 1e4  # units of the scene: from there on, float32 is coarser than a millimetre


def write_splats(
    model: SceneModel,
    folder: Path,
    labels: Sequence[Label],
    to_model: Affine,
    at: float | None,
    method: str | None,
    selected: Int[Tensor, "N"] | None = None,
    rest: bool = True,
) -> list[Path]:
    """Writes `splats/scene.ply`, `splats/LABEL.ply` and `splats/labels.npy` of one moment, in the scene's own world.

    Without a moment: of the first one, and the whole video as `splats/video/00000.ply`, one file a time step. With a
    selection, `splats/without_LABEL.ply` too. The Gaussians of a splat that was attached are the rows of its file, in
    their order and bit for bit, and `scene.ply` is a copy of the file.

    Args:
        model: of a run.
        folder: of the export.
        labels: classes and objects that get files of their own.
        to_model: from the scene's own world to the model's; a rotation, a scale and a shift.
        at: the moment, 0 to 1.
        method: of the run, for the message.
        selected: number of the object of each Gaussian, 0 for none, where strokes selected them.
        rest: whether files of all others, `without_LABEL.ply`, are wanted of a selection.

    Raises:
        SemfieldError: the model has no Gaussians, or the file of its splat is not what it was.
    """
    target, file = folder / "splats", model.splat_file()
    if file is not None:
        return _write_rows(file, target, labels, selected, rest)
    moment = model.splats(model.step_of(at or 0.0)) if isinstance(model, MovingSceneModel) else None
    if moment is None or not isinstance(model, MovingSceneModel):
        raise SemfieldError(
            f"This run is of {method}, which has no Gaussians: train semantic-flow-splat, or divide a splat of the "
            "same scene with --splat."
        )
    paths = [target / "scene.ply", target / "labels.npy", target / "labels.json"]
    own, offset = in_own_world(moment, to_model), large_offset(to_model)
    write_ply(paths[0], own.vertices(), offset_comment(offset))
    if selected is not None:
        rows = Ply(own.vertices(), tuple(offset_comment(offset)))
        return [paths[0], *write_divided(target, rows, _of(selected, labels), None, labels, rest)]
    ids = label_ids(moment, labels)
    write_npy(paths[1], ids.astype(np.int32))
    entries = []
    for label in labels:
        mine = torch.from_numpy(ids == label.id)
        if label.instance == 0 and any(other.category == label.category for other in labels if other.instance):
            # Of a class that is divided into objects: all of them.
            mine = moment.classes.cpu() == label.category - 1
        entries.append({"id": label.id, "name": label.name, "gaussians": int(mine.sum())})
        if bool(mine.any()):
            paths.append(target / f"{label.file_name}.ply")
            write_ply(paths[-1], own.select(mine).vertices(), offset_comment(offset))
    write_json(paths[2], {"gaussians": len(ids), "offset": offset.tolist(), "labels": entries})
    if at is None and len(model.time_cameras()) > 1:
        for step in range(len(model.time_cameras())):
            one = model.splats(float(step))
            assert one is not None, "a model that has Gaussians has them at all times"
            paths.append(target / "video" / f"{step:05d}.ply")
            write_ply(paths[-1], in_own_world(one, to_model).vertices(), offset_comment(offset))
    return paths


def _write_rows(
    file: Path, folder: Path, labels: Sequence[Label], selected: Int[Tensor, "N"] | None, rest: bool
) -> list[Path]:
    """The file of a splat and its rows, divided."""
    splats = read_splats(file)
    count = len(splats) if selected is None else len(selected)
    if count != len(splats):
        raise SemfieldError(
            f"{file} has {len(splats)} Gaussians and the run {count}: it was changed, attach the splat again."
        )
    whole = folder / "scene.ply"
    with atomic_path(whole) as temporary:
        shutil.copyfile(file, temporary)
    ids = np.zeros(count, dtype=np.int64) if selected is None else _of(selected, labels)
    return [whole, *write_divided(folder, splats, ids, None, labels, rest)]


def _of(selected: Int[Tensor, "N"], labels: Sequence[Label]) -> Int[np.ndarray, "N"]:
    """Ids of these labels; those of others become 0."""
    ids = selected.cpu().numpy()
    return np.where(np.isin(ids, [label.id for label in labels]), ids, 0)


def large_offset(to_model: Affine) -> Float[np.ndarray, "3"]:
    """What is subtracted from places in the scene's own world, as viewers of splats read float32; 0 where small."""
    centre = np.linalg.inv(to_model)[:3, 3]
    return np.round(centre, -3) if np.abs(centre).max() > _LARGE else np.zeros(3)


def offset_comment(offset: Float[np.ndarray, "3"]) -> list[str]:
    """The line of a .ply file that says what was subtracted."""
    return [f"comment offset {' '.join(f'{value:.0f}' for value in offset)}"] if offset.any() else []


def in_own_world(splats: Splats, to_model: Affine) -> Splats:
    """Gaussians of the model's world in the scene's own, less its `large_offset`."""
    back = np.linalg.inv(to_model)
    back[:3, 3] -= large_offset(to_model)
    factor = float(np.cbrt(np.linalg.det(back[:3, :3])))
    rotation = torch.from_numpy(back[:3, :3] / factor).float()
    return _on_cpu(splats).transformed(rotation, factor, torch.from_numpy(back[:3, 3]).float())


def label_ids(splats: Splats, labels: Sequence[Label]) -> np.ndarray:
    """The id of the label of each Gaussian: its object's, else its class's, 0 where neither is among the labels."""
    classes, objects = splats.classes.cpu().numpy(), splats.objects.cpu().numpy()
    ids = np.zeros(len(classes), dtype=np.int64)
    for label in sorted(labels, key=lambda entry: entry.instance):
        ids[objects == label.instance - 1 if label.instance else classes == label.category - 1] = label.id
    return ids


def _on_cpu(splats: Splats) -> Splats:
    def cpu(value: Tensor) -> Tensor:
        return value.detach().cpu()

    return Splats(
        splats.gaussians.detach().to("cpu"), cpu(splats.coefficients), cpu(splats.classes), cpu(splats.objects)
    )
