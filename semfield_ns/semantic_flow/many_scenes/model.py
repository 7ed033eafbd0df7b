"""One model of several scenes: a `SemanticFlowModel` for each, with modules that they share.

What a scene keeps to itself is its geometry: the encodings that points are looked up in, the latent code, the cameras.
Everything above knows one scene only.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from torch import Tensor, nn
from torch.nn import Parameter

from semfield_ns.editing.editor import SceneEditor
from semfield_ns.errors import SemfieldError
from semfield_ns.metrics.confusion import ConfusionMatrix
from semfield_ns.scene_model import MovingSceneModel, Parts
from semfield_ns.semantic_flow.config import SemanticFlowModelConfig
from semfield_ns.semantic_flow.many_scenes.data import SceneRays
from semfield_ns.semantic_flow.model import SemanticFlowModel

SEMANTIC_PATH = ("heads",)
NETWORKS = (
    *("branches.static.trunk", "branches.static.density", "branches.static.color"),
    *("branches.flow.trunk", "branches.flow.velocity_head"),
    *("branches.dynamic.trunk", "branches.dynamic.density", "branches.dynamic.color"),
    *("branches.dynamic.blending_head", "branches.dynamic.source_gate"),
)
"""Layers of the fields; what is left of a field is the encoding, the latent code and the warp of its scene."""


def shared_modules(model: SemanticFlowModel, shared: Literal["semantics", "networks"]) -> list[str]:
    """Paths of the modules that scenes share, of those that the model has."""
    paths = list(SEMANTIC_PATH)
    if shared == "networks":
        paths += [*NETWORKS, *(f"proposals.{level}.layers" for level in range(len(model.proposals)))]
    known = dict(model.named_modules())
    return [path for path in paths if path in known]


def share(models: Sequence[SemanticFlowModel], shared: Literal["semantics", "networks"]) -> None:
    """Lets all models use the first one's modules."""
    for path in shared_modules(models[0], shared):
        parent, _, name = path.rpartition(".")
        for model in models[1:]:
            setattr(model.get_submodule(parent), name, models[0].get_submodule(path))


