"""Editing in Nerfstudio's viewer: what, how, and buttons. Each press adds one edit to the list; undo takes it away."""

from collections.abc import Callable, Sequence

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerDropdown,
    ViewerNumber,
    ViewerRGB,
    ViewerText,
    ViewerVec3,
)
from torch import nn

from semfield_ns.editing.editor import SceneEditor
from semfield_ns.editing.edits import Edit, Kind, edits_json
from semfield_ns.errors import SemfieldError
from semfield_ns.viewer.files import edits_file
from semfield_ns.viewer.legend import Legend, plain
from semfield_ns.viewer.link import ClientButton, ViewerLink

EVERYTHING = "all that moves"


class EditPanel(nn.Module):
    """Controls that make edits.

    Nerfstudio shows the elements in alphabetical order of the attributes' names, hence the letters. `b_pick` is
    added where there is a viewer that knows whose clicks are whose.

    Args:
        classes: names of the classes that may move.
        editor: gives the editor of the scene that is shown.
    """

    link: ViewerLink
    b_pick: ClientButton

    def __init__(self, classes: Sequence[str], editor: Callable[[], SceneEditor]) -> None:
        super().__init__()
        self._editor = editor
        self.link = ViewerLink(lambda: None, lambda _: None)
        self._edits = editor().edits
        self._classes = list(classes)
        options = [EVERYTHING, *self._classes]
        self.a_target = ViewerDropdown("Edit", EVERYTHING, options, hint="A class, or one object once they are known")
        self.c_translation = ViewerVec3("Translation", (0.0, 0.0, 0.0), step=0.05, hint="In the scene's own units")
        self.d_axis = ViewerVec3("Axis", (0.0, 0.0, 1.0), step=0.1, hint="Of the rotation, or normal of the mirror")
        self.e_degrees = ViewerNumber("Degrees", 0.0, hint="Of the rotation about the object's own centre")
        self.f_scale = ViewerNumber("Scale", 1.0, hint="About the object's own centre")
        self.g_color = ViewerRGB("New colour", (220, 40, 40), hint="Of recolor and background")
        self.h_remove = self._button("Remove", "remove")
        self.i_move = self._button("Move", "move")
        self.j_duplicate = self._button("Duplicate", "duplicate")
        self.k_mirror = self._button("Mirror", "mirror")
        self.l_recolor = self._button("Recolor", "recolor")
        self.m_background = self._button("Background", "background")
        self.n_undo = ViewerButton("Undo edit", lambda _: self._set(self._edits[:-1]))
        self.o_clear = ViewerButton("Clear edits", lambda _: self._set(()))
        self.p_file = ViewerText(
            "Edits file", "edits.json", hint="In the folder viewer of the run. For ns-render, see `semfield edit`"
        )
        self.q_save = ViewerButton("Save edits", lambda _: self._save())
        self.r_list = Legend("Edits", describe(self._edits))

    def pick(self, camera: Cameras, at: tuple[float, float]) -> tuple[str, Sequence[str]]:
        """The object that a camera shows at a place, and all objects by name."""
        editor = self._editor()
        return editor.object_at(camera, at), editor.change(self._edits)

    def choose(self, name: str, objects: Sequence[str]) -> None:
        """One of the objects is what the next edits are of."""
        self._offer(objects)
        self.a_target.value = name
        self.tell(f"Picked {name}.")

    def _offer(self, objects: Sequence[str]) -> None:
        self.a_target.set_options([EVERYTHING, *self._classes, *objects])

    def _button(self, label: str, kind: Kind) -> ViewerButton:
        return ViewerButton(label, lambda _: self._add(kind))

    def _add(self, kind: Kind) -> None:
        try:
            edit = Edit(
                kind,
                target="" if self.a_target.value == EVERYTHING else self.a_target.value,
                translation=self.c_translation.value,
                axis=self.d_axis.value,
                degrees=float(self.e_degrees.value),
                scale=float(self.f_scale.value),
                color=tuple(channel / 255 for channel in self.g_color.value),  # type: ignore[arg-type]
            )
        except SemfieldError as error:
            self.tell(str(error))
            return
        self._set((*self._edits, edit))

    def _set(self, edits: tuple[Edit, ...]) -> None:
        self.tell("Working ...")
        try:
            objects = self._editor().change(edits)
        except SemfieldError as error:
            self.tell(str(error))
            return
        self._edits = edits
        if objects:
            self._offer(objects)
        self.r_list.change(describe(edits))

    def restart(self) -> None:
        """Another scene is shown, with edits of its own."""
        self._edits = self._editor().edits
        self._offer(())
        self.r_list.change(describe(self._edits))

    def _save(self) -> None:
        from semfield_ns.io import write_text

        try:
            path = edits_file(self.link.run_folder, self.p_file.value)
            write_text(path, edits_json(self._edits))
        except (OSError, SemfieldError) as error:
            self.tell(f"The edits could not be saved: {error}")
            return
        self.tell(f"Saved to {path}")

    def tell(self, message: str) -> None:
        """Shows a sentence below the list of edits."""
        self.r_list.change(f"{describe(self._edits)}\n\n{plain(message)}")


def describe(edits: Sequence[Edit]) -> str:
    """A numbered list of edits as markdown."""
    if not edits:
        return "No edits."
    return "\n".join(f"{number}. {plain(_sentence(edit))}" for number, edit in enumerate(edits, start=1))


def _sentence(edit: Edit) -> str:
    what = edit.target or EVERYTHING
    if edit.box is not None:
        what += f" in the box {edit.box[0]} to {edit.box[1]}"
    if edit.kind == "background":
        return f"background {tuple(round(value, 2) for value in edit.color)}"
    if edit.kind == "recolor":
        return f"recolor {what} {tuple(round(value, 2) for value in edit.color)}"
    if edit.kind == "mirror":
        return f"mirror {what} along {edit.axis}"
    if edit.kind == "remove":
        return f"remove {what}"
    return f"{edit.kind} {what} by {edit.translation}, {edit.degrees:g} degrees, scale {edit.scale:g}"
