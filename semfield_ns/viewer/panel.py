"""Segmenting by strokes in Nerfstudio's viewer: buttons, and what the next click will do."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from jaxtyping import Float
from nerfstudio.viewer.viewer_elements import ViewerNumber, ViewerText
from torch import nn

from semfield_ns.errors import SemfieldError
from semfield_ns.scene_model import SceneModel
from semfield_ns.segmentation.prompts import Box, Prompt, Stroke, TextQuery
from semfield_ns.sessions.actions import (
    Clear,
    DeleteObject,
    ErasePrompt,
    ObjectState,
    RecolorObject,
    RenameObject,
    SetGrowth,
    SetParts,
    SetThreshold,
)
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.files import results_folder
from semfield_ns.viewer.legend import Legend, plain
from semfield_ns.viewer.link import (
    Client,
    ClientButton,
    ClientColor,
    ClientDropdown,
    ClientSlider,
    ScreenPoint,
    ViewerLink,
)
from semfield_ns.viewer.live import LiveSegmentation
from semfield_ns.viewer.tools import PolyLine, box_between, pixel, stroke_at

OVERLAY = "segmentation_overlay"
OF_OBJECTS = (OVERLAY, "segmentation", "similarity")
"""outputs in which a stroke is seen to do something"""
NO_OBJECT = "no object yet"
IDLE = "Choose a tool. The camera can be moved."
POSITIVE, NEGATIVE = (255, 255, 255), (0, 0, 0)
"""colours of strokes: on masks, the colours of objects would not be seen"""
MARK_SIZE = 0.01
"""diameter of a dot, as a share of its depth"""


Export = Callable[[Session, Path, str, ViewerLink], str]
"""Writes a session's results into a folder in a format, and returns what to tell."""


@dataclass
class _Drawing:
    """What one browser's pointer is doing."""

    object: int
    positive: bool
    line: PolyLine | None = None
    marks: list[Any] = field(default_factory=list)


class ObjectPanel(nn.Module):
    """Name, colour and end of the chosen object."""

    def __init__(self, panel: "_Actions") -> None:
        super().__init__()
        self.a_name = ViewerText("Name", "", hint="Of the chosen object")
        self.b_color = ClientColor("Colour", (128, 128, 128), lambda _: None, hint="Of the chosen object")
        self.c_apply = ClientButton("Apply name and colour", lambda _: panel.apply_name())
        self.d_parts = ViewerNumber("Parts", 3, hint="How many parts of similar features; 1 is the whole object")
        self.e_divide = ClientButton("Divide into parts", lambda _: panel.divide())
        self.f_words = ViewerText("Words", "", hint="What the object is, for runs with a CLIP teacher")
        self.g_find = ClientButton("Find words", lambda _: panel.find_words())
        self.h_delete = ClientButton("Delete object", lambda _: panel.delete_object())


class ResultsPanel(nn.Module):
    """Sessions and results as files."""

    def __init__(self, panel: "_Actions") -> None:
        super().__init__()
        self.a_name = ViewerText(
            "Name", "segmentation", hint="Of the folder for all files, in the folder viewer of the run"
        )
        self.b_save = ClientButton("Save session", lambda _: panel.save())
        self.c_load = ClientButton("Load session", lambda _: panel.load())
        self.d_masks = ClientButton("Export masks", lambda _: panel.export("masks"))
        self.e_video = ClientButton("Export video", lambda _: panel.export("video"))
        self.f_coco = ClientButton("Export COCO", lambda _: panel.export("coco"))
        self.g_points = ClientButton("Export point cloud", lambda _: panel.export("points"))


