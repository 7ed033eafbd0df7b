"""Editing in Nerfstudio's viewer: what, how, and buttons. Each press adds one edit to the list; undo takes it away."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerDropdown,
    ViewerNumber,
    ViewerRGB,
    ViewerText,
    ViewerVec3,
)
from torch import nn

from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.panel import Legend, plain
from semfield_ns.semantic_flow.edits import Edit, Kind, edits_json

EVERYTHING = "all that moves"


class EditPanel(nn.Module):
    """Controls that make edits.

    Nerfstudio shows the elements in alphabetical order of the attributes' names, hence the letters.

    Args:
        classes: names of the classes that may move.
        edits: the edits so far.
        change: called with the whole list when it changes; returns the names of the scene's objects, and raises a
            SemfieldError, which the panel shows, where the list cannot be applied.
    """

    def __init__(
        self, classes: Sequence[str], edits: Sequence[Edit], change: Callable[[Sequence[Edit]], Sequence[str]]
    ) -> None:
        super().__init__()
        self._edits = tuple(edits)
        self._classes = list(classes)
        self._change = change
        options = [EVERYTHING, *self._classes]
        self.a_target = ViewerDropdown("Edit", EVERYTHING, options, hint="A class, or one object once they are known")
        self.b_translation = ViewerVec3("Translation", (0.0, 0.0, 0.0), step=0.05, hint="In the scene's own units")
        self.c_axis = ViewerVec3("Axis", (0.0, 0.0, 1.0), step=0.1, hint="Of the rotation, or normal of the mirror")
        self.d_degrees = ViewerNumber("Degrees", 0.0, hint="Of the rotation about the object's own centre")
        self.e_scale = ViewerNumber("Scale", 1.0, hint="About the object's own centre")
        self.f_color = ViewerRGB("New colour", (220, 40, 40), hint="Of recolor and background")
        self.g_remove = self._button("Remove", "remove")
        self.h_move = self._button("Move", "move")
        self.i_duplicate = self._button("Duplicate", "duplicate")
        self.j_mirror = self._button("Mirror", "mirror")
        self.k_recolor = self._button("Recolor", "recolor")
        self.l_background = self._button("Background", "background")
        self.m_undo = ViewerButton("Undo edit", lambda _: self._set(self._edits[:-1]))
        self.n_clear = ViewerButton("Clear edits", lambda _: self._set(()))
        self.o_file = ViewerText("Edits file", "edits.json", hint="For ns-render, see `semfield edit`")
        self.p_save = ViewerButton("Save edits", lambda _: self._save())
        self.q_list = Legend("Edits", describe(self._edits))

    def _button(self, label: str, kind: Kind) -> ViewerButton:
        return ViewerButton(label, lambda _: self._add(kind))

    def _add(self, kind: Kind) -> None:
        try:
            edit = Edit(
                kind,
                target="" if self.a_target.value == EVERYTHING else self.a_target.value,
                translation=self.b_translation.value,
                axis=self.c_axis.value,
                degrees=float(self.d_degrees.value),
                scale=float(self.e_scale.value),
                color=tuple(channel / 255 for channel in self.f_color.value),  # type: ignore[arg-type]
            )
        except SemfieldError as error:
            self._tell(str(error))
            return
        self._set((*self._edits, edit))

    def _set(self, edits: tuple[Edit, ...]) -> None:
        self._tell("Working ...")
        try:
            objects = self._change(edits)
        except SemfieldError as error:
            self._tell(str(error))
            return
        self._edits = edits
        if objects:
            self.a_target.set_options([EVERYTHING, *self._classes, *objects])
        self.q_list.change(describe(edits))

    def restart(self, edits: Sequence[Edit]) -> None:
        """Another scene is shown, with edits of its own."""
        self._edits = tuple(edits)
        self.a_target.set_options([EVERYTHING, *self._classes])
        self.q_list.change(describe(self._edits))

    def _save(self) -> None:
        from semfield_ns.io import atomic_path

        path = Path(self.o_file.value).expanduser()
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(edits_json(self._edits), encoding="utf-8")
        except (OSError, SemfieldError) as error:
            self._tell(f"The edits could not be saved to {path}: {error}")
            return
        self._tell(f"Saved to {path.resolve()}")

    def _tell(self, message: str) -> None:
        self.q_list.change(f"{describe(self._edits)}\n\n{plain(message)}")


def describe(edits: Sequence[Edit]) -> str:
    """A numbered list of edits as markdown."""
    if not edits:
        return "No edits."
    return "\n".join(f"{number}. {plain(_sentence(edit))}" for number, edit in enumerate(edits, start=1))


def _sentence(edit: Edit) -> str:
    what = edit.target or EVERYTHING
    if edit.kind == "background":
        return f"background {tuple(round(value, 2) for value in edit.color)}"
    if edit.kind == "recolor":
        return f"recolor {what} {tuple(round(value, 2) for value in edit.color)}"
    if edit.kind == "mirror":
        return f"mirror {what} along {edit.axis}"
    if edit.kind == "remove":
        return f"remove {what}"
    return f"{edit.kind} {what} by {edit.translation}, {edit.degrees:g} degrees, scale {edit.scale:g}"
