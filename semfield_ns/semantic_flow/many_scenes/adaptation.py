"""A trained model meets another scene: what is not bound to a scene is taken over, the rest starts fresh.

Bound to a scene are the encodings that its points are looked up in, its latent code and its cameras. Layers on top of
them, and above all the semantic path, are not. Classes are matched by name. Feature planes start at the mean of the
scenes that the checkpoint knows: what is at the same place in most of them, in values that the layers on top know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.pipeline import INFO_KEY, decode_info
from semfield_ns.semantic_flow.encodings import PlanesEncoding
from semfield_ns.semantic_flow.many_scenes.model import shared_modules
from semfield_ns.semantic_flow.model import SemanticFlowModel

CLASS_LAYERS = ("heads.static.layers.4.", "heads.dynamic.layers.4.")
"""Layers of the semantic path that end in logits: a row a class."""

PARTS = {"heads": "semantic path", "branches": "layers of the fields", "proposals": "layers that place samples"}


@dataclass(frozen=True)
class Transfer:
    """What was taken over."""

    modules: list[str]
    """Paths."""
    classes: list[str]
    """Names that both sides know."""
    new_classes: list[str]
    """Names that the model has to learn."""
    taken: int
    """Numbers (parameters) that were taken over."""
    fresh: int
    """Numbers that start fresh."""

    def sentence(self) -> str:
        """One line for the log."""
        parts = list(dict.fromkeys(PARTS[path.partition(".")[0]] for path in self.modules))
        new = f", new classes {', '.join(self.new_classes)}" if self.new_classes else ""
        return (
            f"Taken from the checkpoint: {self.taken:,} parameters ({', '.join(parts)}) with the classes "
            f"{', '.join(self.classes) or 'none'}; "
            f"this scene's own: {self.fresh:,} parameters (encodings, latent code){new}."
        )


def transfer(
    model: SemanticFlowModel, state: Mapping[str, Any], classes: Sequence[str], networks: bool = True
) -> Transfer:
    """Copies what is not bound to a scene into a fresh model.

    Args:
        model: of the new scene.
        state: pipeline state of a checkpoint, of one scene or of several (then of its first scene).
        classes: names of the classes in the order in which the checkpoint has them.
        networks: take the layers of the fields too, not the semantic path alone.

    Raises:
        SemfieldError: the semantic path does not fit, because the settings differ, or because it corrects evidence and
            the new scene has no labels to take evidence from.
    """
    corrects = "evidence" in decode_info(state[INFO_KEY]) if INFO_KEY in state else model.config.evidence
    if corrects != model.config.evidence:
        raise SemfieldError(
            f"The checkpoint cannot be adapted: it was trained with --pipeline.model.evidence {corrects}; use that."
        )
    if corrects and model.heads is not None and not model.frames.has_classifier:
        raise SemfieldError(
            "The checkpoint cannot be adapted: its heads only correct the evidence of labels "
            "(--pipeline.model.evidence True), and the new scene shows none; label a frame, or train the checkpoint "
            "without evidence."
        )
    sources = scene_states(state)
    found = sources[0]
    own = dict(model.named_parameters())
    modules = shared_modules(model, "networks" if networks else "semantics")
    names = [] if model.label_map is None else model.label_map.names
    rows = [(names.index(name), index) for index, name in enumerate(classes) if name in names]
    taken = 0
    for path in modules:
        for name in (name for name in own if name.startswith(f"{path}.")):
            value: Tensor | None = found.get(name)
            if name.startswith(CLASS_LAYERS) and value is not None and value.shape[1:] == own[name].shape[1:]:
                here, there = [row for row, _ in rows], [row for _, row in rows]
                own[name].data[here] = value[there].to(own[name])
                taken += own[name].data[here].numel()
            elif value is not None and value.shape == own[name].shape:
                own[name].data.copy_(value)
                taken += value.numel()
            else:
                shape = "missing" if value is None else tuple(value.shape)
                raise SemfieldError(
                    f"The checkpoint cannot be adapted: {name} is {shape} there and {tuple(own[name].shape)} here; use "
                    "the preset, the frame encoder and the model settings that it was trained with."
                )
    if networks:
        # Of feature planes the first axis is the channels.
        planes = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, PlanesEncoding))
        for name in (name for name in own if name.startswith(planes)):
            known = [
                resampled(source[name], own[name].shape[1:])
                for source in sources
                if name in source and source[name].shape[0] == own[name].shape[0]
            ]
            if known:
                own[name].data.copy_(torch.stack(known).mean(dim=0))
    total = sum(parameter.numel() for parameter in own.values())
    shared = [name for name in names if name in classes]
    return Transfer(modules, shared, [name for name in names if name not in classes], taken, total - taken)


def resampled(plane: Float[Tensor, "channels h w"], size: Sequence[int]) -> Float[Tensor, "channels H W"]:
    """A feature plane with another number of cells, of a video of another length for example."""
    return F.interpolate(plane[None].float(), size=tuple(size), mode="bilinear", align_corners=True)[0]


def scene_states(state: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Entries of the model of each scene of a checkpoint; of the only one, where it is of one scene."""
    numbers = sorted({int(key.split(".")[2]) for key in state if key.startswith("_model.scenes.")})
    prefixes = [f"_model.scenes.{number}." for number in numbers] or ["_model."]
    return [{k.removeprefix(p): value for k, value in state.items() if k.startswith(p)} for p in prefixes]


def for_adaptation(settings: Any, steps: int, length: int) -> None:
    """Fits a preset's schedule of `length` steps to an adaptation.

    Both branches learn from the first step to the last, since the layers know their work, and samples are concentrated
    soon. The learning rates are those of the beginning of the schedule: planes have a long way to go in few steps.

    Args:
        settings: a trainer's configuration of semantic-flow; changed.
        steps: of the adaptation.
        length: of the schedule.
    """
    model = settings.pipeline.model
    model.stage_one_steps, model.freeze_static = 0, False
    model.proposal_anneal_steps = max(1, round(model.proposal_anneal_steps * min(steps / max(length, 1), 1.0)))
