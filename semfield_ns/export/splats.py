"""Labels for Gaussian splats that somebody else trained: every Gaussian is assigned by a vote of the views.

A Gaussian that a view sees on its surface votes there for the label of its pixel; the vote counts more the better its
depth agrees with the view's, the closer the camera is, and the further the edge of the mask is. Gaussians that no view
sees get the label of most of their nearest neighbours that one sees.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from scipy.ndimage import distance_transform_edt, generate_binary_structure, maximum_filter, minimum_filter
from scipy.spatial import cKDTree

from semfield_ns.errors import SemfieldError
from semfield_ns.export.views import Label, LabelledView
from semfield_ns.export.world import Affine, move
from semfield_ns.io import write_json, write_npy
from semfield_ns.scenes.formats.ply import Ply, write_ply
from semfield_ns.scenes.formats.splats import read_splats

DEPTH_TOLERANCE = 0.02
"""of the depth: standard deviation of the agreement"""
EDGE_WIDTH = 4.0
"""pixels: closer to the edge of a mask, where masks are wrong, a vote counts less"""
_NEIGHBOURS = 5
_CHUNK = 1 << 18


class SplatVotes:
    """The votes of views for the labels of points.

    Args:
        centres: of the Gaussians, in the world of the views.
        num_labels: the largest id of a label.
        tolerance: of depths, see `DEPTH_TOLERANCE`.
    """

    def __init__(self, centres: Float[np.ndarray, "N 3"], num_labels: int, tolerance: float = DEPTH_TOLERANCE) -> None:
        self.centres, self.tolerance = torch.from_numpy(np.ascontiguousarray(centres)).float(), tolerance
        self.votes = np.zeros((len(centres), num_labels + 1), np.float32)

    def add(self, view: LabelledView) -> None:
        """Lets a view vote.

        Raises:
            SemfieldError: its surface is not known.
        """
        if view.points is None:
            raise SemfieldError(
                f"The surface of view {view.name} is not known: splats need --load-config, the run itself."
            )
        depth = np.nan_to_num(view.depth, nan=0.0, posinf=0.0, neginf=0.0)
        trust = np.minimum((_edge_distance(view.ids) + 0.5) / EDGE_WIDTH, 1.0)
        for start in range(0, len(self.centres), _CHUNK):
            pixels, away, seen = (t.numpy() for t in view.camera.project(self.centres[start : start + _CHUNK]))
            seen = seen & np.isfinite(pixels).all(axis=-1)
            rows = np.flatnonzero(seen)
            if not len(rows):
                continue
            column, row = np.floor(pixels[rows]).astype(int).T
            label, weight = self._vote(depth, view.ids, trust, row, column, away[rows])
            self.votes[start + rows, label] += weight * view.camera.fx / away[rows]

    def _vote(
        self,
        depth: np.ndarray,
        ids: np.ndarray,
        trust: np.ndarray,
        row: np.ndarray,
        column: np.ndarray,
        away: np.ndarray,
    ) -> tuple[Int[np.ndarray, "K"], Float[np.ndarray, "K"]]:
        """Label and weight of points in a view: of that pixel of the 3x3 around them whose depth agrees best.

        At the rim of an object a centre may well fall beside it, onto the background.
        """
        height, width = ids.shape
        label, best, trusted = np.zeros(len(row), np.int64), np.zeros(len(row)), np.zeros(len(row))
        for dy, dx in sorted(((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)), key=lambda o: abs(o[0]) + abs(o[1])):
            y, x = np.clip(row + dy, 0, height - 1), np.clip(column + dx, 0, width - 1)
            there = depth[y, x]
            error = (away - there) / (self.tolerance * np.maximum(there, 1e-9))
            weight = np.where(there > 0, np.exp(-0.5 * np.minimum(error**2, 60.0)), 0.0)
            # A neighbour has to agree clearly better than the pixel itself.
            better = weight > best + (0.0 if (dy, dx) == (0, 0) else 0.25)
            label[better], best[better], trusted[better] = ids[y, x][better], weight[better], trust[y, x][better]
        return label, best * trusted

    def labels(self) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """The id of each Gaussian, 0 for none, and the share of the votes that it got (0 where no view sees it).

        Raises:
            SemfieldError: no view sees any of them.
        """
        total = self.votes.sum(axis=1)
        seen = total > 1e-2 * (np.median(total[total > 0]) if (total > 0).any() else 1.0)
        if not seen.any():
            raise SemfieldError(
                "No view sees any of the Gaussians: are they in other coordinates? Give --splat-world, such as the "
                "dataparser_transforms.json of their run."
            )
        chosen = self.votes.argmax(axis=1)
        share = np.where(seen, self.votes.max(axis=1) / np.maximum(total, 1e-12), 0.0)
        if not seen.all():
            centres = self.centres.numpy()
            tree = cKDTree(centres[seen])
            near = tree.query(centres[~seen], k=min(_NEIGHBOURS, int(seen.sum())))[1].reshape(int((~seen).sum()), -1)
            around = chosen[seen][near]
            counts = np.stack([(around == label).sum(axis=1) for label in range(self.votes.shape[1])], axis=-1)
            chosen[~seen] = counts.argmax(axis=1)
        return chosen, share


def _edge_distance(ids: Integer[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Pixels from each pixel to the nearest one that touches another label; all the same where there is one label."""
    cross = generate_binary_structure(2, 1)
    edge = maximum_filter(ids, footprint=cross) != minimum_filter(ids, footprint=cross)
    return distance_transform_edt(~edge) if edge.any() else np.full(ids.shape, EDGE_WIDTH)