class SegmentationPanel(nn.Module):
    """Controls that segment by strokes; both methods of this package have them.

    Nerfstudio finds the elements among the attributes, and shows them in alphabetical order, hence the letters.
    Nothing in here has parameters. Events of browsers come in any thread: the panel's own lock guards the panel's own
    state and is never held while the model is used.

    Args:
        model: whose views are segmented.
        session: the actions so far.
        export: called in a thread of its own; holds the link's lock whenever it uses the model.
    """

    def __init__(self, model: SceneModel, session: Session, export: Export) -> None:
        super().__init__()
        actions = self._actions = _Actions(self, model, session, export)
        self.link = actions.link
        self.a_help = Legend("Help", plain(IDLE))
        self.b_object = ClientDropdown("Object", [NO_OBJECT], actions.choose, hint="What the next strokes mark")
        self.c_add = ClientButton("New object", lambda _: actions.add_object())
        self.d_positive = ClientButton("Stroke on object", lambda client: actions.begin(client, True))
        self.e_negative = ClientButton("Stroke on background", lambda client: actions.begin(client, False))
        self.f_box = ClientButton("Rectangle around object", lambda client: actions.begin_box(client))
        self.g_erase = ClientButton("Eraser", lambda client: actions.begin_erasing(client))
        self.h_end = ClientButton("End stroke", lambda client: actions.end(client))
        self.i_undo = ClientButton("Undo", lambda _: actions.undo())
        self.j_redo = ClientButton("Redo", lambda _: actions.redo())
        self.k_clear = ClientButton("Clear strokes", lambda _: actions.clear())
        self.l_threshold = ClientSlider("Threshold", 0.5, actions.set_threshold, hint="Higher: smaller masks")
        self.m_growth = ClientSlider("Growth", 0.5, actions.set_growth, hint="How far masks spread to similar pixels")
        self.object = ObjectPanel(actions)
        self.results = ResultsPanel(actions)


