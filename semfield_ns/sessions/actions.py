"""What people do to a session, and the state that it amounts to: values and pure functions.

An action says what was done; a state is a fold of a log of actions. Nothing in here knows a viewer, a model or a file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.prompts import Prompt, Stroke, TextQuery

MAX_OBJECTS = 255
Color = tuple[int, int, int]

# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddObject:
    """A new object with its own number."""

    object: int
    name: str
    color: Color

    def __post_init__(self) -> None:
        object.__setattr__(self, "color", _color(self.color))
        _check_name(self.name)


@dataclass(frozen=True)
class RenameObject:
    """Another name."""

    object: int
    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True)
class RecolorObject:
    """Another colour."""

    object: int
    color: Color

    def __post_init__(self) -> None:
        object.__setattr__(self, "color", _color(self.color))


@dataclass(frozen=True)
class DeleteObject:
    """Deletes an object and its prompts."""

    object: int


@dataclass(frozen=True)
class AddPrompt:
    """A stroke, box or text for an object, with a number of its own."""

    object: int
    id: int
    prompt: Prompt


@dataclass(frozen=True)
class ErasePrompt:
    """Deletes one prompt."""

    id: int


@dataclass(frozen=True)
class Clear:
    """Deletes all prompts of an object, or with None those of all objects."""

    object: int | None = None


@dataclass(frozen=True)
class SetThreshold:
    """The score, in [0, 1], above which a pixel may be of the object."""

    object: int
    value: float

    def __post_init__(self) -> None:
        _check_share(self.value, "threshold")


@dataclass(frozen=True)
class SetGrowth:
    """How far scores spread over similar neighbours, from 0 (not at all) to 1."""

    object: int
    value: float

    def __post_init__(self) -> None:
        _check_share(self.value, "growth")


@dataclass(frozen=True)
class SetParts:
    """Into how many parts of similar features the object is divided; 1 is none."""

    object: int
    count: int

    def __post_init__(self) -> None:
        if not (isinstance(self.count, int) and 1 <= self.count <= 32):
            raise SemfieldError(f"An object can be divided into 1 to 32 parts, not {self.count!r}.")


@dataclass(frozen=True)
class Undo:
    """Takes back the last action that was not taken back."""


@dataclass(frozen=True)
class Redo:
    """Does again what the last undo took back, unless something else was done since."""


Change = (
    AddObject
    | RenameObject
    | RecolorObject
    | DeleteObject
    | AddPrompt
    | ErasePrompt
    | Clear
    | SetThreshold
    | SetGrowth
    | SetParts
)
Action = Change | Undo | Redo

# --- state -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObjectState:
    """An object, with what was drawn for it."""

    id: int
    name: str
    color: Color
    """sRGB, 0 to 255"""
    threshold: float = 0.5
    growth: float = 0.5
    parts: int = 1
    prompts: tuple[tuple[int, Prompt], ...] = ()
    """(number, prompt) in the order in which they came"""


@dataclass(frozen=True)
class SessionState:
    """What all actions together amount to. Immutable: a thread may keep it as long as it likes."""

    objects: tuple[ObjectState, ...] = ()

    def object(self, number: int) -> ObjectState:
        """The object of a number.

        Raises:
            SemfieldError: there is none.
        """
        for entry in self.objects:
            if entry.id == number:
                return entry
        raise SemfieldError(f"There is no object {number}; it may have been deleted.")

    @property
    def prompts(self) -> tuple[tuple[int, int, Prompt], ...]:
        """(object, number, prompt) of all objects."""
        return tuple((entry.id, number, prompt) for entry in self.objects for number, prompt in entry.prompts)


def apply(state: SessionState, action: Change) -> SessionState:
    """The state after one more action.

    Raises:
        SemfieldError: the action refers to an object or stroke that does not exist.
    """
    if isinstance(action, AddObject):
        if any(entry.id == action.object for entry in state.objects):
            raise SemfieldError(f"Object {action.object} exists already.")
        if len(state.objects) >= MAX_OBJECTS:
            raise SemfieldError(f"A session has at most {MAX_OBJECTS} objects.")
        return SessionState((*state.objects, ObjectState(action.object, action.name, action.color)))
    if isinstance(action, ErasePrompt):
        if not any(number == action.id for _, number, _ in state.prompts):
            raise SemfieldError(f"There is no stroke {action.id}; it may have been erased.")
        return _each(state, lambda o: replace(o, prompts=tuple(p for p in o.prompts if p[0] != action.id)))
    if isinstance(action, Clear) and action.object is None:
        return _each(state, lambda o: replace(o, prompts=()))
    entry = state.object(action.object)  # type: ignore[arg-type]
    if isinstance(action, DeleteObject):
        return SessionState(tuple(other for other in state.objects if other is not entry))
    if isinstance(action, AddPrompt):
        if any(number == action.id for _, number, _ in state.prompts):
            raise SemfieldError(f"Stroke {action.id} exists already.")
        changed = replace(entry, prompts=(*entry.prompts, (action.id, action.prompt)))
    elif isinstance(action, RenameObject):
        changed = replace(entry, name=action.name)
    elif isinstance(action, RecolorObject):
        changed = replace(entry, color=action.color)
    elif isinstance(action, SetThreshold):
        changed = replace(entry, threshold=float(action.value))
    elif isinstance(action, SetGrowth):
        changed = replace(entry, growth=float(action.value))
    elif isinstance(action, SetParts):
        changed = replace(entry, parts=action.count)
    else:
        changed = replace(entry, prompts=())
    return _each(state, lambda o: changed if o is entry else o)


def described(action: Change, state: SessionState) -> str:
    """An action in words, such as "stroke on ball".

    Args:
        action: what was done.
        state: before that.
    """
    if isinstance(action, AddObject):
        return f"{action.name} added"
    if isinstance(action, ErasePrompt):
        owner = next(entry for entry in state.objects if action.id in dict(entry.prompts))
        return f"{_drawn(dict(owner.prompts)[action.id], owner.name)} erased"
    if action.object is None:
        return "all strokes cleared"
    name = state.object(action.object).name
    if isinstance(action, AddPrompt):
        return _drawn(action.prompt, name)
    return {
        RenameObject: f"name of {name}",
        RecolorObject: f"colour of {name}",
        DeleteObject: f"{name} deleted",
        Clear: f"strokes of {name} cleared",
        SetThreshold: f"tightness of {name}",
        SetGrowth: f"spread of {name}",
        SetParts: f"parts of {name}",
    }[type(action)]


def _drawn(prompt: Prompt, name: str) -> str:
    if isinstance(prompt, TextQuery):
        return f"words for {name}"
    kind = "stroke" if isinstance(prompt, Stroke) else "box"
    return f"{kind} on {name if prompt.positive else f'the background of {name}'}"


def replay(log: Sequence[Action]) -> SessionState:
    """The state that a log amounts to.

    Raises:
        SemfieldError: an action refers to what does not exist; the message counts actions from 1.
    """
    return replayed(log).state


class History:
    """The states so far, and those that were taken back."""

    def __init__(self) -> None:
        self.done: list[tuple[Change | None, SessionState]] = [(None, SessionState())]
        self.undone: list[tuple[Change | None, SessionState]] = []

    @property
    def state(self) -> SessionState:
        """The newest."""
        return self.done[-1][1]

    @property
    def last_done(self) -> str | None:
        """What would be taken back, in words; None where there is nothing."""
        action = self.done[-1][0]
        return None if action is None else described(action, self.done[-2][1])

    @property
    def last_undone(self) -> str | None:
        """What would be done again, in words; None where there is nothing."""
        action = self.undone[-1][0] if self.undone else None
        return None if action is None else described(action, self.state)

    def do(self, action: Action) -> None:
        """Adds an action, or takes one back, or does it again."""
        if isinstance(action, Undo):
            if len(self.done) > 1:
                self.undone.append(self.done.pop())
        elif isinstance(action, Redo):
            if self.undone:
                self.done.append(self.undone.pop())
        else:
            self.done.append((action, apply(self.state, action)))
            self.undone.clear()


def replayed(log: Sequence[Action]) -> History:
    """All states of a log; raises what `replay` raises."""
    history = History()
    for number, action in enumerate(log, start=1):
        try:
            history.do(action)
        except SemfieldError as error:
            raise SemfieldError(f"Action {number} ({type(action).__name__}): {error}") from error
    return history


def _each(state: SessionState, change: Callable[[ObjectState], ObjectState]) -> SessionState:
    return SessionState(tuple(change(entry) for entry in state.objects))


def _color(value: Sequence[int]) -> Color:
    channels = tuple(value)
    if len(channels) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in channels):
        raise SemfieldError(f"A colour is three whole numbers from 0 to 255, not {value!r}.")
    return channels


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.strip():
        raise SemfieldError("An object needs a name.")


def _check_share(value: float, what: str) -> None:
    if not isinstance(value, int | float) or not (math.isfinite(value) and 0 <= value <= 1):
        raise SemfieldError(f"A {what} is a number from 0 to 1, not {value!r}.")
