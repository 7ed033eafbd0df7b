"""The edits of a model: where they come from, and what is found out about the scene when the first one is asked for."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.semantic_flow.edits import Edit, read_edits
from semfield_ns.semantic_flow.objects import FrameView, ObjectTracks, find_objects
from semfield_ns.semantic_flow.semantics import trace_neighbours

if TYPE_CHECKING:
    from semfield_ns.semantic_flow.editing import EditedScene
    from semfield_ns.semantic_flow.model import SemanticFlowModel

SEARCH_SCALE = 0.5
"""of the training pictures, at which objects are looked for"""


class SceneEditor:
    """Edits, and the objects that they speak of.

    Args:
        path: a file of edits, or None.
        world: the scene's own world -> the model's world.
    """

    def __init__(self, path: Path | None, world: Float[np.ndarray, "3 4"]) -> None:
        self.world = world
        self.edits: tuple[Edit, ...] = () if path is None else read_edits(path)
        self._tracks: ObjectTracks | None = None
        self._scene: EditedScene | None = None

    def change(self, model: "SemanticFlowModel", edits: Sequence[Edit]) -> list[str]:
        """Other edits from now on; returns the names of the scene's objects.

        Raises:
            SemfieldError: an edit names what is not there, or the model is being trained; the edits stay as they were.
        """
        if not edits:
            self.edits, self._scene = (), None
            return [] if self._tracks is None else self._tracks.names
        if model.training:
            raise SemfieldError("A scene is edited when its training is done: open the run with ns-viewer.")
        self._scene = self._build(model, edits)
        self.edits = tuple(edits)
        return self.tracks(model).names

    @torch.no_grad()
    def object_at(self, model: "SemanticFlowModel", camera: Cameras, at: tuple[float, float]) -> str:
        """The name of the moving object that a picture shows, with the edits, at a place.

        Args:
            model: the edits are of.
            camera: one camera with a time.
            at: x right and y down, as shares of the picture's sides.

        Raises:
            SemfieldError: nothing that moves is seen there, or the model is being trained.
        """
        if model.training:
            raise SemfieldError("Objects are looked for when training is done: open the run with ns-viewer.")
        scene = self.scene(model) if self.edits else self._build(model, ())
        pixel = torch.tensor([at[1] * float(camera.height), at[0] * float(camera.width)])
        rays = camera.to(model.device).generate_rays(camera_indices=0, coords=pixel.to(model.device)[None])
        number = int(scene.shown_objects(model.collider(rays)))
        if number < 0:
            raise SemfieldError("Nothing that moves is seen there.")
        return self.tracks(model).names[number]

    def forget(self) -> None:
        """The weights have changed: objects have to be found again."""
        self._tracks = self._scene = None

    def tracks(self, model: "SemanticFlowModel") -> ObjectTracks:
        """The moving objects as the model sees them; renders every training frame, small, the first time."""
        if self._tracks is None:
            self._tracks = track_objects(model)
        return self._tracks

    def scene(self, model: "SemanticFlowModel") -> "EditedScene":
        """The edited scene.

        Raises:
            SemfieldError: an edit names what is not there.
        """
        if self._scene is None:
            self._scene = self._build(model, self.edits)
        return self._scene

    def _build(self, model: "SemanticFlowModel", edits: Sequence[Edit]) -> "EditedScene":
        from semfield_ns.semantic_flow.editing import EditedScene

        return EditedScene(
            model.branches,
            model.frames,
            self.tracks(model),
            edits,
            () if model.label_map is None else model.label_map.names,
            self.world,
            lambda bundle, time: model.sample(bundle, time)[0],
            partial(moving_classes, model),
            model.initial_sampler,
            model.config.num_samples,
        )


def moving_classes(
    model: "SemanticFlowModel",
    points: Float[Tensor, "N 3"],
    time: Float[Tensor, "N 1"],
    feature: Float[Tensor, "N dim"],
) -> Int[Tensor, "N"]:
    """The class that the dynamic branch gives to points at times in frames, from the dynamic field's feature."""
    assert model.heads is not None, "a scene with classes has heads"
    trajectory = trace_neighbours(points[:, None], time, model.branches.flow, len(model.frames))
    return model.heads.dynamic_logits(trajectory, feature[:, None], model.frames)[:, 0].argmax(dim=-1)


@torch.no_grad()
def track_objects(
    model: "SemanticFlowModel", scale: float = SEARCH_SCALE, watch: Callable[[Any], Iterable[Any]] = iter
) -> ObjectTracks:
    """Renders the training frames, unedited, and links the moving parts of each class.

    Args:
        model: a trained model.
        scale: of the renders, against the training pictures.
        watch: goes through the list of views, as `rich.progress.track` does.

    Raises:
        SemfieldError: the scene has no classes.
    """
    if model.label_map is None:
        raise SemfieldError("This scene has no classes: objects are found by their class, so give it labels.")
    views = []
    for camera in watch(list(model.frames.cameras(scale))):
        raw = model.raw_outputs_for_camera(camera, edited=False)
        views.append(
            FrameView(
                labels=raw["logits"].argmax(dim=-1).cpu().numpy(),
                moving=(raw["dynamic_weight"][..., 0] > 0.5).cpu().numpy(),
                surface=raw["surface"].double().cpu().numpy(),
                forward=raw["scene_flow_forward"].double().cpu().numpy(),
            )
        )
    flags = model.label_map.dynamic
    # A scene that does not say which classes move: whatever moves.
    classes = np.flatnonzero(flags) if flags.any() else np.arange(len(flags))
    return ObjectTracks(find_objects(views, classes.tolist()), model.label_map.names, len(model.frames))