class SplatWriter:
    """`splats/LABEL.ply` (its Gaussians alone), `splats/without_LABEL.ply` (all others) and `splats/labels.npy`.

    The files are in the world of the file that was given, and every property of every Gaussian is as it was there.

    Args:
        folder: of the export.
        labels: that are written.
        file: the Gaussians.
        to_model: from the world of the file to that of the views.
    """

    def __init__(self, folder: Path, labels: Sequence[Label], file: Path, to_model: Affine) -> None:
        self.folder, self.labels = folder / "splats", labels
        self.splats = read_splats(file)
        centres = move(self.splats.points(), to_model)
        self.votes = SplatVotes(centres, max(label.id for label in labels))

    def add(self, view: LabelledView) -> None:
        """Lets a view vote."""
        self.votes.add(view)

    def finish(self) -> list[Path]:
        """Writes the files."""
        return write_divided(self.folder, self.splats, *self.votes.labels(), self.labels)


def write_divided(
    folder: Path,
    splats: Ply,
    ids: Int[np.ndarray, "N"],
    share: Float[np.ndarray, "N"] | None,
    labels: Sequence[Label],
    rest: bool = True,
) -> list[Path]:
    """Writes `LABEL.ply` and `without_LABEL.ply` of each label, `labels.npy` and `labels.json`.

    Rows are those of the file that was given, bit for bit and in its order.

    Args:
        folder: for the files.
        splats: what is divided.
        ids: of the label of each Gaussian, 0 for none.
        share: how many of the votes it got; None where nobody voted.
        labels: that are written.
        rest: whether `without_LABEL.ply` is wanted too.

    Returns:
        The files.
    """
    paths = [folder / "labels.npy", folder / "labels.json"]
    write_npy(paths[0], ids.astype(np.int32))
    entries = []
    for label in labels:
        mine = ids == label.id
        entry = {"id": label.id, "name": label.name, "gaussians": int(mine.sum())}
        if share is not None:
            voted = mine & (share > 0)
            entry["agreement"] = round(float(share[voted].mean()), 4) if voted.any() else 0
        entries.append(entry)
        for name, kept in ((label.file_name, mine), (f"without_{label.file_name}", ~mine)):
            if kept.any() and (rest or kept is mine):
                paths.append(folder / f"{name}.ply")
                write_ply(paths[-1], splats.vertices[kept], splats.comments)
    write_json(paths[1], {"gaussians": len(ids), "labels": entries})
    return paths
