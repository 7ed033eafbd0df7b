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
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from threading import RLock
from typing import Any, get_args

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_json, write_text
from semfield_ns.rendering.palette import object_color
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Prompt, Stroke
from semfield_ns.sessions.actions import (
    Action,
    AddObject,
    AddPrompt,
    Color,
    Redo,
    SessionState,
    SetGrowth,
    SetThreshold,
    Undo,
    apply,
    replay,
    replayed,
)

FORMAT = "semfield-session"
VERSION = 1
_ACTIONS = {kind.__name__: kind for kind in get_args(Action)}
_PROMPTS = {kind.__name__: kind for kind in get_args(Prompt)}

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
        self._history = replayed(log)
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
    def depth(self) -> int:
        """How many actions can be taken back."""
        with self._lock:
            return len(self._history.done) - 1

    @property
    def last_done(self) -> str | None:
        """What would be taken back, in words; None where there is nothing."""
        with self._lock:
            return self._history.last_done

    @property
    def last_undone(self) -> str | None:
        """What would be done again, in words; None where there is nothing."""
        with self._lock:
            return self._history.last_undone

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every change, in the thread that changed it, without a lock held."""
        with self._lock:
            self._listeners.append(listener)

    def do(self, action: Action) -> SessionState:
        """Appends an action; one that changes nothing (an undo of nothing) is left out.

        Raises:
            SemfieldError: it refers to what does not exist; the session stays as it was.
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
        write_text(Path(path), text)

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
