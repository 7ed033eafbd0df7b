"""Edits of a scene as values: what to do with which object. A list of them is a small JSON or YAML file."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from jaxtyping import Float

from semfield_ns.errors import SemfieldError

Kind = Literal["remove", "move", "duplicate", "mirror", "recolor", "background"]
Vector = tuple[float, float, float]
EDIT_HELP = f"an edit is one of {', '.join(get_args(Kind))}"


@dataclass(frozen=True)
class Edit:
    """One edit. Lengths and axes are those of the scene's own files (the world of its transforms.json).

    Moves, rotations and scales happen about the object's own centre, wherever that is at the time.
    """

    kind: Kind
    """remove; move; duplicate (a moved copy); mirror (through a plane at the object's centre); recolor; background
    (everything that stands still gets a colour)"""
    target: str = ""
    """a moving class ("ball"), one object of it ("ball#2"), or "" for all moving things"""
    translation: Vector = (0.0, 0.0, 0.0)
    """of move and duplicate"""
    axis: Vector = (0.0, 0.0, 1.0)
    """of the rotation of move and duplicate, or the normal of the plane of mirror"""
    degrees: float = 0.0
    """of the rotation, right-handed about `axis`"""
    scale: float = 1.0
    """of move and duplicate"""
    color: Vector = (0.5, 0.5, 0.5)
    """RGB in [0, 1], of recolor and background; shading is kept"""

    def __post_init__(self) -> None:
        for name in ("translation", "axis", "color"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise SemfieldError(f"The {name} of an edit is three finite numbers, not {getattr(self, name)!r}.")
            object.__setattr__(self, name, values)
        if self.kind not in get_args(Kind):
            raise SemfieldError(f"There is no edit {self.kind!r}: {EDIT_HELP}.")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise SemfieldError(f"The scale of an edit is a positive number, not {self.scale!r}.")
        if not math.isfinite(self.degrees):
            raise SemfieldError(f"The degrees of an edit are a finite number, not {self.degrees!r}.")
        if not any(self.axis):
            raise SemfieldError("The axis of an edit is a direction; (0, 0, 0) is none.")
        if not all(0 <= value <= 1 for value in self.color):
            raise SemfieldError(f"The color of an edit is RGB in [0, 1], not {self.color!r}.")


def read_edits(path: Path) -> tuple[Edit, ...]:
    """The edits of a JSON or YAML file: a list of mappings with the fields of `Edit`.

    Raises:
        SemfieldError: the file is not there or is no such list; the message counts edits from 1.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON or YAML text"
        raise SemfieldError(f"The edits {path} cannot be read: {reason}.") from error
    if not isinstance(content, list):
        raise SemfieldError(f"{path} is not a list of edits, such as [{{kind: remove, target: ball}}].")
    return tuple(_read_edit(entry, f"{path}, edit {number}") for number, entry in enumerate(content, start=1))


def edits_json(edits: Sequence[Edit]) -> str:
    """The text that `read_edits` reads."""
    return json.dumps([asdict(edit) for edit in edits], indent=1)


def _read_edit(entry: Any, where: str) -> Edit:
    names = [known.name for known in fields(Edit)]
    if not isinstance(entry, dict) or "kind" not in entry:
        raise SemfieldError(f"{where}: it is not a mapping with a `kind`; {EDIT_HELP}.")
    for name in entry:
        if name not in names:
            raise SemfieldError(f"{where}: there is no field {name!r}; choose from {', '.join(names)}.")
    try:
        return Edit(**entry)
    except (TypeError, ValueError) as error:
        raise SemfieldError(f"{where}: {error}.") from error
    except SemfieldError as error:
        raise SemfieldError(f"{where}: {error}") from error


@dataclass(frozen=True)
class Placement:
    """Where an object is put: x -> centre + linear (x - centre) + offset, with the centre that it has at the time."""

    linear: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    offset: Float[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))

    @property
    def in_place(self) -> bool:
        """Whether nothing is changed."""
        return bool(np.array_equal(self.linear, np.eye(3)) and not self.offset.any())

    def then(self, other: "Placement") -> "Placement":
        """This one, then `other` about where the centre is by then."""
        return Placement(other.linear @ self.linear, self.offset + other.offset)

    def matrix(self, centre: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 4"]:
        """The affine map of world points for an object with that centre."""
        return np.concatenate([self.linear, (centre + self.offset - self.linear @ centre)[:, None]], axis=1)


@dataclass(frozen=True)
class ObjectState:
    """What all edits together make of an object."""

    placements: tuple[Placement, ...] = (Placement(),)
    """none: removed; the first edit of a fresh object starts from the place where it is"""
    tint: Vector | None = None


@dataclass(frozen=True)
class EditedState:
    """What all edits together make of a scene."""

    objects: dict[str, ObjectState]
    """by the object's name, "class#number" """
    background: Vector | None = None


def apply_edits(
    edits: Sequence[Edit], objects: Sequence[str], classes: Sequence[str], world: Float[np.ndarray, "3 3"]
) -> EditedState:
    """Goes through a list of edits, each of which sees what the ones before left.

    Args:
        edits: in order.
        objects: names of the moving objects, "class#number".
        classes: names of the classes.
        world: directions and lengths of the scene's own world -> of the model's world (a rotation times a scale).

    Raises:
        SemfieldError: an edit names what is not there; the message counts edits from 1.
    """
    state = {name: ObjectState() for name in objects}
    background = None
    for number, edit in enumerate(edits, start=1):
        if edit.kind == "background":
            background = edit.color
            continue
        for name in _targets(edit, number, objects, classes):
            state[name] = _apply(edit, state[name], world)
    return EditedState(state, background)


def _targets(edit: Edit, number: int, objects: Sequence[str], classes: Sequence[str]) -> list[str]:
    chosen = [name for name in objects if edit.target in ("", name, name.rpartition("#")[0])]
    if chosen:
        return chosen
    there = f"the moving objects are {', '.join(objects)}" if objects else "nothing moves in this scene"
    if edit.target in classes:
        raise SemfieldError(f"Edit {number} ({edit.kind}): no {edit.target!r} moves in this scene; {there}.")
    raise SemfieldError(f"Edit {number} ({edit.kind}): there is no {edit.target!r}; {there}.")


def _apply(edit: Edit, state: ObjectState, world: Float[np.ndarray, "3 3"]) -> ObjectState:
    if edit.kind == "remove":
        return replace(state, placements=())
    if edit.kind == "recolor":
        return replace(state, tint=edit.color)
    change = Placement(_linear(edit, world), world @ np.asarray(edit.translation))
    moved = tuple(placement.then(change) for placement in state.placements)
    return replace(state, placements=(*state.placements, *moved) if edit.kind == "duplicate" else moved)


def _linear(edit: Edit, world: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    axis = world @ np.asarray(edit.axis)
    axis = axis / np.linalg.norm(axis)
    if edit.kind == "mirror":
        return np.eye(3) - 2 * np.outer(axis, axis)
    if edit.degrees == 0 and edit.scale == 1:
        return np.eye(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = math.radians(edit.degrees)
    return edit.scale * (np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)
