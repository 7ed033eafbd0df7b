"""Editing: what, and how. Each press adds one edit to a list; undo takes it away."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.compat.viser import forget_node
from semfield_ns.editing.editor import SceneEditor
from semfield_ns.editing.edits import Edit, Kind, edits_json
from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.palette import STANDING_OUT
from semfield_ns.viewer.elements import Button, Choice, Client, Color, Gui, Markdown, Number, Text, Vector, install
from semfield_ns.viewer.files import edits_file
from semfield_ns.viewer.layout import Layout
from semfield_ns.viewer.link import ScreenPoint
from semfield_ns.viewer.page import Cancelled, Page
from semfield_ns.viewer.text import plain
from semfield_ns.viewer.tools import LIFTED_SHARE

NOTHING = "nothing picked yet"
EVERYTHING = "all that moves"
MARK_COLOR = STANDING_OUT[0]
MARK_SHARE = 0.03
"""diameter of a dot on what was picked, as a share of its size"""
DONE = {"remove": "removed", "duplicate": "duplicated", "move": "moved", "mirror": "mirrored", "recolor": "recoloured"}
Edits = tuple[Edit, ...]


class EditPanel:
    """Controls that make edits.

    What pages ask for is shown at once; one thread brings the scene there. Whoever asks for something else meanwhile
    does not wait: what is being done is left for what is asked for now.

    Args:
        page: that has it.
        classes: names of the classes that may move.
        editor: gives the editor of the scene that is shown.
        edited: called, with the model held, when the scene has changed.
    """

    def __init__(
        self,
        page: Page,
        classes: Sequence[str],
        editor: Callable[[], SceneEditor],
        edited: Callable[[], None] = lambda: None,
    ) -> None:
        self.page, self._editor, self._edited = page, editor, edited
        self._classes = list(classes)
        self._lock = threading.RLock()
        self._states: list[Edits] = [editor().edits]
        self._undone: list[Edits] = []
        self._worker: threading.Thread | None = None
        self._to_say = ""
        self._marks: list[Any] = []
        page.on_time.append(self._unmark)
        self.target = Choice("Edit", [NOTHING, EVERYTHING, *self._classes], hint="A class, or one object")
        self.pick = Button("Pick in view", self._begin_to_pick, main=True)
        self.remove = self._button("Remove", "remove")
        self.recolor = self._button("Recolor", "recolor")
        self.move = self._button("Move", "move")
        self.duplicate = self._button("Duplicate", "duplicate")
        self.mirror = self._button("Mirror", "mirror")
        self.background = self._button("Recolor what stands still", "background")
        self.translation = Vector("Move by", (0.0, 0.0, 0.0), hint="In the scene's own units")
        self.axis = Vector("Axis", (0.0, 0.0, 1.0), hint="Of the rotation, or normal of the mirror")
        self.degrees = Number("Degrees", 0.0, (-360.0, 360.0), 5.0, hint="Of the rotation about the object's centre")
        self.scale = Number("Scale", 1.0, (0.01, 100.0), 0.1, hint="About the object's centre")
        self.color = Color("New colour", (220, 40, 40), hint="Of Recolor")
        self.list = Markdown(describe(self.edits))
        self.clear = Button("Clear edits", lambda _: self.ask_for(()))
        self.name = Text("Name", "edits.json", hint="Of the file, in the folder viewer of the run")
        self.save = Button("Save edits", self._save)

    def install(self, gui: Gui) -> None:
        """Adds them to the page."""
        install(gui, self.target, self.pick, self.remove, self.duplicate, self.move, self.mirror)
        with gui.add_folder("How to move and duplicate"):
            install(gui, self.translation, self.axis, self.degrees, self.scale)
        with gui.add_folder("New colour", expand_by_default=False):
            install(gui, self.color, self.recolor, self.background)
        with gui.add_folder("Edits so far"):
            install(gui, self.list, self.clear, self.name, self.save)

    def arrange(self, layout: Layout) -> None:
        """Buttons of one kind share a row."""
        layout.beside(self.remove, self.duplicate)
        layout.beside(self.move, self.mirror)
        layout.beside(self.clear, self.save)

    def _button(self, label: str, kind: Kind) -> Button:
        return Button(label, lambda client: self._add(client, kind))

    # ------------------------------------------------------------------------------------------ what is asked for

    @property
    def edits(self) -> Edits:
        """What pages have asked for; the scene may not be there yet."""
        return self._states[-1]

    @property
    def depth(self) -> int:
        """How many changes can be taken back."""
        return len(self._states) - 1

    @property
    def last_done(self) -> str | None:
        """What would be taken back, in words; None where there is nothing."""
        with self._lock:
            return change_in_words(self._states[-1]) if self.depth else None

    @property
    def last_undone(self) -> str | None:
        """What would be made again, in words; None where there is nothing."""
        with self._lock:
            return change_in_words(self._undone[-1]) if self._undone else None

    def undo(self) -> None:
        """Takes the last change of the list back."""
        with self._lock:
            said = f"Undone: {self.last_done}."
            if self.depth:
                self._undone.append(self._states.pop())
        self._changed(said)

    def redo(self) -> None:
        """Makes it again."""
        with self._lock:
            said = f"Redone: {self.last_undone}."
            if self._undone:
                self._states.append(self._undone.pop())
        self._changed(said)

    def ask_for(self, edits: Edits) -> None:
        """Other edits."""
        with self._lock:
            if edits == self.edits:
                return
            self._states.append(edits)
            self._undone.clear()
        self._changed(f"Done: {change_in_words(edits)}.")

    def _add(self, client: Client, kind: Kind) -> None:
        target = self.target.value
        if target == NOTHING and kind != "background":
            self.page.warn(client, "Choose what to edit first: pick it in the view, or choose it from the list.")
            return
        try:
            edit = Edit(
                kind,
                target="" if target in (EVERYTHING, NOTHING) else target,
                translation=self.translation.value,
                axis=self.axis.value,
                degrees=self.degrees.bounded,
                scale=self.scale.bounded,
                color=tuple(channel / 255 for channel in self.color.value),  # type: ignore[arg-type]
            )
        except SemfieldError as error:
            self.page.warn(client, str(error))
            return
        self.ask_for((*self.edits, edit))

    # --------------------------------------------------------------------------------------- how it comes about

    def _changed(self, said: str) -> None:
        """The list is another one; says something once the scene is as well."""
        self.page.history.note(self)
        self.list.change(describe(self.edits))
        self._unmark()
        self.page.tell("Working ...")
        with self._lock:
            self._to_say = said
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True)
                self._worker.start()

    def _work(self) -> None:
        """Until the scene is as it was asked for last."""
        while True:
            with self._lock:
                wanted, editor = self.edits, self._editor()
                if wanted == editor.edits:
                    self._worker = None
                    break
            try:
                if wanted and not editor.knows_objects:
                    self.look_for_objects(editor, lambda wanted=wanted: self.edits == wanted)  # type: ignore[misc]
                with self.page.hold():
                    objects = editor.change(wanted)
                    self._edited()
            except SemfieldError as error:
                # Of a change that is not wanted any more, nothing needs to be said.
                with self._lock:
                    if self.edits == wanted:
                        self._states[-1:] = [] if self.depth else [editor.edits]
                        self.list.change(describe(self.edits))
                        self.page.history.note(self)
                        self.page.warn(None, str(error))
                continue
            self._offer(objects)
            self.page.tell(self._to_say if wanted == self.edits else "Working ...")
        self.page.render(prepared=False)

    def look_for_objects(self, editor: SceneEditor, wanted: Callable[[], bool] = lambda: True) -> None:
        """Finds the moving objects; others use the model between two frames.

        Args:
            editor: of the scene.
            wanted: whether to go on.

        Raises:
            Cancelled: they are not wanted any more, or somebody pressed Cancel.
        """

        def watch(cameras: Any) -> Iterable[Any]:
            return self._guarded(self.page.watched("Looking for what moves", list(cameras)), wanted)

        if editor.model.training:
            raise SemfieldError("A scene is edited when its training is done: open the run with semfield view.")
        editor.tracks(watch)

    def _guarded(self, items: Iterable[Any], wanted: Callable[[], bool]) -> Iterator[Any]:
        for item in items:
            if not wanted():
                raise Cancelled("Something else is asked for.")
            with self.page.hold():
                yield item

    def restart(self) -> None:
        """Another scene is shown, with edits of its own."""
        with self._lock:
            self._states, self._undone = [self._editor().edits], []
        self.page.history.note(self)
        self._offer(())
        self.list.change(describe(self.edits))

    def _offer(self, objects: Sequence[str]) -> None:
        self.target.offer([NOTHING, EVERYTHING, *self._classes, *objects])

    # --------------------------------------------------------------------------------------------------- picking

    def _begin_to_pick(self, client: Client) -> None:
        if client is not None:
            self._unmark()
            self.page.take_pointer(client, "click", lambda points: self._picked(client, points[0]))
            self.page.tell("Click on the thing to edit, of a class that may move.")

    def _picked(self, client: Client, at: ScreenPoint) -> None:
        self.page.give_pointer_back(client)
        self.page.tell("Working ...")
        editor = self._editor()
        try:
            view = self.page.camera(client)
            if not editor.knows_objects:
                self.look_for_objects(editor)
            with self.page.hold():
                name = editor.object_at(view.cameras(), at)
                objects = editor.tracks().names
                surface = editor.surface_of(name, view.time or 0.0)
        except SemfieldError as error:
            self.page.warn(client, str(error))
            return
        self._offer(objects)
        self.target.value = name
        self._mark(view.centre + LIFTED_SHARE * (surface - view.centre))
        self.page.tell(f"Picked {name}. Now press Remove, Duplicate, Move, Mirror or Recolor.")

    def _mark(self, surface: Float[np.ndarray, "K 3"]) -> None:
        """Dots on what was picked."""
        size = MARK_SHARE * float(np.linalg.norm(np.ptp(surface, axis=0)))
        with self._lock:
            self._unmark()
            self._marks = self.page.draw("/picked", surface, MARK_COLOR, size, joined=False)

    def _unmark(self) -> None:
        """They go when the time or the scene is another one: what was picked is elsewhere."""
        with self._lock:
            for mark in self._marks:
                forget_node(mark)
            self._marks = []

    # ----------------------------------------------------------------------------------------------------- files

    def _save(self, client: Client) -> None:
        from semfield_ns.io import write_text

        try:
            path = edits_file(self.page.run_folder, self.name.value)
            write_text(path, edits_json(self.edits))
        except (OSError, SemfieldError) as error:
            self.page.warn(client, f"The edits could not be saved: {error}")
            return
        self.page.tell(f"Saved to {self.page.told(path)}")


def describe(edits: Sequence[Edit]) -> str:
    """A numbered list of edits as markdown."""
    if not edits:
        return "No edits."
    return "\n".join(f"{number}. {plain(_sentence(edit))}" for number, edit in enumerate(edits, start=1))


def change_in_words(edits: Edits) -> str:
    """What was done last, by the edits that there were then."""
    if not edits:
        return "edits cleared"
    last = edits[-1]
    if last.kind == "background":
        return "what stands still recoloured"
    return f"{last.target or EVERYTHING} {DONE[last.kind]}"


def _sentence(edit: Edit) -> str:
    what = edit.target or EVERYTHING
    if edit.box is not None:
        what += f" in the box {edit.box[0]} to {edit.box[1]}"
    if edit.kind == "background":
        return f"recolor what stands still {tuple(round(value, 2) for value in edit.color)}"
    if edit.kind == "recolor":
        return f"recolor {what} {tuple(round(value, 2) for value in edit.color)}"
    if edit.kind == "mirror":
        return f"mirror {what} along {edit.axis}"
    if edit.kind == "remove":
        return f"remove {what}"
    return f"{edit.kind} {what} by {edit.translation}, {edit.degrees:g} degrees, scale {edit.scale:g}"
