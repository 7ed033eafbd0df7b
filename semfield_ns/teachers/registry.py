"""From the name of a teacher, as it stands in a configuration, to the teacher.

A name is one of
- `classical`, `lite`, `lite-fine`, `resnet18`, `dinov2`, `dino`, `clip`, `sam`, `sam2`, `siglip2`;
- one of the last six with other weights, `dinov2:facebook/dinov2-small` or `dinov2:FOLDER`;
- a class of your own, `module:Class`, which is made without arguments;
- several of these, `lite-fine+classical`: their features side by side, on the grid of the first.
"""

import importlib
from typing import NamedTuple

import torch

from semfield_ns.errors import SemfieldError
from semfield_ns.teachers.base import Teacher, TextTeacher
from semfield_ns.teachers.joined import JoinedTeacher


class Pretrained(NamedTuple):
    """A kind of teacher whose weights are on the hub."""

    source: str
    """weights by default"""
    dim: int
    """channels with these"""
    made_by: str
    """module and class; called with (kind, source, device)"""


PRETRAINED = {
    "dinov2": Pretrained("facebook/dinov2-large", 1024, "vit.ViTTeacher"),
    "dino": Pretrained("facebook/dino-vitb8", 768, "vit.ViTTeacher"),
    "clip": Pretrained("openai/clip-vit-base-patch16", 512, "clip.ClipTeacher"),
    "sam": Pretrained("facebook/sam-vit-base", 256, "sam.SamTeacher"),
    "sam2": Pretrained("facebook/sam2.1-hiera-small", 256, "sam.Sam2Teacher"),
    "siglip2": Pretrained("google/siglip2-base-patch16-512", 768, "vit.ViTTeacher"),
}
KINDS = ("classical", "lite", "lite-fine", "resnet18", *PRETRAINED)
DIMS = {"lite": 520, "lite-fine": 520, "resnet18": 256}
"""channels of teachers whose weights are not on the hub"""


def build_teacher(name: str, stride: int = 4, device: torch.device | str = "cpu") -> Teacher:
    """The teacher of a name.

    Args:
        name: see above.
        stride: pixels a feature cell, of the classical teacher; the others have their own.
        device: where it runs.

    Raises:
        SemfieldError: there is no such teacher, or its weights are not found.
    """
    if "+" in name:
        return JoinedTeacher([build_teacher(part, stride, device) for part in name.split("+")])
    kind, _, source = name.partition(":")
    if kind in PRETRAINED:
        module, _, made_by = PRETRAINED[kind].made_by.partition(".")
        teacher_class = getattr(importlib.import_module(f"semfield_ns.teachers.{module}"), made_by)
        return teacher_class(kind, source or PRETRAINED[kind].source, device)
    if name == "classical":
        from semfield_ns.teachers.classical import ClassicalTeacher

        return ClassicalTeacher(stride)
    if name in ("lite", "lite-fine"):
        from semfield_ns.teachers.lite import LiteTeacher

        return LiteTeacher(device=device, enlarge=1 if name == "lite" else 2)
    if name == "resnet18":
        from semfield_ns.teachers.resnet import ResNetTeacher

        return ResNetTeacher(device=device)
    return _own_teacher(name)


def teacher_dim(name: str) -> int:
    """Channels of a teacher; for a name without weights in it, without looking for any.

    Raises:
        SemfieldError: as `build_teacher`.
    """
    if "+" in name:
        return sum(teacher_dim(part) for part in name.split("+"))
    if name in PRETRAINED:
        return PRETRAINED[name].dim
    return DIMS[name] if name in DIMS else build_teacher(name).dim


def supports_text(name: str) -> bool:
    """Whether a teacher supports text queries, without looking for its weights; one of somebody's own may."""
    kind = name.partition(":")[0]
    return "+" not in name and (kind == "clip" or kind not in KINDS)


def build_text_teacher(name: str, device: torch.device | str = "cpu") -> TextTeacher:
    """The teacher of a name, which has to support text queries.

    Raises:
        SemfieldError: it does not, or as `build_teacher`.
    """
    teacher = build_teacher(name, device=device)
    if not isinstance(teacher, TextTeacher):
        raise SemfieldError(f"The teacher '{name}' does not support text queries: use 'clip'.")
    return teacher


def _own_teacher(name: str) -> Teacher:
    module, _, attribute = name.partition(":")
    try:
        if not attribute:
            raise AttributeError(name)
        teacher = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise SemfieldError(
            f"There is no teacher '{name}': choose from {', '.join(KINDS)}, add weights to one of them "
            "('dinov2:facebook/dinov2-small', 'dinov2:FOLDER'), or name a class of your own ('my_module:MyTeacher')."
        ) from error
    if not isinstance(teacher, Teacher):
        raise SemfieldError(f"'{name}' is not a teacher: derive it from semfield_ns.teachers.base.Teacher.")
    return teacher
