"""Strokes on what was edited: they rest until it is where it was when they were drawn."""

from collections.abc import Callable

from semfield_ns.editing.editor import SceneEditor
from semfield_ns.editing.edits import Edit
from semfield_ns.segmentation.prompts import Prompt, Stroke
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.live import LiveSegmentation


class Resting:
    """Finds out which strokes lie on something that was moved or removed since.

    Args:
        session: with the strokes.
        live: that leaves them out.
        editor: gives the editor of the scene that is shown.
    """

    def __init__(self, session: Session, live: LiveSegmentation, editor: Callable[[], SceneEditor]) -> None:
        self._session, self._live, self._editor = session, live, editor
        self._edits: tuple[Edit, ...] = editor().edits
        self._drawn_under: dict[int, tuple[Prompt, tuple[Edit, ...]]] = {}
        session.on_change(self._note)

    def _note(self) -> None:
        """Strokes that are new belong to the scene as it is now."""
        for _, number, prompt in self._session.state.prompts:
            known = self._drawn_under.get(number)
            if known is None or known[0] != prompt:
                self._drawn_under[number] = prompt, self._edits

    def look(self) -> None:
        """The edits have changed. Called with the model held."""
        editor = self._editor()
        self._edits = editor.edits
        resting = set()
        for _, number, prompt in self._session.state.prompts:
            if not isinstance(prompt, Stroke) or not prompt.positive or number not in self._drawn_under:
                continue
            then = self._drawn_under[number][1]
            if editor.edited_at(prompt.camera.cameras(), prompt.points, then, self._edits):
                resting.add(number)
        self._live.resting = frozenset(resting)
