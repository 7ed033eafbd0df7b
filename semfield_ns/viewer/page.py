"""The page: what is above all tabs, the tabs, and the panels in them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.export.views import Counted
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.viewer.drawing import IDLE
from semfield_ns.viewer.elements import Button, Client, Gui, Markdown, Progress, install
from semfield_ns.viewer.first_view import chosen
from semfield_ns.viewer.history import History
from semfield_ns.viewer.layout import Layout
from semfield_ns.viewer.link import EXPOSED, ScreenPoint, ViewerLink, has_camera, is_loopback, viser_units
from semfield_ns.viewer.outputs import OutputChoice
from semfield_ns.viewer.text import plain

LOOK_DISTANCE = 1.0
"""of what the camera turns around, in the model's units, as long as no depth is known"""

T = TypeVar("T")


class Panel(Protocol):
    """A group of elements of the page."""

    def install(self, gui: Gui) -> None:
        """Adds them to the page."""

    def arrange(self, layout: Layout) -> None:
        """Says what stands beside what, once everything is on the page."""


@dataclass(frozen=True)
class _Look:
    """A training camera that a browser was put to, and the shape of its page at that time, width over height."""

    view: ViewCamera
    aspect: float

    def differs(self, camera: Any) -> bool:
        """Whether the browser is still there, with another shape of its page."""
        there = np.allclose(camera.position, viser_units() * self.view.centre, atol=1e-4)
        return there and abs(camera.aspect - self.aspect) > 1e-3


