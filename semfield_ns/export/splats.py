"""Labels for Gaussian splats that somebody else trained: every Gaussian is assigned by a vote of the views.

Every pixel of a view votes for its label, with what each Gaussian contributes to the pixel: less near the edge of a
mask, and not where the Gaussians show another surface than the view does. Gaussians that no view sees get the label of
most of their nearest neighbours that one sees.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from scipy.ndimage import distance_transform_edt, generate_binary_structure, maximum_filter, minimum_filter
from scipy.spatial import cKDTree
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.export.views import Label, LabelledView
from semfield_ns.export.world import Affine, move
from semfield_ns.gaussians.projection import project
from semfield_ns.gaussians.rasterize import rasterize, uplift
from semfield_ns.gaussians.splats import quaternion
from semfield_ns.gaussians.values import Gaussians
from semfield_ns.io import write_json, write_npy
from semfield_ns.rendering.projection import distort
from semfield_ns.scenes.formats.ply import Ply, read_ply, write_ply
from semfield_ns.segmentation.cameras import ViewCamera

NEEDED = ("x", "y", "z", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
DEPTH_TOLERANCE = 0.05
"""of the depth: standard deviation of the agreement of both surfaces"""
EDGE_WIDTH = 1.5
"""pixels: closer to the edge of a mask, where masks are wrong, a vote counts less"""
_NEIGHBOURS = 5


def read_splats(path: Path) -> Ply:
    """A file of Gaussians in the ordinary format of 3D Gaussian splatting.

    Raises:
        SemfieldError: the file is missing, broken, or of something else.
    """
    splats = read_ply(path)
    lacking = [name for name in NEEDED if name not in splats.properties]
    if lacking:
        raise SemfieldError(f"{path} holds no Gaussian splats: its vertices have no property '{lacking[0]}'.")
    if not len(splats):
        raise SemfieldError(f"{path} holds no Gaussian.")
    if not np.isfinite(splats.points()).all():
        raise SemfieldError(f"{path} has Gaussians at places that are NaN or infinite.")
    return splats


def gaussians_of(splats: Ply, to_model: Affine) -> Gaussians:
    """The Gaussians of a file, without channels, in another world.

    Args:
        splats: of `read_splats`.
        to_model: a rotation, a scale and a shift.
    """

    def columns(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([splats.vertices[name].astype(np.float32) for name in names], axis=-1))

    factor = float(np.cbrt(np.linalg.det(to_model[:3, :3])))
    rotation = torch.from_numpy(to_model[:3, :3] / factor).float()
    quaternions, scales = columns(*(f"rot_{i}" for i in range(4))), columns(*(f"scale_{i}" for i in range(3)))
    opacities = torch.sigmoid(columns("opacity")[:, 0])
    turned = Gaussians(torch.zeros(len(splats), 3), quaternions, scales.exp(), opacities, torch.zeros(len(splats), 0))
    turned = turned.transformed(quaternion(rotation), None, factor)
    # In doubles: worlds of maps have large coordinates.
    return replace(turned, means=torch.from_numpy(move(splats.points(), to_model)).float())


class SplatVotes:
    """The votes of views for the labels of Gaussians: each pixel votes for its label with what they contribute to it.

    Args:
        gaussians: in the world of the views.
        num_labels: the largest id of a label.
    """

    def __init__(self, gaussians: Gaussians, num_labels: int) -> None:
        self.gaussians = gaussians
        self.votes = np.zeros((len(gaussians.means), num_labels + 1), np.float32)

    def add(self, view: LabelledView) -> None:
        """Lets a view vote."""
        camera, gaussians = view.camera, self.gaussians
        trust = np.minimum((_edge_distance(view.ids) + 0.5) / EDGE_WIDTH, 1.0).astype(np.float32)
        ids = view.ids.astype(np.int64)
        depth = None if view.points is None else np.nan_to_num(view.depth, nan=0.0, posinf=0.0, neginf=0.0)
        if camera.distortion:
            where, inside = _through_pinhole(camera)
            ids, trust, depth = ids[where], trust[where] * inside, None if depth is None else depth[where]
        projection = project(
            gaussians.means,
            gaussians.quaternions,
            gaussians.scales,
            torch.tensor(camera.camera_to_world).view(3, 4),
            (camera.fx, camera.fy, camera.cx, camera.cy),
            camera.width,
            camera.height,
            opacities=gaussians.opacities,
        )
        if depth is not None:
            seen = rasterize(projection, gaussians.opacities, gaussians.channels, median_depth=True).median_depth
            assert seen is not None, "asked for"
            error = (seen[..., 0].numpy() - depth) / (DEPTH_TOLERANCE * np.maximum(depth, 1e-9))
            trust = trust * np.where(depth > 0, np.exp(-0.5 * np.minimum(error**2, 60.0)), 0.0)
        image = F.one_hot(torch.from_numpy(ids), self.votes.shape[1]) * torch.from_numpy(trust)[..., None]
        self.votes += uplift(projection, gaussians.opacities, image.float())[0].numpy()

    def labels(self) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """The id of each Gaussian, 0 for none, and the share of the votes that it got (0 where no view sees it).

        Raises:
            SemfieldError: no view sees any of them.
        """
        total = self.votes.sum(axis=1)
        seen = total > 1e-2 * (np.median(total[total > 0]) if (total > 0).any() else 1.0)
        if not seen.any():
            raise SemfieldError(
                "No view sees any of the Gaussians: are they in another world? Give --splat-world, such as the "
                "dataparser_transforms.json of their run."
            )
        chosen = self.votes.argmax(axis=1)
        share = np.where(seen, self.votes.max(axis=1) / np.maximum(total, 1e-12), 0.0)
        if not seen.all():
            centres = self.gaussians.means.numpy()
            tree = cKDTree(centres[seen])
            near = tree.query(centres[~seen], k=min(_NEIGHBOURS, int(seen.sum())))[1].reshape(int((~seen).sum()), -1)
            around = chosen[seen][near]
            counts = np.stack([(around == label).sum(axis=1) for label in range(self.votes.shape[1])], axis=-1)
            chosen[~seen] = counts.argmax(axis=1)
        return chosen, share


def _through_pinhole(camera: ViewCamera) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Row and column, in the picture, of each pixel of the same camera without distortion, and whether it is inside."""
    rows, columns = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    focal, centre = torch.tensor([camera.fx, camera.fy]), torch.tensor([camera.cx, camera.cy])
    straight = (torch.stack([columns, rows], dim=-1) - centre) / focal
    pixels = distort(straight, torch.tensor(camera.distortion)) * focal + centre
    column, row = pixels.floor().long().unbind(dim=-1)
    inside = ((row >= 0) & (row < camera.height) & (column >= 0) & (column < camera.width)).numpy()
    return (row.clamp(0, camera.height - 1).numpy(), column.clamp(0, camera.width - 1).numpy()), inside


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
        self.votes = SplatVotes(gaussians_of(self.splats, to_model), max(label.id for label in labels))

    def add(self, view: LabelledView) -> None:
        """Lets a view vote."""
        self.votes.add(view)

    def finish(self) -> list[Path]:
        """Writes the files."""
        ids, share = self.votes.labels()
        paths = [self.folder / "labels.npy", self.folder / "labels.json"]
        write_npy(paths[0], ids.astype(np.int32))
        entries = []
        for label in self.labels:
            mine = ids == label.id
            entries.append(
                {
                    "id": label.id,
                    "name": label.name,
                    "gaussians": int(mine.sum()),
                    "agreement": round(float(share[mine & (share > 0)].mean()), 4) if (mine & (share > 0)).any() else 0,
                }
            )
            for name, kept in ((label.file_name, mine), (f"without_{label.file_name}", ~mine)):
                if kept.any():
                    paths.append(self.folder / f"{name}.ply")
                    write_ply(paths[-1], self.splats.vertices[kept], self.splats.comments)
        write_json(paths[1], {"gaussians": len(ids), "labels": entries})
        return paths
