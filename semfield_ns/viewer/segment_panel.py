"""Segmenting by strokes: tools, objects, and their masks as files."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.palette import hex_color
from semfield_ns.scene_model import SceneModel
from semfield_ns.segmentation.prompts import TextQuery
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
from semfield_ns.sessions.masks import Which
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.drawing import IDLE, DrawingTools, Tool
from semfield_ns.viewer.elements import Button, Choice, Client, Color, Gui, Markdown, Number, Slider, Text, install
from semfield_ns.viewer.files import results_folder
from semfield_ns.viewer.layout import Layout
from semfield_ns.viewer.live import LiveSegmentation
from semfield_ns.viewer.page import Page
from semfield_ns.viewer.text import plain

OVERLAY = "segmentation_overlay"
OF_OBJECTS = (OVERLAY, "segmentation", "similarity")
"""outputs in which a stroke is seen to do something"""
NO_OBJECT = "no object yet"
EXPORTS = {"Masks": "masks", "Video": "video", "COCO": "coco", "Point cloud": "points"}
GAUSSIANS = {"Gaussians": "splats"}
"""of scenes whose Gaussians strokes select"""
ALL_CAMERAS = "All cameras"
VIEWS: dict[str, Which] = {"Training cameras": "train", ALL_CAMERAS: "all"}
MOST_PARTS = 20
ELSEWHERE = "Masks, videos and point clouds of your objects: tab *Segment*, folder *Results*. Below: the whole scene."

Export = Callable[[Session, Path, str, Which, Page], str]
"""Writes a session's results into a folder in a format, for some images, and returns what to tell."""