class Page(ViewerLink):
    """The page of the viewer, and how it is told things.

    Args:
        views: training cameras by their number in the dataset, for the first view; none in tests.
    """

    def __init__(self, views: Mapping[int, ViewCamera] = MappingProxyType({})) -> None:
        super().__init__()
        self.history = History()
        self.status = Markdown(status(IDLE))
        self.outputs = OutputChoice(self)
        self.undo_button = Button("Undo", self.undo, hint="Strokes and edits: Ctrl+Z")
        self.redo_button = Button("Redo", self.redo, hint="Ctrl+Shift+Z")
        self.row = [self.undo_button, self.redo_button]
        """buttons below what is shown"""
        self.progress, self.cancel_button = Progress(), Button("Cancel", lambda _: self._cancel())
        self.cancel_button.show(False)
        self.home_button = Button("First view", self._return, hint="Back to where the page began")
        self.home_button.show(bool(views))
        self.layout: Layout | None = None
        self.depth_of: Callable[[ViewCamera], float | None] = lambda _: None
        """how far away what a camera sees is, in the model's units"""
        self.shortcuts: dict[str, Callable[[Client], None]] = {
            "Control+z": self.undo,
            "Control+Shift+z": self.redo,
            "Control+y": self.redo,
        }
        self.drawn: Callable[[Client, list[ScreenPoint]], None] = lambda *_: None
        """called with the way of a pointer that draws (`Layout.draws`)"""
        self._views = dict(views)
        self._above: list[Panel] = []
        self._tabs: dict[str, list[Panel]] = {}
        self._said, self._of_picture = IDLE, ""
        self._saying = threading.Lock()
        self._cancelled = threading.Event()
        self._trained = self._tamed = False
        self._looks: dict[int, _Look] = {}
        self._moment, self._owing, self._counting = 0, set[int](), threading.Lock()
        self.on_left.append(self._forget)

    def add(self, panel: Panel, tab: str | None = None) -> None:
        """A panel of a tab, below those that the tab has; above all tabs without one."""
        (self._above if tab is None else self._tabs.setdefault(tab, [])).append(panel)

    # ---------------------------------------------------------------------------------------------------- set-up

    def _setup(self, viewer: Any) -> None:
        layout = self.layout = Layout(viewer)
        gui = viewer.viser_server.gui
        with layout.top("Scene"):
            self.status.install(gui)
            if not is_loopback(viewer.config.websocket_host):
                gui.add_markdown(f"**{plain(EXPOSED.format(host=viewer.config.websocket_host))}**")
            self.outputs.install(gui)
            for panel in self._above:
                panel.install(gui)
            install(gui, *self.row, self.home_button, self.progress, self.cancel_button)
        for tab, panels in zip(layout.tabs(list(self._tabs)), self._tabs.values(), strict=True):
            with tab:
                for panel in panels:
                    panel.install(gui)
        layout.beside(*self.row)
        all_panels = [*self._above, *(panel for panels in self._tabs.values() for panel in panels)]
        for panel in all_panels:
            panel.arrange(layout)
        layout.replace_outputs()
        layout.calm()
        layout.guard_render_name()
        layout.guard_numbers()
        layout.shortcuts(self.shortcuts)
        layout.pencil(self.drawn)
        layout.receipts(self._painted)
        owned = (part for owner in (self, *all_panels) for part in vars(owner).values())
        layout.finish(part for part in owned if isinstance(part, Button))
        super()._setup(viewer)
        viewer.render_statemachines.offered = self._pictured
        viewer.render_statemachines.sent = self._sent
        self._trained = not self.training
        layout.show_training(self.training)
        viewer.viser_server.on_client_connect(self._opened)

    def _pictured(self, outputs: list[str]) -> None:
        """A page got a picture."""
        self.outputs.offer(outputs)
        assert self.layout is not None, "there are pictures once there is a viewer"
        if self._views and not self._tamed:
            self._tamed = self.layout.tame_cameras(self._clicked)
        if self._trained == self.training:
            self._trained = not self.training
            self.layout.show_training(self.training)

    # -------------------------------------------------------------------------------------- what pages have painted

    def show_time(self, time: float) -> None:
        """Moves the time slider, 0 to 1; every browser is rendered again."""
        if self.viewer is not None:
            pages = list(self.viser_server.get_clients().items())
            with self._counting:
                self._moment += 1
                self._owing = {number for number, client in pages if has_camera(client)}
        super().show_time(time)
        self._paid()

    def _sent(self, client: Client, time: float | None) -> None:
        """A picture is on its way: the page, which may be slow, says when it is painted."""
        if not self.pictured.is_set() and self.layout is not None and time in (None, self.time):
            self.layout.ask(client, self._receipt(client))

    def _receipt(self, client: Client) -> str:
        """Each page has texts of its own: what one page has written, the others have as well, and would not write."""
        return f"{self._moment} {client.client_id}"

    def _painted(self, client: Client, receipt: str) -> None:
        if receipt == self._receipt(client):
            self._paid(client.client_id)

    def _paid(self, number: int | None = None) -> None:
        with self._counting:
            self._owing -= {number}
            if not self._owing:
                self.pictured.set()

    # ------------------------------------------------------------------------------------------------ first view

    def _opened(self, client: Client) -> None:
        """A page was opened: once it says where it looks, it looks through a training camera."""
        if not self._views:
            return

        @client.camera.on_update
        def _(_: Any) -> None:
            looks = self._looks.get(client.client_id)
            with suppress(KeyError):  # it was closed meanwhile
                if looks is None:
                    self._begin(client)
                elif looks.differs(client.camera):
                    self._fit(client, looks.view)

    def _forget(self, number: int) -> None:
        """A browser was closed."""
        self._looks.pop(number, None)
        self._paid(number)

    def _begin(self, client: Client) -> None:
        self.look_through(client, self._first_view())
        wanted = chosen().time
        if wanted is not None:
            self.show_time(wanted)

    def _return(self, client: Client) -> None:
        """Looks from where the page began, at the time that is shown."""
        view = self._first_view()
        if client is not None:
            self.look_through(client, view if view.time is None else replace(view, time=self.time))

    def _first_view(self) -> ViewCamera:
        wanted = chosen().camera
        first = min(self._views.values(), key=lambda view: view.time or 0.0)
        return first if wanted is None else self._views.get(wanted, first)

    def _clicked(self, client: Client, number: int) -> None:
        """On a training camera."""
        if number in self._views:
            self.look_through(client, self._views[number])

    def look_through(self, client: Client, view: ViewCamera) -> None:
        """A browser sees the whole picture of a camera, at its time, and turns around what is in its middle."""
        pose = np.array(view.camera_to_world, dtype=np.float64).reshape(3, 4)
        position, forward, up = viser_units() * pose[:, 3], -pose[:, 2], pose[:, 1]
        with client.atomic():
            client.camera.up_direction = up
            client.camera.position = position
            client.camera.look_at = position + viser_units() * LOOK_DISTANCE * forward
            self._fit(client, view)
        if view.time is not None:
            self.show_time(view.time)
        depth = self.depth_of(view)
        if depth is not None:
            client.camera.look_at = position + viser_units() * depth * forward

    def _fit(self, client: Client, view: ViewCamera) -> None:
        """All of a camera's picture is seen, whatever the shape of the page: it changes as panels open."""
        half = np.array([view.width / view.fx, view.height / view.fy]) / 2
        aspect = client.camera.aspect
        self._looks[client.client_id] = _Look(view, aspect)
        client.camera.fov = 2 * float(np.arctan(max(half[1], half[0] / aspect)))

    # --------------------------------------------------------------------------------------------- what is said

    def tell(self, sentence: str) -> None:
        """Says something in the status line."""
        with self._saying:
            self._said = sentence
            self._say()

    def warn(self, client: Client | None, sentence: str) -> None:
        """Says what is wrong, in the status line and where one looks."""
        self.tell(sentence)
        self.notify(client, "Please note", sentence)

    def tell_of_picture(self, sentence: str) -> None:
        """Says something about the picture, below."""
        with self._saying:
            if sentence != self._of_picture:
                self._of_picture = sentence
                self._say()

    def _say(self) -> None:
        self.status.change(status(self._said, self._of_picture))

    @property
    def said(self) -> str:
        """The sentence of the status line."""
        return self._said

    # ------------------------------------------------------------------------------------- undo, and long things

    def undo(self, client: Client) -> None:
        """Takes back what was done last, whether stroke or edit."""
        said = self.history.undo()
        self.tell(f"Undone: {said}." if said else "There is nothing to undo.")

    def _cancel(self) -> None:
        self._cancelled.set()
        self.tell("Cancelling ...")

    def redo(self, client: Client) -> None:
        """Does it again."""
        said = self.history.redo()
        self.tell(f"Redone: {said}." if said else "There is nothing to redo.")

    def watched(self, what: str, items: Counted[T]) -> Iterator[T]:
        """Items that a long thing goes through: the page shows how far it is, and can cancel it.

        Raises:
            Cancelled: somebody pressed Cancel.
        """
        self._cancelled.clear()
        self.cancel_button.show(True)
        try:
            for number, item in enumerate(items):
                self.progress.show(number / len(items))
                self.tell(f"{what}: {number + 1} of {len(items)}")
                if self._cancelled.is_set():
                    raise Cancelled(f"Cancelled after {number} of {len(items)}: nothing was changed.")
                yield item
        finally:
            self.progress.show(None)
            self.cancel_button.show(False)


def status(said: str, of_picture: str = "") -> str:
    """The status line as markdown. It keeps its height (`layout.STYLE`), or all below would jump."""
    return f'<div className="semfield-status">\n\n**{plain(said)}**\n\n{plain(of_picture)}\n\n</div>'


class Cancelled(SemfieldError):
    """Somebody pressed Cancel."""


def training_views(pipeline: Any) -> dict[int, ViewCamera]:
    """The perspective training cameras of a pipeline, by their number in the dataset."""
    cameras = pipeline.datamanager.train_dataset.cameras
    found = {}
    for number in range(len(cameras)):
        with suppress(SemfieldError):
            found[number] = ViewCamera.of(cameras, number)
    return found
