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
from semfield_ns.semantic_flow_splat.shadows import Shadows

if TYPE_CHECKING:
    from semfield_ns.semantic_flow_splat.model import SemanticFlowSplatModel

ASKED_STEPS = 5
"""time steps at which it is looked which object a Gaussian is nearest to"""


@dataclass(frozen=True)
class EditedGaussians:
    """What edits make of a scene.

    Gaussians carry colours in their first three channels.
    """

    tracks: ObjectTracks
    owners: Int[Tensor, "N"]
    """number of the object that each Gaussian belongs to, -1 for none"""
    solid: Bool[Tensor, "N"]
    """of the class of their object; others are what is near it, such as the rim of its shadow, and are not copied"""
    kept: Bool[Tensor, "N"]
    """those that are seen in their own place"""
    copies: tuple[tuple[int, Placement], ...]
    """object and where it is put besides"""
    in_place: tuple[int, ...]
    """objects that are seen in their own place"""
    tints: Float[Tensor, "objects 3"]
    """new colours, negative for none"""
    background: tuple[float, float, float] | None
    shadows: Shadows | None = None

    def light(self, step: float) -> Float[Tensor, "N"] | None:
        """By which factor edits make each Gaussian brighter at a moment: shadows of objects come and go."""
        if self.shadows is None or (not self.copies and len(self.in_place) == len(self.tracks.objects)):
            return None
        thrown = []
        for index, placement in self.copies:
            matrix = torch.as_tensor(placement.matrix(self.tracks.centre(index, step)))
            thrown += [(index, ball.placed(matrix)) for ball in self.shadows.balls(index, step)]
        return self.shadows.light(step, self.in_place, thrown, len(self.owners))

    def apply(self, gaussians: Gaussians, step: float) -> tuple[Gaussians, Int[Tensor, "edited"]]:
        """The Gaussians of a moment after the edits, and which one each was before."""
        numbers = torch.arange(len(gaussians), device=gaussians.means.device)
        colored = gaussians.with_channels(self._colored(gaussians.channels))
        parts, origins = [colored.select(self.kept)], [numbers[self.kept]]
        for index, placement in self.copies:
            chosen = (self.owners == index) & self.solid
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
    _known_shadows: tuple[ObjectTracks, Shadows | None] | None = None

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
        in_place = tuple(index for index, there in enumerate(shown.tolist()) if there)
        return EditedGaussians(
            tracks=tracks,
            owners=owners,
            solid=self._solid(tracks, owners),
            kept=kept,
            copies=tuple(copies),
            in_place=in_place,
            tints=tints,
            background=state.background,
            shadows=self._shadows(tracks, owners),
        )

    def _solid(self, tracks: ObjectTracks, owners: Int[Tensor, "N"]) -> Bool[Tensor, "N"]:
        classes = self.model.gaussians.class_logits().argmax(dim=-1)
        of_objects = classes.new_tensor([*(entry.class_id for entry in tracks.objects), -1])
        return classes == of_objects[owners]

    def _shadows(self, tracks: ObjectTracks, owners: Int[Tensor, "N"]) -> Shadows | None:
        if self._known_shadows is None or self._known_shadows[0] is not tracks:
            found = Shadows.fitted(self.model.gaussians, owners, len(tracks.objects), self._look_out())
            self._known_shadows = tracks, found
        return self._known_shadows[1]

    def _look_out(self) -> Float[Tensor, "3"]:
        """A place that all surfaces look towards, about: the middle of the cameras."""
        return self.model.frames.frame_poses[:, :, 3].mean(dim=0)

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
