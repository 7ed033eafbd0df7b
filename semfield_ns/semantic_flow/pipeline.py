"""Joins the data manager and the model of semantic-flow: rays of a stage, checkpoints of several scenes."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from semfield_ns.errors import SemfieldError
from semfield_ns.pipeline import INFO_KEY, SemfieldPipeline, SemfieldPipelineConfig, decode_info, encode_info
from semfield_ns.scenes.labels import SemanticClass

CLASSES_KEY = "_semfield_classes"
"""Entry of the state dict with the list of classes: a model that is adapted to a scene without labels needs it."""


@dataclass
class SemanticFlowPipelineConfig(SemfieldPipelineConfig):
    """The shared pipeline, with a data manager that follows the model's stages."""

    _target: type = field(default_factory=lambda: SemanticFlowPipeline)
    scene: str | None = None
    """Name of the scene to take out of a checkpoint of several; set in the config.yml that such a run writes for it."""


class SemanticFlowPipeline(SemfieldPipeline):
    """Asks the model which part of a step's rays should be dynamic; opens one scene out of several."""

    config: SemanticFlowPipelineConfig
    datamanager: Any

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Outputs, losses and metrics of a step, on rays of which the model's share is dynamic."""
        manager: Any = self.datamanager
        manager.draw_on_moving(self.model.dynamic_fraction(step))
        return super().get_train_loss_dict(step)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What `SemfieldPipeline` saves, and the classes."""
        state = super().state_dict(*args, **kwargs)
        label_map: Any = self.model.label_map
        if label_map is not None:
            state[kwargs.get("prefix", "") + CLASSES_KEY] = encode_classes(label_map.classes)
        return state

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Loads a checkpoint completely; of a checkpoint of several scenes, the scene that the config names.

        Raises:
            SemfieldError: it does not fit, or has no such scene.
        """
        state = {key.removeprefix("module."): value for key, value in loaded_state.items() if key != CLASSES_KEY}
        if self.config.scene is not None:
            state = member_state(state, self.config.scene)
        super().load_pipeline(state, step)


def member_state(state: dict[str, Any], scene: str) -> dict[str, Any]:
    """The state of one scene's own pipeline out of that of several scenes; any other state as it is.

    Raises:
        SemfieldError: there are several scenes, but not this one.
    """
    info = decode_info(state[INFO_KEY]) if INFO_KEY in state else {}
    if "scenes" not in info:
        return state
    names = info.pop("scenes").split(", ")
    info.pop("shared")
    if scene not in names:
        raise SemfieldError(f"The checkpoint has no scene {scene}: its scenes are {', '.join(names)}.")
    prefix = f"_model.scenes.{names.index(scene)}."
    own = {f"_model.{key.removeprefix(prefix)}": value for key, value in state.items() if key.startswith(prefix)}
    # What is no part of the model, such as buffers of the pipeline itself.
    rest = {key: value for key, value in state.items() if not key.startswith("_model.")}
    return rest | own | {INFO_KEY: encode_info(info)}


def encode_classes(classes: Iterable[SemanticClass]) -> Any:
    """A list of classes as a tensor."""
    return encode_info(
        {entry.name: json.dumps(asdict(entry)) for entry in classes} | {"": json.dumps([c.name for c in classes])}
    )


def decode_classes(state: dict[str, Any]) -> tuple[SemanticClass, ...]:
    """The classes that a checkpoint's pipeline state was trained with; empty if it has none.

    Older checkpoints have the names alone: then all are grey and may move.
    """
    if CLASSES_KEY in state:
        entries = decode_info(state[CLASSES_KEY])
        found = [json.loads(entries[name]) for name in json.loads(entries[""])]
        return tuple(SemanticClass(e["name"], tuple(e["color"]), e["dynamic"]) for e in found)
    info = decode_info(state[INFO_KEY]) if INFO_KEY in state else {}
    names = [name for name in info.get("classes", "").split(", ") if name]
    return tuple(SemanticClass(name, (128, 128, 128), True) for name in names)