class ManyScenesModel(MovingSceneModel):
    """Sends rays and cameras to the model of their scene; what names no scene goes to the one that is shown."""

    config: SemanticFlowModelConfig
    can_be_segmented = False

    def populate_modules(self) -> None:
        """Builds a model a scene from the metadata's "scenes" (name -> metadata), and lets them share modules."""
        self.collider = None
        scenes: Mapping[str, dict[str, Any]] = self.kwargs["metadata"]["scenes"]
        if self.config.edits is not None:
            raise SemfieldError("Edits are of one scene: open that scene's own config.yml, in the folder scenes.")
        self.scene_names = list(scenes)
        # In a list, whose entries Nerfstudio's viewer does not search for elements.
        self.scenes = nn.ModuleList(
            SemanticFlowModel(self.config, self.scene_box, self.num_train_data, metadata=metadata)
            for metadata in scenes.values()
        )
        models = self.models
        dims = {name: model.frames.feature_dim for name, model in zip(self.scene_names, models, strict=True)}
        if len(set(dims.values())) > 1:
            raise SemfieldError(f"The frame encoder gives features of different width: {dims}; choose another one.")
        share(models, self.config.shared)
        self.label_map = models[0].label_map
        self.shown = 0
        self.confusion_matrix: ConfusionMatrix | None = None
        for model in models:
            model.class_switches = self.visible_classes

    @property
    def models(self) -> list[SemanticFlowModel]:
        """Of each scene."""
        return list(self.scenes)  # type: ignore[arg-type]

    def of(self, scene: Any) -> SemanticFlowModel:
        """The model of a scene's number; of the shown scene for None."""
        return self.models[self.shown if scene is None else int(scene)]

    @property
    def editor(self) -> SceneEditor:
        """Of the shown scene."""
        return self.of(None).editor

    def raw_outputs_for_camera(self, camera: Cameras) -> Mapping[str, Tensor]:
        """Of the scene that the camera's metadata names, or of the shown one; as of one scene from here on."""
        return self._of_camera(camera).raw_outputs_for_camera(camera)

    def raw_outputs_in_parts(self, camera: Cameras) -> Parts:
        """The same, part by part."""
        return self._of_camera(camera).raw_outputs_in_parts(camera)

    def unedited_outputs(self, camera: Cameras) -> Mapping[str, Tensor]:
        """What one camera sees without edits."""
        return self._of_camera(camera).unedited_outputs(camera)

    def present(self, raw: Mapping[str, Tensor], camera: Cameras | None = None) -> MutableMapping[str, Tensor]:
        """The outputs that people see."""
        return (self.of(None) if camera is None else self._of_camera(camera)).present(raw, camera)

    def timed(self, camera: Cameras) -> Cameras:
        """The camera, with a time."""
        return self._of_camera(camera).timed(camera)

    def time_cameras(self, scale: float = 1.0) -> list[Cameras]:
        """The cameras of the shown scene."""
        return self.of(None).time_cameras(scale)

    def time_frames(self) -> list[int]:
        """The training frames of the shown scene."""
        return self.of(None).time_frames()

    def step_of(self, time: float) -> float:
        """The time step of the shown scene."""
        return self.of(None).step_of(time)

    def _of_camera(self, camera: Cameras) -> SemanticFlowModel:
        return self.of((camera.metadata or {}).get("scene"))

    def checkpoint_info(self) -> dict[str, str]:
        """That of a single scene, with the names of the scenes and what they share."""
        return self.models[0].checkpoint_info() | {"scenes": ", ".join(self.scene_names), "shared": self.config.shared}

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """The groups of all scenes joined, each parameter once."""
        groups: dict[str, dict[int, Parameter]] = {}
        for model in self.models:
            for name, parameters in model.get_param_groups().items():
                groups.setdefault(name, {}).update({id(p): p for p in parameters})
        return {name: list(parameters.values()) for name, parameters in groups.items()}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """As of one scene."""
        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.set_step)]

    def set_step(self, step: int) -> None:
        """Puts every scene into the stage of a training step."""
        for model in self.models:
            model.set_step(step)

    def dynamic_fraction(self, step: int) -> float:
        """As of one scene."""
        return self.models[0].dynamic_fraction(step)

    def forward(self, ray_bundle: RayBundle | SceneRays) -> dict[Any, Any]:
        """The outputs of rays of the shown scene; or number of the scene -> outputs."""
        if isinstance(ray_bundle, RayBundle):
            return self.of(None)(ray_bundle)
        return {scene: self.of(scene)(rays) for scene, rays in ray_bundle}

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Of the shown scene."""
        return self.of(None).get_outputs(ray_bundle)

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colour and accumulation [..., 4] of the shown scene."""
        return self.of(None).get_rgba_image(outputs, output_name)

    def get_metrics_dict(self, outputs: dict[Any, Any], batch: dict[Any, Any]) -> dict[str, Tensor]:
        """Means over the scenes of a batch."""
        if "rgb" in outputs:
            return self.of(None).get_metrics_dict(outputs, batch)
        return mean([self.of(scene).get_metrics_dict(outputs[scene], batch[scene]) for scene in outputs])

    def get_loss_dict(
        self, outputs: dict[Any, Any], batch: dict[Any, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Means over the scenes of a batch; a loss that a scene lacks is zero there."""
        if "rgb" in outputs:
            return self.of(None).get_loss_dict(outputs, batch)
        return mean([self.of(scene).get_loss_dict(outputs[scene], batch[scene]) for scene in outputs])

    def begin_evaluation(self) -> None:
        """Starts counting, for every scene."""
        for model in self.models:
            model.begin_evaluation()

    def end_evaluation(self, output_path: Path | None) -> dict[str, float]:
        """Metrics of all scenes together, and the mIoU and accuracy of each."""
        matrices = [model.confusion_matrix for model in self.models]
        each = [model.end_evaluation(None) for model in self.models]
        first = self.models[0]
        if self.label_map is None or not any(each):
            return {}
        first.confusion_matrix = ConfusionMatrix(len(self.label_map.classes))
        for matrix in matrices:
            if matrix is not None:
                first.confusion_matrix.merge(matrix)
        together = first.end_evaluation(output_path)
        for name, metrics in zip(self.scene_names, each, strict=True):
            together |= {f"{key}_{name}": metrics[key] for key in ("miou", "accuracy") if key in metrics}
        return together

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Those of the image's scene; the PSNR and image mIoU also under the name of the scene."""
        scene = batch.get("scene")
        metrics, images = self.of(scene).get_image_metrics_and_images(outputs, batch)
        name = self.scene_names[self.shown if scene is None else scene]
        return metrics | {f"{key}_{name}": metrics[key] for key in ("psnr", "miou_image") if key in metrics}, images


def mean(values: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each entry over all dicts; one that lacks it counts as zero."""
    names = dict.fromkeys(name for entry in values for name in entry)
    return {name: sum((v[name] for v in values if name in v), torch.zeros(())) / len(values) for name in names}
