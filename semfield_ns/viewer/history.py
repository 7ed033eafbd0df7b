"""One undo for everything on the page."""

from threading import RLock
from typing import Protocol


class Undoable(Protocol):
    """Something that can take back what was done to it."""

    @property
    def depth(self) -> int:
        """How many things can be taken back."""

    @property
    def last_done(self) -> str | None:
        """What would be taken back, in words; None where there is nothing."""

    @property
    def last_undone(self) -> str | None:
        """What would be done again, in words; None where there is nothing."""

    def undo(self) -> object:
        """Takes the last thing back."""

    def redo(self) -> object:
        """Does it again."""


class History:
    """The order in which things were done to several undoable things."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._done: list[Undoable] = []
        self._undone: list[Undoable] = []

    def note(self, thing: Undoable) -> None:
        """Something was done to a thing, or taken back, by whomever."""
        with self._lock:
            known, depth = sum(other is thing for other in self._done), thing.depth
            if depth > known:
                self._done += [thing] * (depth - known)
                self._undone.clear()
            for _ in range(max(known - depth, 0)):
                last = max(i for i, other in enumerate(self._done) if other is thing)
                del self._done[last]

    def undo(self) -> str | None:
        """Takes back what was done last; says what it was, or None where there was nothing."""
        with self._lock:
            if not self._done:
                return None
            thing = self._done[-1]
            self._undone.append(thing)
        said = thing.last_done
        thing.undo()
        self.note(thing)
        return said

    def redo(self) -> str | None:
        """Does again what was taken back last; says what it is, or None where there was nothing."""
        with self._lock:
            while self._undone and self._undone[-1].last_undone is None:
                self._undone.pop()
            if not self._undone:
                return None
            *rest, thing = self._undone
        said = thing.last_undone
        thing.redo()
        self.note(thing)
        with self._lock:
            self._undone = rest
        return said
