"""Tools that draw in the picture: what each browser's pointer is doing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float

from semfield_ns.compat.viser import forget_node
from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Box, Prompt, Stroke, TextQuery
from semfield_ns.sessions.actions import ErasePrompt
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.elements import Client
from semfield_ns.viewer.link import ScreenPoint, ViewerLink
from semfield_ns.viewer.live import LiveSegmentation
from semfield_ns.viewer.tools import PolyLine, box_between, pixel, stroke_at

IDLE = "Navigating. Pick a tool to draw."
POSITIVE, NEGATIVE = (255, 255, 255), (0, 0, 0)
"""colours of strokes: on masks, the colours of objects would not be seen"""
MARK_SIZE = 0.01
"""diameter of a dot, as a share of its depth"""
Tool = Literal["object", "background", "box", "eraser"]


class Voice(Protocol):
    """How somebody is told something."""

    def tell(self, sentence: str) -> None:
        """In the status line."""

    def warn(self, client: Client, sentence: str) -> None:
        """As a notification, too."""


@dataclass
class _Drawing:
    """What one browser's pointer is doing."""

    object: int
    tool: Tool
    line: PolyLine | None = None
    marks: list[Any] = field(default_factory=list)


class DrawingTools:
    """Strokes, boxes and the eraser.

    Events of browsers come in any thread: the lock guards the tools' own state and is never held while the model is
    used.

    Args:
        link: to the viewer.
        session: that gets what is drawn.
        live: knows where in the world something was drawn.
        voice: tells.
        chosen: gives the number of the object that is drawn.
        held: called with a browser, and the tool that its pointer is now, or None.
    """

    def __init__(
        self,
        link: ViewerLink,
        session: Session,
        live: LiveSegmentation,
        voice: Voice,
        chosen: Callable[[], int],
        held: Callable[[Client, Tool | None], None],
    ) -> None:
        self.link, self.session, self.live = link, session, live
        self._voice, self._chosen, self._held = voice, chosen, held
        self._lock = RLock()
        self._drawings: dict[int, _Drawing] = {}
        self.lines: dict[int, tuple[Prompt, Float[np.ndarray, "N 3"], list[Any]]] = {}
        link.on_time.append(self.show_lines)

    # ----------------------------------------------------------------------------------------------------- tools

    def take(self, client: Client, tool: Tool) -> None:
        """A browser's pointer becomes a tool; the one that it was is put away."""
        if client is None:
            return
        self.finish(client)
        number = self._chosen()
        with self._lock:
            self._drawings[client.client_id] = _Drawing(number, tool)
            if tool == "box":
                self.link.take_pointer(client, "rect-select", lambda corners: self._selected(client, corners))
            elif tool == "eraser":
                self.link.take_pointer(client, "click", lambda points: self._erase(client, points[0]))
            else:
                self.link.take_pointer(client, "click", lambda points: self._clicked(client, points[0]))
        self._held(client, tool)
        self._voice.tell(
            {
                "object": "Drag over the object, or click on it: the first point of a stroke.",
                "background": "Drag over the background, or click on it: the first point of a stroke.",
                "box": "Press the mouse button, drag a rectangle around the object, and release.",
                "eraser": "Click on the stroke to erase.",
            }[tool]
        )

    def finish(self, client: Client) -> None:
        """Ends the stroke of a browser, if there is one, and gives its pointer back to the camera."""
        self._put_away(client, keep=True)

    def cancel(self, client: Client) -> None:
        """The same, and what was begun is not kept."""
        self._put_away(client, keep=False)

    def _put_away(self, client: Client, keep: bool) -> None:
        if client is None:
            return
        with self._lock:
            drawing = self._drawings.pop(client.client_id, None)
            # With the lock: otherwise a tool that is taken right now, by another message, might lose the pointer again.
            self.link.give_pointer_back(client)
        if drawing is None:
            return
        self._held(client, None)
        self._voice.tell(IDLE)
        if keep:
            self._commit(client, drawing)
        else:
            _remove(drawing.marks)

    def _drawing(self, client: Client) -> _Drawing | None:
        return self._drawings.get(client.client_id)

    def _camera(self, client: Client) -> ViewCamera | None:
        """What a browser looks through; it is told where strokes cannot be drawn in that."""
        try:
            return self.link.camera(client)
        except SemfieldError as error:
            self._voice.warn(client, str(error))
            return None

    # --------------------------------------------------------------------------------------------------- strokes

    def _stroking(self, client: Client, camera: ViewCamera) -> _Drawing | None:
        """What a browser draws if that is strokes, ready for points of this view. Called with the lock held."""
        drawing = self._drawing(client)
        if drawing is None or drawing.tool not in ("object", "background"):
            return None
        if drawing.line is not None and drawing.line.camera != camera:
            # The view was changed in the middle of a stroke: what comes is another one.
            self._commit(client, drawing)
        return drawing

    def _clicked(self, client: Client, at: ScreenPoint) -> None:
        """One click of a stroke."""
        camera = self._camera(client)
        if camera is None:
            return
        with self._lock:
            drawing = self._stroking(client, camera)
            if drawing is None:
                return
            line, done = (drawing.line or PolyLine(camera)).clicked(pixel(camera, at), time.monotonic())
            drawing.line = line
            if not done:
                self._sketch(client, drawing)
                self._voice.tell(
                    f"Click on the {drawing.tool}: next point of the stroke ({len(line.points)} so far). "
                    "A double-click or Enter ends it."
                )
        if done:
            self.finish(client)

    def dragged(self, client: Client, way: Sequence[ScreenPoint]) -> None:
        """A stroke that was dragged: with the release, it is done."""
        camera = self._camera(client)
        if camera is None:
            return
        with self._lock:
            drawing = self._stroking(client, camera)
            if drawing is None:
                return
            drawing.line = (drawing.line or PolyLine(camera)).dragged([pixel(camera, at) for at in way])
        self.finish(client)

    def _sketch(self, client: Client, drawing: _Drawing) -> None:
        assert drawing.line is not None, "sketched after a click"
        shares = [(x / drawing.line.camera.width, y / drawing.line.camera.height) for x, y in drawing.line.points]
        _remove(drawing.marks)
        color = POSITIVE if drawing.tool == "object" else NEGATIVE
        drawing.marks = self.link.sketch(client, "/stroke", shares, color)

    def _commit(self, client: Client, drawing: _Drawing) -> None:
        line, drawing.line = drawing.line, None
        _remove(drawing.marks)
        drawing.marks = []
        if line is not None and line.points:
            self._add(client, drawing.object, line.stroke(drawing.tool == "object"))

    def _add(self, client: Client, number: int, prompt: Stroke | Box) -> None:
        try:
            self.session.add_prompt(number, prompt)
        except SemfieldError as error:  # the object was deleted meanwhile
            self._voice.warn(client, str(error))
            return
        entry = self.session.state.object(number)
        if isinstance(prompt, Box):
            self._voice.tell(f"The box marks {entry.name}. For another thing: Undo, New object, and draw it again.")
        else:
            self._voice.tell(
                f"The mask of {entry.name} is shown, and dragging turns the camera again. If it is too large, press "
                "Stroke on background; if too small, Stroke on object."
            )

    # ------------------------------------------------------------------------------------------ boxes and eraser

    def _selected(self, client: Client, corners: tuple[ScreenPoint, ...]) -> None:
        """A rectangle was drawn."""
        with self._lock:
            drawing = self._drawing(client)
        if drawing is None or drawing.tool != "box":
            return
        camera = self._camera(client)
        if camera is None:
            return
        box = box_between(camera, pixel(camera, corners[0]), pixel(camera, corners[1]), positive=True)
        self.finish(client)
        if box is None:
            self._voice.warn(client, "That rectangle was too small: press, drag, and release.")
        else:
            self._add(client, drawing.object, box)

    def _erase(self, client: Client, at: ScreenPoint) -> None:
        """Takes away the stroke that was clicked on; otherwise the next click may."""
        camera = self._camera(client)
        if camera is None:
            return
        with self._lock:
            lines = {number: line for number, (prompt, line, _) in self.lines.items() if self._is_seen(prompt)}
        number = stroke_at(lines, camera, pixel(camera, at))
        if number is None:
            self._voice.tell("There is no stroke here. Click on the stroke to erase, or press Esc.")
            return
        self.finish(client)
        try:
            self.session.do(ErasePrompt(number))
        except SemfieldError as error:
            self._voice.warn(client, str(error))

    # ----------------------------------------------------------------------------------------- lines in the scene

    def place_lines(self) -> None:
        """Puts strokes that are not in the scene yet on the surface that their views show; with the train lock held."""
        with self._lock:
            wanted = [
                (number, prompt)
                for _, number, prompt in self.session.state.prompts
                if number not in self.lines and isinstance(prompt, Stroke | Box)
            ]
            for number, prompt in wanted:
                line = self.live.lifted(prompt)
                if line is None:
                    continue
                size = MARK_SIZE * float(np.linalg.norm(line[0] - prompt.camera.centre))
                color = POSITIVE if prompt.positive else NEGATIVE
                self.lines[number] = prompt, line, self.link.draw(f"/strokes/{number}", line, color, size)
        self.show_lines()

    def show_lines(self) -> None:
        """Strokes are seen at their own time only: what they were drawn on moves."""
        with self._lock:
            for prompt, _, marks in self.lines.values():
                seen = self._is_seen(prompt)
                for mark in marks:
                    if mark.visible != seen:
                        mark.visible = seen

    def _is_seen(self, prompt: Prompt) -> bool:
        return isinstance(prompt, TextQuery) or self.live.is_now(prompt.camera)

    def drop_lines(self) -> None:
        """Strokes that are not in the session any more leave the scene."""
        with self._lock:
            # A session that is loaded has other prompts of the same numbers.
            prompts = {number: prompt for _, number, prompt in self.session.state.prompts}
            for number, (prompt, _, marks) in list(self.lines.items()):
                if prompts.get(number) != prompt:
                    _remove(marks)
                    del self.lines[number]

    def forget(self, number: int) -> None:
        """A browser was closed, or loads its page anew: then it holds no tool."""
        with self._lock:
            drawing = self._drawings.pop(number, None)
        if drawing is not None:
            self._voice.tell(IDLE)


def _remove(marks: list[Any]) -> None:
    for mark in marks:
        forget_node(mark)
