"""Edits of a scene as values: what to do with which object. A list of them is a small JSON or YAML file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from jaxtyping import Float
from scipy.spatial.transform import Rotation

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
    box: tuple[Vector, Vector] | None = None
    """two opposite corners: of the target, only the objects whose centre is in between at some moment that sees them"""

    def __post_init__(self) -> None:
        if self.box is not None:
            corners = [list(corner) for corner in self.box]
            if [len(corner) for corner in corners] != [3, 3] or not np.isfinite(np.array(corners, dtype=float)).all():
                raise SemfieldError(f"The box of an edit is two corners of three finite numbers, not {self.box!r}.")
            object.__setattr__(self, "box", tuple(tuple(map(float, corner)) for corner in corners))
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


def require_classes(edits: Sequence[Edit], classes: Sequence[str], where: object) -> None:
    """Asks whether edits name classes that there are; which of their objects there are is known when the run is open.

    Raises:
        SemfieldError: one does not; the message begins with `where` and counts edits from 1.
    """
    for number, edit in enumerate(edits, start=1):
        if edit.target and not {edit.target, edit.target.rpartition("#")[0]} & set(classes):
            there = f"the classes are {', '.join(classes)}" if classes else "the run has no classes"
            raise SemfieldError(f"{where}, edit {number}: there is no {edit.target!r}; {there}.")


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
    except SemfieldError as error:  # a ValueError too
        raise SemfieldError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise SemfieldError(f"{where}: {error}.") from error


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
    edits: Sequence[Edit],
    objects: Mapping[str, Float[np.ndarray, "K 3"]],
    classes: Sequence[str],
    world: Float[np.ndarray, "3 4"],
) -> EditedState:
    """Goes through a list of edits, each of which sees what the ones before left.

    Args:
        edits: in order.
        objects: names of the moving objects, "class#number", with their centres at the moments that see them, in the
            model's world.
        classes: names of the classes.
        world: the scene's own world -> the model's world; a rotation times a scale, and a shift.

    Raises:
        SemfieldError: an edit names what is not there; the message counts edits from 1.
    """
    state = {name: ObjectState() for name in objects}
    background = None
    for number, edit in enumerate(edits, start=1):
        if edit.kind == "background":
            background = edit.color
            continue
        for name in _targets(edit, number, objects, classes, world):
            state[name] = _apply(edit, state[name], world[:, :3])
    return EditedState(state, background)


def _targets(
    edit: Edit,
    number: int,
    objects: Mapping[str, Float[np.ndarray, "K 3"]],
    classes: Sequence[str],
    world: Float[np.ndarray, "3 4"],
) -> list[str]:
    named = [name for name in objects if edit.target in ("", name, name.rpartition("#")[0])]
    if named and edit.box is not None:
        places = {name: own_world(objects[name], world) for name in named}
        low, high = np.sort(np.array(edit.box), axis=0)
        named = [name for name, centres in places.items() if ((centres >= low) & (centres <= high)).all(axis=1).any()]
        if not named:
            ranges = ", ".join(
                f"{name} from {_numbers(centres.min(axis=0))} to {_numbers(centres.max(axis=0))}"
                for name, centres in places.items()
            )
            raise SemfieldError(f"Edit {number} ({edit.kind}): nothing is ever in its box; the centres are: {ranges}.")
    if named:
        return named
    there = f"the moving objects are {', '.join(objects)}" if objects else "nothing moves in this scene"
    if edit.target in classes:
        raise SemfieldError(f"Edit {number} ({edit.kind}): no {edit.target!r} moves in this scene; {there}.")
    raise SemfieldError(f"Edit {number} ({edit.kind}): there is no {edit.target!r}; {there}.")


def own_world(points: Float[np.ndarray, "K 3"], world: Float[np.ndarray, "3 4"]) -> Float[np.ndarray, "K 3"]:
    """Points of the model's world in the scene's own, of which `world` leads to the model's."""
    return (points - world[:, 3]) @ np.linalg.inv(world[:, :3]).T


def _numbers(values: Float[np.ndarray, "3"]) -> str:
    return f"[{', '.join(f'{value:.3g}' for value in values)}]"


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
    return edit.scale * Rotation.from_rotvec(edit.degrees * axis, degrees=True).as_matrix()
