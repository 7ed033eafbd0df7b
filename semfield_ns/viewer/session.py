"""A segmentation session: a log of actions.

Its state is a fold of the log, so undo, redo, save and replay are one thing.

    session = Session()
    ball = session.add_object("ball")
    session.add_stroke(ball, camera, [(120.0, 80.0), (140.0, 90.0)])
    session.undo()
    session.save(path)

Nothing in here knows a viewer, a model or a tensor. Cameras are in the coordinates of the model.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from threading import RLock
from typing import Any, get_args

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path, read_json
from semfield_ns.rendering.palette import object_color
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Prompt, Stroke

FORMAT = "semfield-session"
VERSION = 1
MAX_OBJECTS = 255
Color = tuple[int, int, int]

# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddObject:
    """A new object with a number of its own."""

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
    """An object and its prompts go."""

    object: int


@dataclass(frozen=True)
class AddPrompt:
    """A stroke, box or text for an object, with a number of its own."""

    object: int
    id: int
    prompt: Prompt


@dataclass(frozen=True)
class ErasePrompt:
    """One prompt goes."""

    id: int


@dataclass(frozen=True)
class Clear:
    """All prompts of an object go, or with None those of all objects."""

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
            raise SemfieldError(f"An object is divided into 1 to 32 parts, not {self.count!r}.")


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
_ACTIONS = {kind.__name__: kind for kind in get_args(Action)}
_PROMPTS = {kind.__name__: kind for kind in get_args(Prompt)}

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
        raise SemfieldError(f"There is no object {number} (any more).")

    @property
    def prompts(self) -> tuple[tuple[int, int, Prompt], ...]:
        """(object, number, prompt) of all objects."""
        return tuple((entry.id, number, prompt) for entry in self.objects for number, prompt in entry.prompts)


def apply(state: SessionState, action: Change) -> SessionState:
    """The state after one more action.

    Raises:
        SemfieldError: the action speaks of what is not there.
    """
    if isinstance(action, AddObject):
        if any(entry.id == action.object for entry in state.objects):
            raise SemfieldError(f"There is an object {action.object} already.")
        if len(state.objects) >= MAX_OBJECTS:
            raise SemfieldError(f"A session has at most {MAX_OBJECTS} objects.")
        return SessionState((*state.objects, ObjectState(action.object, action.name, action.color)))
    if isinstance(action, ErasePrompt):
        if not any(number == action.id for _, number, _ in state.prompts):
            raise SemfieldError(f"There is no stroke {action.id} (any more).")
        return _each(state, lambda o: replace(o, prompts=tuple(p for p in o.prompts if p[0] != action.id)))
    if isinstance(action, Clear) and action.object is None:
        return _each(state, lambda o: replace(o, prompts=()))
    entry = state.object(action.object)  # type: ignore[arg-type]
    if isinstance(action, DeleteObject):
        return SessionState(tuple(other for other in state.objects if other is not entry))
    if isinstance(action, AddPrompt):
        if any(number == action.id for _, number, _ in state.prompts):
            raise SemfieldError(f"There is a stroke {action.id} already.")
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


def replay(log: Sequence[Action]) -> SessionState:
    """The state that a log amounts to.

    Raises:
        SemfieldError: an action speaks of what is not there; the message counts actions from 1.
    """
    return _replayed(log).state


class _History:
    """The states so far, and those that were taken back."""

    def __init__(self) -> None:
        self.done: list[tuple[Change | None, SessionState]] = [(None, SessionState())]
        self.undone: list[tuple[Change | None, SessionState]] = []

    @property
    def state(self) -> SessionState:
        return self.done[-1][1]

    def do(self, action: Action) -> None:
        if isinstance(action, Undo):
            if len(self.done) > 1:
                self.undone.append(self.done.pop())
        elif isinstance(action, Redo):
            if self.undone:
                self.done.append(self.undone.pop())
        else:
            self.done.append((action, apply(self.state, action)))
            self.undone.clear()


def _replayed(log: Sequence[Action]) -> _History:
    history = _History()
    for number, action in enumerate(log, start=1):
        try:
            history.do(action)
        except SemfieldError as error:
            raise SemfieldError(f"Action {number} ({type(action).__name__}): {error}") from error
    return history


# --- the session -----------------------------------------------------------------------------------------------------


class Session:
    """A log of actions and the state that it amounts to. Any number of threads may use it: every call is atomic.

    A slider that is dragged makes one action: a setting that directly follows a setting of the same kind for the same
    object replaces it.

    Args:
        log: actions so far.

    Raises:
        SemfieldError: they do not fit together.
    """

    def __init__(self, log: Sequence[Action] = ()) -> None:
        self._lock = RLock()
        self._listeners: list[Callable[[], None]] = []
        self._load(log)

    def _load(self, log: Sequence[Action]) -> None:
        self._history = _replayed(log)
        self._log = list(log)
        self._next_object = 1 + max((a.object for a in log if isinstance(a, AddObject)), default=0)
        self._next_prompt = 1 + max((a.id for a in log if isinstance(a, AddPrompt)), default=0)

    @property
    def log(self) -> tuple[Action, ...]:
        """All actions, oldest first."""
        with self._lock:
            return tuple(self._log)

    @property
    def state(self) -> SessionState:
        """What they amount to. The same object until the next action."""
        with self._lock:
            return self._history.state

    @property
    def can_undo(self) -> bool:
        """Whether there is something to take back."""
        with self._lock:
            return len(self._history.done) > 1

    @property
    def can_redo(self) -> bool:
        """Whether there is something to do again."""
        with self._lock:
            return bool(self._history.undone)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every change, in the thread that changed it, without a lock held."""
        with self._lock:
            self._listeners.append(listener)

    def do(self, action: Action) -> SessionState:
        """Appends an action; one that changes nothing (an undo of nothing) is left out.

        Raises:
            SemfieldError: it speaks of what is not there; the session stays as it was.
        """
        with self._lock:
            before = self._history.state
            if isinstance(action, SetThreshold | SetGrowth) and self._continues(action):
                after = apply(before, action)
                self._history.done[-1], self._log[-1] = (action, after), action
            else:
                self._history.do(action)
                after = self._history.state
                if after is before:
                    return after
                self._log.append(action)
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
        return after

    def _continues(self, action: SetThreshold | SetGrowth) -> bool:
        last = self._log[-1] if self._log else None
        return isinstance(last, type(action)) and last.object == action.object

    # What tools call. Numbers are never used twice, also after an undo.

    def add_object(self, name: str | None = None, color: Color | None = None) -> int:
        """A new object; returns its number. Without a name and a colour it gets some of its own."""
        with self._lock:
            number = self._next_object
            self._next_object += 1
        if color is None:
            color = object_color(number)
        self.do(AddObject(number, name or f"object {number}", color))
        return number

    def add_prompt(self, object: int, prompt: Prompt) -> int:
        """A prompt for an object; returns the prompt's number."""
        with self._lock:
            number = self._next_prompt
            self._next_prompt += 1
        self.do(AddPrompt(object, number, prompt))
        return number

    def add_stroke(
        self,
        object: int,
        camera: ViewCamera,
        points: Sequence[tuple[float, float]],
        positive: bool = True,
        width: float = 3.0,
    ) -> int:
        """A stroke in a view, in pixels of its camera; returns the stroke's number."""
        return self.add_prompt(object, Stroke(camera, tuple(points), positive, width))

    def undo(self) -> SessionState:
        """Takes back the last action."""
        return self.do(Undo())

    def redo(self) -> SessionState:
        """Does it again."""
        return self.do(Redo())

    def save(self, path: Path) -> None:
        """Writes the log as JSON, whole or not at all."""
        text = session_json(self.log)
        with atomic_path(Path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def load(self, path: Path) -> None:
        """Replaces the log by that of a file; the session stays as it was if the file cannot be used."""
        log = read_session(path)
        with self._lock:
            self._load(log)
            listeners = list(self._listeners)
        for listener in listeners:
            listener()


# --- files -----------------------------------------------------------------------------------------------------------


def session_json(log: Sequence[Action]) -> str:
    """The text of a session file."""
    actions = [_encode(action) for action in log]
    lines = ",\n".join(f"  {json.dumps(action, allow_nan=False)}" for action in actions)
    return f'{{"format": "{FORMAT}", "version": {VERSION}, "actions": [\n{lines}\n]}}\n'


def read_session(path: Path) -> tuple[Action, ...]:
    """The log of a session file.

    Raises:
        SemfieldError: it is not there, or is no session; the message counts actions from 1.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("actions"), list):
        raise SemfieldError(f"{path} is not a session file: save one in the viewer.")
    if content.get("version") != VERSION:
        raise SemfieldError(
            f"{path} is a session of version {content.get('version')!r}; this program reads version {VERSION}."
        )
    log = tuple(_decode(entry, f"{path}, action {number}") for number, entry in enumerate(content["actions"], start=1))
    try:
        replay(log)
    except SemfieldError as error:
        raise SemfieldError(f"{path}: {error}") from error
    return log


def _encode(action: Action) -> dict[str, Any]:
    encoded = {"action": type(action).__name__, **asdict(action)}
    if isinstance(action, AddPrompt):
        encoded["prompt"] = {"kind": type(action.prompt).__name__, **encoded["prompt"]}
    return encoded


def _decode(entry: Any, where: str) -> Action:
    try:
        values = dict(entry)
        if "prompt" in values:
            prompt = dict(values["prompt"])
            if "camera" in prompt:
                prompt["camera"] = _build(ViewCamera, prompt["camera"])
            values["prompt"] = _build(_PROMPTS[prompt.pop("kind")], prompt)
        return _build(_ACTIONS[values.pop("action")], values)
    except SemfieldError as error:
        raise SemfieldError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise SemfieldError(f"{where}: it cannot be understood ({type(error).__name__}: {error}).") from error


def _build(kind: Any, values: Any) -> Any:
    known = {entry.name: entry for entry in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise SemfieldError(f"{kind.__name__} has no field {name!r}")
        if known[name].type is int and not (isinstance(value, int) and not isinstance(value, bool)):
            raise SemfieldError(f"{name} of {kind.__name__} is a whole number, not {value!r}")
    return kind(**{name: _tuple(value) for name, value in values.items()})


def _tuple(value: Any) -> Any:
    return tuple(_tuple(entry) for entry in value) if isinstance(value, list) else value


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
