"""Labelled point clouds: the visible surface of all views, thinned to one point a cell."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from semfield_ns.errors import SemfieldError
from semfield_ns.export.views import Label, LabelledView
from semfield_ns.export.world import Affine, move
from semfield_ns.scenes.formats.ply import write_ply

_VERTEX = np.dtype(
    [
        *((axis, "<f8") for axis in "xyz"),  # coordinates of maps have millimetres in the tenth digit
        *((channel, "u1") for channel in ("red", "green", "blue")),
        *((name, "<u2") for name in ("class", "instance")),
    ]
)
_EDGE = 0.05  # of the depth: a larger step to a neighbouring pixel is a jump, where surfaces smear


class CloudWriter:
    """`points.ply` with position, colour, class and instance, and `points/LABEL.ply` for each label.

    A cell of the thinned cloud takes the label that most of its pixels have, and their mean place and colour.

    Args:
        folder: of the export.
        labels: that get files of their own; points of others are in `points.ply` without class and instance.
        to_model: from the scene's own world, which points are written in, to that of the views.
        cells: along the longest side of the cloud (the middle 98% of it): its resolution.
    """

    def __init__(self, folder: Path, labels: Sequence[Label], to_model: Affine, cells: int = 512) -> None:
        self.folder, self.labels, self.cells = folder, labels, cells
        self.to_scene = np.linalg.inv(to_model)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, view: LabelledView) -> None:
        """Takes the surface of a view.

        Raises:
            SemfieldError: nobody knows it.
        """
        if view.points is None:
            raise SemfieldError(
                f"The surface of view {view.name} is not known: point clouds need --load-config, the run itself."
            )
        good = _steady(view)
        points = move(view.points[good].astype(np.float64), self.to_scene)
        self._parts.append((points, view.rgb[good], view.ids[good].astype(np.uint16)))

    def finish(self) -> list[Path]:
        """Writes the files.

        Raises:
            SemfieldError: no view shows a surface.
        """
        if not sum(len(part[0]) for part in self._parts):
            raise SemfieldError("No view shows a surface: there are no points to write.")
        points, colors, ids = (np.concatenate([part[k] for part in self._parts]) for k in range(3))
        points, colors, ids = thin(points, colors, ids, self.cells)
        vertices = np.zeros(len(points), _VERTEX)
        for index, axis in enumerate("xyz"):
            vertices[axis] = points[:, index]
        for index, channel in enumerate(("red", "green", "blue")):
            vertices[channel] = colors[:, index]
        for label in self.labels:
            here = ids == label.id
            vertices["class"][here], vertices["instance"][here] = label.category, label.instance
        paths = [self.folder / "points.ply"]
        write_ply(paths[0], vertices, [f"comment class {label.category} {label.name}" for label in self.labels])
        for label in self.labels:
            here = ids == label.id
            if here.any():
                paths.append(self.folder / "points" / f"{label.file_name}.ply")
                write_ply(paths[-1], vertices[here])
        return paths


def _steady(view: LabelledView) -> Bool[np.ndarray, "H W"]:
    """Pixels whose surface is known and does not jump to a neighbour: a rendered edge lies between two surfaces."""
    depth = view.depth
    good = np.isfinite(depth) & (depth > 0)
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            jump = np.abs(np.diff(depth, axis=axis)) > _EDGE * np.abs(depth).take(range(1, depth.shape[axis]), axis)
            pad = [(0, 0), (0, 0)]
            for side in ((1, 0), (0, 1)):
                pad[axis] = side
                good &= ~np.pad(jump, pad)
    return good


def thin(
    points: Float[np.ndarray, "N 3"], colors: UInt8[np.ndarray, "N 3"], ids: Integer[np.ndarray, "N"], cells: int
) -> tuple[Float[np.ndarray, "M 3"], UInt8[np.ndarray, "M 3"], Integer[np.ndarray, "M"]]:
    """One point a cell of a grid: mean place and colour, and the label of most of its points."""
    low, high = np.percentile(points, (1, 99), axis=0)
    size = max(float((high - low).max()), 1e-9) / cells
    cell = np.round((points - low) / size).astype(np.int64)
    _, first, owner = np.unique(cell, axis=0, return_index=True, return_inverse=True)
    owner = owner.reshape(-1)
    count = np.bincount(owner).astype(np.float64)
    mean = [np.bincount(owner, values) / count for values in (*points.T, *colors.T.astype(np.float64))]
    kinds = int(ids.max()) + 1
    # Votes of a cell for a label, most votes last within a cell; a tie goes to the smaller id.
    pairs, votes = np.unique(owner * kinds + ids, return_counts=True)
    order = np.lexsort((-(pairs % kinds), votes, pairs // kinds))
    winner = np.zeros(len(first), ids.dtype)
    winner[pairs[order] // kinds] = pairs[order] % kinds
    return np.stack(mean[:3], axis=-1), np.stack(mean[3:], axis=-1).round().astype(np.uint8), winner