class _Actions:
    """What the controls do."""

    def __init__(
        self,
        panel: SegmentationPanel,
        model: SceneModel,
        session: Session,
        export: Export,
    ) -> None:
        self._panel: Callable[[], SegmentationPanel] = lambda: panel
        self.session = session
        self.link = ViewerLink(self._begin, self._forget_client)
        self.live = LiveSegmentation(
            model, session, self.link, lambda: self._chosen, self._tell_of_picture, self._draw_strokes
        )
        self._export = export
        self._lock = RLock()
        self._chosen: int | None = None
        self._drawings: dict[int, _Drawing] = {}
        self._lines: dict[int, tuple[Prompt, Float[np.ndarray, "N 3"], list[Any]]] = {}
        self._said, self._of_picture = IDLE, ""
        self._busy = False

    def _begin(self) -> None:
        self.link.render_with(self.live.outputs)
        self.session.on_change(self._changed)
        self._changed()

    # ------------------------------------------------------------------------------------------------ what is said

    def _tell(self, sentence: str) -> None:
        with self._lock:
            self._said = sentence
        self._show_help()

    def _tell_of_picture(self, sentence: str) -> None:
        with self._lock:
            if sentence == self._of_picture:
                return
            self._of_picture = sentence
        self._show_help()

    def _show_help(self) -> None:
        text = f"**{plain(self._said)}**"
        if self._of_picture:
            text += f"\n\n{plain(self._of_picture)}"
        self._panel().a_help.change(text)

    def _try(self, action: Callable[[], Any], said: str = IDLE) -> None:
        try:
            action()
        except (SemfieldError, OSError) as error:
            self._tell(str(error))
        else:
            self._tell(said)

    # ---------------------------------------------------------------------------------------------------- objects

    def _object(self) -> ObjectState:
        """The chosen object; a new one where there is none."""
        with self._lock:
            for entry in self.session.state.objects:
                if entry.id == self._chosen:
                    return entry
            self._chosen = self.session.add_object()
            return self.session.state.object(self._chosen)

    def add_object(self) -> None:
        """A new object, which the next strokes are of."""

        def add() -> None:
            with self._lock:
                self._chosen = self.session.add_object()
            self._changed()

        self._try(add, "New object. Choose a tool and mark it.")

    def choose(self, label: str) -> None:
        """The object that the next strokes are of."""
        with self._lock:
            for entry in self.session.state.objects:
                if object_label(entry) == label:
                    self._chosen = entry.id
        self._changed()

    def apply_name(self) -> None:
        """Other name and colour of the chosen object."""
        settings = self._panel().object

        def apply() -> None:
            entry = self._object()
            name, color = settings.a_name.value.strip(), tuple(settings.b_color.value)
            if name != entry.name:
                self.session.do(RenameObject(entry.id, name))
            if color != entry.color:
                self.session.do(RecolorObject(entry.id, color))  # type: ignore[arg-type]

        self._try(apply)

    def delete_object(self) -> None:
        """The chosen object goes."""
        chosen = self._chosen
        if chosen is not None:
            self._try(lambda: self.session.do(DeleteObject(chosen)))

    def divide(self) -> None:
        """Parts of the chosen object."""
        count = int(self._panel().object.d_parts.value)
        self._try(lambda: self.session.do(SetParts(self._object().id, count)))

    def find_words(self) -> None:
        """Words for the chosen object."""

        def find() -> None:
            query = TextQuery(self._panel().object.f_words.value)
            # Known to work before it is in the log. Without the lock: training does not wait for a teacher to load.
            self.live.views.text_features([query.text])
            self.session.add_prompt(self._object().id, query)
            self._show_overlay()

        self._try(find)

    def set_threshold(self, value: float) -> None:
        """Of the chosen object."""
        self._try(lambda: self.session.do(SetThreshold(self._object().id, value)))

    def set_growth(self, value: float) -> None:
        """Of the chosen object."""
        self._try(lambda: self.session.do(SetGrowth(self._object().id, value)))

    # ---------------------------------------------------------------------------------------------------- strokes

    def begin(self, client: Client, positive: bool) -> None:
        """The next clicks of a browser are a stroke."""
        if client is None:
            return
        self.end(client)
        with self._lock:
            self._drawings[client.client_id] = _Drawing(self._object().id, positive)
            self.link.take_pointer(client, "click", lambda points: self.clicked(client, points[0]))
        self._tell(f"Click on the {'object' if positive else 'background'}: the first point of a stroke.")
        self._show_overlay()

    def clicked(self, client: Client, at: ScreenPoint) -> None:
        """One click of a stroke."""
        try:
            camera = self.link.camera(client)
        except SemfieldError as error:
            self._tell(str(error))
            return
        with self._lock:
            drawing = self._drawings.get(client.client_id)
            if drawing is None:
                return
            if drawing.line is not None and drawing.line.camera != camera:
                # The view was changed in the middle of a stroke: what comes is another one.
                self._commit(drawing)
            line, done = (drawing.line or PolyLine(camera)).clicked(pixel(camera, at), time.monotonic())
            drawing.line = line
            if not done:
                self._sketch(client, drawing)
                what = "object" if drawing.positive else "background"
                self._tell(
                    f"Click on the {what}: next point of the stroke ({len(line.points)} so far). "
                    "Double-click, or press End stroke, to end it."
                )
        if done:
            self.end(client)

    def _sketch(self, client: Client, drawing: _Drawing) -> None:
        assert drawing.line is not None, "sketched after a click"
        shares = [(x / drawing.line.camera.width, y / drawing.line.camera.height) for x, y in drawing.line.points]
        _remove(drawing.marks)
        drawing.marks = self.link.sketch(client, "/stroke", shares, POSITIVE if drawing.positive else NEGATIVE)

    def _commit(self, drawing: _Drawing) -> None:
        line, drawing.line = drawing.line, None
        _remove(drawing.marks)
        drawing.marks = []
        if line is not None and line.points:
            self._try(lambda: self.session.add_prompt(drawing.object, line.stroke(drawing.positive)))

    def end(self, client: Client) -> None:
        """Ends the stroke of a browser, if there is one, and gives its pointer back to the camera."""
        if client is None:
            return
        with self._lock:
            drawing = self._drawings.pop(client.client_id, None)
            # With the lock: otherwise a tool that is taken right now, by another message, might lose the pointer again.
            self.link.give_pointer_back(client)
        self._tell(IDLE)
        if drawing is not None:
            self._commit(drawing)

    def begin_box(self, client: Client) -> None:
        """The next rectangle of a browser is around the object."""
        if client is None:
            return
        self.end(client)
        number = self._object().id
        self.link.take_pointer(client, "rect-select", lambda corners: self.selected(client, number, corners))
        self._tell("Press the mouse button, drag a rectangle around the object, and release.")
        self._show_overlay()

    def selected(self, client: Client, number: int, corners: tuple[ScreenPoint, ...]) -> None:
        """A rectangle was drawn."""

        def add() -> None:
            camera = self.link.camera(client)
            box = box_between(camera, pixel(camera, corners[0]), pixel(camera, corners[1]), positive=True)
            if box is None:
                raise SemfieldError("That rectangle was too small: press, drag, and release.")
            self.session.add_prompt(number, box)

        self.link.give_pointer_back(client)
        self._try(add)

    def begin_erasing(self, client: Client) -> None:
        """The next click of a browser takes a stroke away."""
        if client is None:
            return
        self.end(client)
        self.link.take_pointer(client, "click", lambda points: self.erase(client, points[0]))
        self._tell("Click on the stroke to erase.")

    def erase(self, client: Client, at: ScreenPoint) -> None:
        """Takes away the stroke that was clicked on; otherwise the next click may."""
        camera = self.link.camera(client)
        with self._lock:
            lines = {number: line for number, (_, line, _) in self._lines.items()}
        number = stroke_at(lines, camera, pixel(camera, at))
        if number is None:
            self._tell("There is no stroke here. Click on the stroke to erase, or press End stroke.")
            return
        self.link.give_pointer_back(client)
        self._try(lambda: self.session.do(ErasePrompt(number)))

    def undo(self) -> None:
        """Takes the last action back."""
        self._try(self.session.undo)

    def redo(self) -> None:
        """Does it again."""
        self._try(self.session.redo)

    def clear(self) -> None:
        """All strokes of the chosen object go."""
        chosen = self._chosen
        if chosen is not None:
            self._try(lambda: self.session.do(Clear(chosen)))

    # ------------------------------------------------------------------------------------------------------ files

    def _folder(self) -> Path:
        return results_folder(self.link.run_folder, self._panel().results.a_name.value)

    def save(self) -> None:
        """Writes the session."""
        try:
            path = self._folder() / "session.json"
            path.parent.mkdir(exist_ok=True)
            self.session.save(path)
        except (SemfieldError, OSError) as error:
            self._tell(str(error))
        else:
            self._tell(f"Saved to {path}")

    def load(self) -> None:
        """Reads a session."""
        try:
            path = self._folder() / "session.json"
            self.session.load(path)
        except (SemfieldError, OSError) as error:
            self._tell(str(error))
        else:
            self._tell(f"Loaded {path}")
        self._show_overlay()

    def export(self, what: str) -> None:
        """Writes results for all images of the scene."""
        with self._lock:
            if self._busy:
                return
            self._busy = True
        try:
            folder = self._folder()
            self._tell(f"Writing to {folder} ...")
            said = self._export(Session(self.session.log), folder, what, self.link)
        except (SemfieldError, OSError) as error:
            said = str(error)
        finally:
            with self._lock:
                self._busy = False
        self._tell(said)

    # ------------------------------------------------------------------------------------------- what has changed

    def _changed(self) -> None:
        """Shows the session as it is now."""
        panel = self._panel()
        with self._lock:
            # With the lock: a thread that was late would otherwise show what was before.
            state = self.session.state
            numbers = [entry.id for entry in state.objects]
            if self._chosen not in numbers:
                self._chosen = numbers[-1] if numbers else None
            entry = None if self._chosen is None else state.object(self._chosen)
            set_options(panel.b_object, [object_label(other) for other in state.objects] or [NO_OBJECT])
            set_value(panel.b_object, NO_OBJECT if entry is None else object_label(entry))
            if entry is not None:
                set_value(panel.l_threshold, entry.threshold)
                set_value(panel.m_growth, entry.growth)
                set_value(panel.object.a_name, entry.name)
                set_value(panel.object.b_color, entry.color)
            # A session that is loaded has other prompts of the same numbers.
            prompts = {number: prompt for _, number, prompt in state.prompts}
            for number, (prompt, _, marks) in list(self._lines.items()):
                if prompts.get(number) != prompt:
                    _remove(marks)
                    del self._lines[number]
        self._render()

    def _render(self) -> None:
        if self.link.viewer is not None and self.link.viewer.ready:
            self.link.render(self.live.prepared(self.link.cameras()))

    def _show_overlay(self) -> None:
        self.link.show_output(OVERLAY, unless=OF_OBJECTS)

    def _draw_strokes(self) -> None:
        """Puts strokes that are not in the scene yet on the surface that their views show."""
        with self._lock:
            wanted = [
                (number, prompt)
                for _, number, prompt in self.session.state.prompts
                if number not in self._lines and isinstance(prompt, Stroke | Box)
            ]
            for number, prompt in wanted:
                line = self.live.lifted(prompt)
                if line is None:
                    continue
                size = MARK_SIZE * float(np.linalg.norm(line[0] - prompt.camera.centre))
                color = POSITIVE if prompt.positive else NEGATIVE
                self._lines[number] = prompt, line, self.link.draw(f"/strokes/{number}", line, color, size)

    def _forget_client(self, number: int) -> None:
        # Without the lock: viser calls this with a lock of its own, which is asked for when all browsers are rendered.
        self._drawings.pop(number, None)


def _remove(marks: list[Any]) -> None:
    for mark in marks:
        mark.remove()


def object_label(entry: ObjectState) -> str:
    """How an object is called in menus: names may occur twice, numbers do not."""
    return f"{entry.id}: {entry.name}"


def set_value(element: Any, value: Any) -> None:
    """Changes an element, if that is a change."""
    if element.value != value:
        element.value = value


def set_options(element: ClientDropdown, options: list[str]) -> None:
    """Changes a dropdown, if that is a change."""
    if list(element.options) != options:
        element.set_options(options)
