"""Edits of Gaussians: each moving one belongs to an object, and is moved, copied or left out with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.editing.editor import SceneEditor
from semfield_ns.editing.edits import Edit, Placement, apply_edits
from semfield_ns.editing.objects import ObjectTracks
from semfield_ns.gaussians.splats import quaternion
from semfield_ns.gaussians.values import Gaussians, concatenate
from semfield_ns.semantic_flow.layered_edits.layers import tint

if TYPE_CHECKING:
    from semfield_ns.semantic_flow_splat.model import SemanticFlowSplatModel

ASKED_STEPS = 5
"""time steps at which it is looked which object a Gaussian is nearest to"""
SHADOW = (4.0, 7.0)
"""distances from the centre of an object, in its radii, up to which its shadow may be, and beyond which it is not"""


@dataclass(frozen=True)
class EditedGaussians:
    """What edits make of a scene.

    Gaussians carry colours in their first three channels.
    """

    tracks: ObjectTracks
    owners: Int[Tensor, "N"]
    """number of the object that each Gaussian belongs to, -1 for none"""
    kept: Bool[Tensor, "N"]
    """those that are seen in their own place"""
    copies: tuple[tuple[int, Placement], ...]
    """object and where it is put besides"""
    tints: Float[Tensor, "objects 3"]
    """new colours, negative for none"""
    background: tuple[float, float, float] | None
    gone: tuple[tuple[int, float], ...] = ()
    """objects that are not near their own place, and their radii: they throw no shadow there"""

    def lit(self, means: Float[Tensor, "N 3"], step: float) -> Float[Tensor, "N"] | None:
        """How far, 0 to 1, still Gaussians lie in shadows that objects would throw which are not there any more."""
        if not self.gone:
            return None
        result = means.new_zeros(len(means))
        for index, radius in self.gone:
            centre = torch.as_tensor(self.tracks.centre(index, step)).to(means)
            away = (means - centre).norm(dim=-1) / max(radius, 1e-6)
            result = result.maximum(((SHADOW[1] - away) / (SHADOW[1] - SHADOW[0])).clamp(0, 1))
        return torch.where(self.owners < 0, result, 0.0)

    def apply(self, gaussians: Gaussians, step: float) -> tuple[Gaussians, Int[Tensor, "edited"]]:
        """The Gaussians of a moment after the edits, and which one each was before."""
        numbers = torch.arange(len(gaussians), device=gaussians.means.device)
        colored = gaussians.with_channels(self._colored(gaussians.channels))
        parts, origins = [colored.select(self.kept)], [numbers[self.kept]]
        for index, placement in self.copies:
            chosen = self.owners == index
            matrix = placement.matrix(self.tracks.centre(index, step))
            parts.append(placed(colored.select(chosen), torch.as_tensor(matrix).to(gaussians.means)))
            origins.append(numbers[chosen])
        return concatenate(parts), torch.cat(origins)

    def _colored(self, channels: Float[Tensor, "N channels"]) -> Float[Tensor, "N channels"]:
        color = channels[:, :3]
        if len(self.tints):
            wanted = self.tints.to(color)[self.owners.clamp(min=0)]
            use = (self.owners >= 0)[:, None] & (wanted >= 0)
            color = torch.where(use, tint(color, wanted), color)
        if self.background is not None:
            still = (self.owners < 0)[:, None]
            color = torch.where(still, tint(color, color.new_tensor(self.background)), color)
        return torch.cat([color, channels[:, 3:]], dim=-1)


def placed(gaussians: Gaussians, matrix: Float[Tensor, "3 4"]) -> Gaussians:
    """Gaussians moved by a similarity, or by one with a reflection."""
    linear = matrix[:, :3]
    factor = torch.linalg.det(linear).abs() ** (1 / 3)
    turn = linear / factor
    # Gaussians are their own mirror images along an axis: with all axes turned round, a reflection is a rotation.
    turn = turn * torch.sign(torch.linalg.det(turn))
    moved = gaussians.transformed(rotations=quaternion(turn), factors=factor)
    return replace(moved, means=gaussians.means @ linear.T + matrix[:, 3])


class SplatEditor(SceneEditor):
    """Edits Gaussians."""

    model: "SemanticFlowSplatModel"
    _owned: tuple[ObjectTracks, Int[Tensor, "N"]] | None = None

    def build(self, edits: Sequence[Edit]) -> EditedGaussians:
        """Which Gaussians are seen where."""
        model, tracks = self.model, self.tracks()
        classes = () if model.label_map is None else model.label_map.names
        state = apply_edits(edits, tracks.centres, classes, self.world)
        states = [state.objects[name] for name in tracks.names]
        if self._owned is None or self._owned[0] is not tracks:
            self._owned = tracks, self._owners(tracks)
        owners = self._owned[1]
        shown = torch.tensor([any(p.in_place for p in entry.placements) for entry in states], dtype=torch.bool)
        kept = torch.ones_like(owners, dtype=torch.bool)
        if states:
            kept = (owners < 0) | shown.to(owners.device)[owners.clamp(min=0)]
        copies = [
            (index, placement)
            for index, entry in enumerate(states)
            for placement in entry.placements
            if not placement.in_place
        ]
        tints = torch.tensor([entry.tint or (-1.0, -1.0, -1.0) for entry in states]).reshape(-1, 3)
        gone = []
        for index, entry in enumerate(states):
            centre, radius = tracks.centre(index, model.gaussians.num_steps // 2), self._radius(owners == index)
            places = [np.asarray(placement.matrix(centre)) @ np.append(centre, 1) for placement in entry.placements]
            # What was moved a little still throws about the same shadow.
            if not any(np.linalg.norm(place - centre) < SHADOW[0] * radius for place in places):
                gone.append((index, radius))
        return EditedGaussians(tracks, owners, kept, tuple(copies), tints, state.background, tuple(gone))

    def _radius(self, own: Bool[Tensor, "N"]) -> float:
        """Of an object: root mean square distance of its Gaussians from their centre, over the video."""
        tracks = self.model.gaussians.tracks.detach()[own[self.model.gaussians.num_still :]]
        if not len(tracks):
            return 0.0
        return float((tracks - tracks.mean(dim=0)).square().sum(dim=-1).mean().sqrt())

    def find_object(self, scene: EditedGaussians, camera: Cameras, row: float, column: float) -> int:
        """The object of the Gaussian that contributes most to a pixel."""
        number = self.model.strongest_gaussian(scene, camera, int(row), int(column))
        return -1 if number < 0 else int(scene.owners[number])

    @torch.no_grad()
    def _owners(self, tracks: ObjectTracks) -> Int[Tensor, "N"]:
        """The object of each Gaussian: that of its class whose surface is nearest along most of its way."""
        gaussians = self.model.gaussians
        owners = torch.full((len(gaussians),), -1, dtype=torch.long, device=gaussians.still.device)
        if not tracks.objects or len(gaussians) == gaussians.num_still:
            return owners
        classes = gaussians.class_logits()[gaussians.num_still :].argmax(dim=-1)
        steps = np.linspace(0, gaussians.num_steps - 1, min(ASKED_STEPS, gaussians.num_steps)).round().astype(int)
        votes = torch.zeros(len(classes), len(tracks.objects), device=owners.device)
        for step in dict.fromkeys(steps.tolist()):
            present = gaussians.opacities_at(step)[gaussians.num_still :]
            nearest = tracks.nearest(gaussians.tracks[:, step], classes, step)
            votes.scatter_add_(1, nearest[:, None], present[:, None])
        owners[gaussians.num_still :] = votes.argmax(dim=1)
        return owners