class SegmentPanel:
    """Controls that segment by strokes; all methods of this package have them.

    Args:
        page: that has it.
        model: whose views are segmented.
        session: the actions so far.
        export: called in a thread of its own; holds the page's lock whenever it uses the model.
        selects_gaussians: whether strokes select Gaussians, which can be written then.
    """

    def __init__(
        self, page: Page, model: SceneModel, session: Session, export: Export, selects_gaussians: bool = False
    ) -> None:
        self._formats = EXPORTS | (GAUSSIANS if selects_gaussians else {})
        self.page, self.session, self._export = page, session, export
        self._chosen: int | None = None
        self._lock = threading.RLock()
        self._busy = False
        self.live = LiveSegmentation(
            model, session, page, lambda: self._chosen, page.tell_of_picture, lambda: self.tools.place_lines()
        )
        self.tools = DrawingTools(page, session, self.live, page, lambda: self._object().id, self._held)
        self._build(model)
        page.shortcuts |= {"Enter": self.tools.finish, "Escape": self.tools.cancel}
        page.on_ready.append(self._begin)
        page.on_left.append(self.tools.forget)
        page.depth_of, page.drawn = self._depth, self.tools.dragged

    def _build(self, model: SceneModel) -> None:
        take = self.tools.take
        self.object = Choice("Object", [NO_OBJECT], self.choose, hint="What the next strokes mark")
        self.new = Button("New object", self.add_object)
        self.objects = Markdown("")
        self.positive = Button("Stroke on object", lambda client: take(client, "object"), main=True)
        self.negative = Button("Stroke on background", lambda client: take(client, "background"), main=True)
        self.box = Button("Box", lambda client: take(client, "box"), hint="A rectangle around the object")
        self.eraser = Button("Eraser", lambda client: take(client, "eraser"), hint="Takes a stroke away")
        self.finish = Button("End stroke", self.tools.finish, hint="Enter, or a double-click")
        self.clear = Button("Clear strokes", self._clear, hint="Of the chosen object")
        self.threshold = Slider(
            "Tightness", 0.5, (0.0, 1.0), 0.01, self.set_threshold, hint="Higher: the mask keeps closer to the strokes"
        )
        self.growth = Slider(
            "Spread", 0.5, (0.0, 1.0), 0.01, self.set_growth, hint="How far the mask goes on over similar pixels"
        )
        self.name = Text("Name", "", hint="Of the chosen object")
        self.color = Color("Colour", (128, 128, 128), hint="Of the chosen object")
        self.apply = Button("Apply name and colour", self.apply_name)
        self.delete = Button("Delete object", self.delete_object)
        self.parts = Number("Parts", 3, (1, MOST_PARTS), 1, hint="How many parts of similar features; 1 is the whole")
        self.divide = Button("Divide into parts", self._divide)
        self.words = Text("Words", "", hint="What the object is")
        self.find = Button("Find words", self.find_words)
        self._knows_words = model.knows_words
        self.file = Text("File name", "segmentation", hint="Of a folder in the folder viewer of the run")
        self.format = Choice("Format", list(self._formats), hint="Of the results")
        self.views = Choice("Views", list(VIEWS), hint="Training cameras: the video. All: held-out ones too")
        self.export_button = Button("Export results", self._export_pressed, hint="Masks of all objects", main=True)
        self.save = Button("Save session", self._save)
        self.load = Button("Load session", self._load)

    def install(self, gui: Gui) -> None:
        """Adds them to the page."""
        install(gui, self.object, self.objects, self.new)
        install(gui, self.positive, self.negative, self.box, self.eraser, self.finish, self.clear)
        install(gui, self.threshold, self.growth)
        with gui.add_folder("Results"):
            install(gui, self.file, self.format, self.views, self.export_button, self.save, self.load)
        with gui.add_folder("Chosen object", expand_by_default=False):
            install(gui, self.name, self.color, self.apply, self.delete, self.parts, self.divide)
            if self._knows_words:
                install(gui, self.words, self.find)

    def arrange(self, layout: Layout) -> None:
        """Buttons of one kind share a row."""
        layout.beside(self.box, self.eraser)
        layout.beside(self.finish, self.clear)
        layout.beside(self.save, self.load)
        layout.note("Export", ELSEWHERE)

    def _begin(self) -> None:
        self.page.render_with(self.live)
        self.session.on_change(self._changed)
        self._changed()

    def _held(self, client: Client, tool: Tool | None) -> None:
        button = {"object": self.positive, "background": self.negative, "box": self.box, "eraser": self.eraser}
        if self.page.layout is not None:
            self.page.layout.mark(client, None if tool is None else button[tool])
            self.page.layout.draws(client, tool in ("object", "background"))
        if tool is not None:
            self._show_overlay()

    def _depth(self, camera: Any) -> float | None:
        with self.page.hold():
            return self.live.depth(camera)

    def _try(self, client: Client | None, action: Callable[[], Any], said: str = IDLE) -> None:
        try:
            action()
        except (SemfieldError, OSError) as error:
            self.page.warn(client, str(error))
        else:
            self.page.tell(said)

    # ---------------------------------------------------------------------------------------------------- objects

    def _object(self) -> ObjectState:
        """The chosen object; a new one where there is none."""
        with self._lock:
            for entry in self.session.state.objects:
                if entry.id == self._chosen:
                    return entry
            self._chosen = self.session.add_object()
            return self.session.state.object(self._chosen)

    def add_object(self, client: Client) -> None:
        """A new object, which the next strokes are of."""

        def add() -> None:
            with self._lock:
                self._chosen = self.session.add_object()
            self._changed()

        self._try(client, add, "New object. Pick a tool and mark it.")

    def choose(self, client: Client, label: str) -> None:
        """The object that the next strokes are of."""
        with self._lock:
            for entry in self.session.state.objects:
                if object_label(entry) == label:
                    self._chosen = entry.id
        self._changed()

    def apply_name(self, client: Client) -> None:
        """Other name and colour of the chosen object."""

        def apply() -> None:
            entry = self._object()
            name, color = self.name.value.strip(), tuple(self.color.value)
            if name != entry.name:
                self.session.do(RenameObject(entry.id, name))
            if color != entry.color:
                self.session.do(RecolorObject(entry.id, color))  # type: ignore[arg-type]

        self._try(client, apply)

    def delete_object(self, client: Client) -> None:
        """The chosen object goes."""
        chosen = self._chosen
        if chosen is not None:
            self._try(client, lambda: self.session.do(DeleteObject(chosen)))

    def _clear(self, client: Client) -> None:
        """All strokes of the chosen object go."""
        chosen = self._chosen
        if chosen is not None:
            self._try(client, lambda: self.session.do(Clear(chosen)))

    def _divide(self, client: Client) -> None:
        """Parts of the chosen object."""
        self._try(client, lambda: self.session.do(SetParts(self._object().id, int(self.parts.bounded))))

    def find_words(self, client: Client) -> None:
        """Words for the chosen object."""

        def find() -> None:
            query = TextQuery(self.words.value)
            # Known to work before it is in the log. Without the lock: training does not wait for a teacher to load.
            self.live.views.text_features([query.text])
            self.session.add_prompt(self._object().id, query)
            self._show_overlay()

        self._try(client, find)

    def set_threshold(self, client: Client, value: float) -> None:
        """Of the chosen object."""
        self._try(client, lambda: self.session.do(SetThreshold(self._object().id, value)))

    def set_growth(self, client: Client, value: float) -> None:
        """Of the chosen object."""
        self._try(client, lambda: self.session.do(SetGrowth(self._object().id, value)))

    # ------------------------------------------------------------------------------------------------------ files

    def _folder(self) -> Path:
        return results_folder(self.page.run_folder, self.file.value)

    def _save(self, client: Client) -> None:
        """Writes the session."""
        try:
            path = self._folder() / "session.json"
            path.parent.mkdir(exist_ok=True)
            self.session.save(path)
        except (SemfieldError, OSError) as error:
            self.page.warn(client, str(error))
        else:
            self.page.tell(f"Saved to {self.page.told(path)}")

    def _load(self, client: Client) -> None:
        """Reads a session."""
        try:
            path = self._folder() / "session.json"
            self.session.load(path)
        except (SemfieldError, OSError) as error:
            self.page.warn(client, str(error))
        else:
            self.page.tell(f"Loaded {self.page.told(path)}")
        self._show_overlay()

    def _export_pressed(self, client: Client) -> None:
        """Writes results for the images of the scene."""
        with self._lock:
            if self._busy:
                self.page.warn(client, "Results are being saved: wait for that, or press Cancel.")
                return
            self._busy = True
        try:
            folder = self._folder()
            self.page.tell("Working ...")
            what, which = self._formats.get(self.format.value, "masks"), VIEWS.get(self.views.value, "train")
            said = self._export(self._session_as_seen(), folder, what, which, self.page)
            self.page.tell(said)
            self.page.notify(client, "Results", said, good=True)
        except (SemfieldError, OSError) as error:
            self.page.warn(client, str(error))
        finally:
            with self._lock:
                self._busy = False

    def _session_as_seen(self) -> Session:
        """A copy that nobody changes, without the strokes that rest."""
        return Session([*self.session.log, *(ErasePrompt(number) for number in sorted(self.live.resting))])

    # ------------------------------------------------------------------------------------------- what has changed

    def _changed(self) -> None:
        """Shows the session as it is now."""
        with self._lock:
            # With the lock: a thread that was late would otherwise show what was before.
            state = self.session.state
            numbers = [entry.id for entry in state.objects]
            if self._chosen not in numbers:
                self._chosen = numbers[-1] if numbers else None
            entry = None if self._chosen is None else state.object(self._chosen)
            self.object.offer([object_label(other) for other in state.objects] or [NO_OBJECT])
            self.object.value = NO_OBJECT if entry is None else object_label(entry)
            self.objects.change(object_list(state.objects, self._chosen))
            if entry is not None:
                self.threshold.value = entry.threshold
                self.growth.value = entry.growth
                self.name.value = entry.name
                self.color.value = entry.color
        self.tools.drop_lines()
        self.page.history.note(self.session)
        if self.page.viewer is not None and self.page.viewer.ready:
            self.page.render(self.live.prepared(self.page.cameras()))

    def _show_overlay(self) -> None:
        self.page.show_output(OVERLAY, unless=OF_OBJECTS)


def object_label(entry: ObjectState) -> str:
    """How an object is called in menus: names may occur twice, numbers do not."""
    return f"{entry.id}: {entry.name}"


def object_list(objects: Sequence[ObjectState], chosen: int | None) -> str:
    """The objects in their colours as markdown: viser draws a swatch beside a colour in backquotes."""

    def row(entry: ObjectState) -> str:
        name = plain(entry.name)
        return f"`{hex_color(entry.color)}` {f'**{name}**' if entry.id == chosen else name}"

    return "\n\n".join(row(entry) for entry in objects)
