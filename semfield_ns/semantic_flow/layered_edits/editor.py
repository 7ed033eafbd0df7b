"""The edits of a radiance field: layers of rays, built for the first edit."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.editing.editor import SceneEditor
from semfield_ns.editing.edits import Edit
from semfield_ns.semantic_flow.flow_attention.tracing import trace_neighbours
from semfield_ns.semantic_flow.layered_edits.layers import EditedScene

if TYPE_CHECKING:
    from semfield_ns.semantic_flow.model import SemanticFlowModel


class FieldEditor(SceneEditor):
    """Edits a radiance field in layers of rays (`EditedScene`)."""

    model: "SemanticFlowModel"

    def build(self, edits: Sequence[Edit]) -> EditedScene:
        """The layers that rays go through."""
        model = self.model
        return EditedScene(
            model.branches,
            model.frames,
            self.tracks(),
            edits,
            () if model.label_map is None else model.label_map.names,
            self.world,
            lambda bundle, time: model.sample(bundle, time)[0],
            partial(moving_classes, model),
            model.initial_sampler,
            model.config.num_samples,
        )

    def find_object(self, scene: EditedScene, camera: Cameras, row: float, column: float) -> int:
        """The object that most of a ray's weight belongs to."""
        pixel = torch.tensor([[row, column]], device=self.model.device)
        rays = camera.to(self.model.device).generate_rays(camera_indices=0, coords=pixel)
        return int(scene.shown_objects(self.model.collider(rays)))


def moving_classes(
    model: "SemanticFlowModel",
    points: Float[Tensor, "N 3"],
    time: Float[Tensor, "N 1"],
    feature: Float[Tensor, "N dim"],
) -> Int[Tensor, "N"]:
    """The class that the dynamic branch gives to points at times in frames, from the dynamic field's feature."""
    assert model.heads is not None, "a scene with classes has heads"
    trajectory = trace_neighbours(points[:, None], time, model.branches.flow.velocity, len(model.frames))
    return model.heads.dynamic_logits(trajectory, feature[:, None], model.frames)[:, 0].argmax(dim=-1)
