"""A button with which a panel is told what somebody clicks on."""

from collections.abc import Sequence
from typing import Any, Protocol

from nerfstudio.cameras.cameras import Cameras

from semfield_ns.errors import SemfieldError
from semfield_ns.viewer.link import Client, ClientButton, ScreenPoint, ViewerLink


class Picking(Protocol):
    """A panel that edits objects."""

    link: Any
    b_pick: Any

    def pick(self, camera: Cameras, at: ScreenPoint) -> tuple[str, Sequence[str]]:
        """The object that a camera shows at a place, and all objects by name; a SemfieldError where there is none."""

    def choose(self, name: str, objects: Sequence[str]) -> None:
        """One of the objects was picked."""

    def tell(self, message: str) -> None:
        """Shows a sentence."""


def add_picking(panel: Picking) -> None:
    """Gives a panel the button "Pick by a click"; Nerfstudio finds it, and the link to the viewer, as attributes."""
    link = ViewerLink(lambda: None, lambda _: None)

    def begin(client: Client) -> None:
        if client is not None:
            link.take_pointer(client, "click", lambda points: picked(client, points[0]))
            panel.tell("Click on something that moves.")

    def picked(client: Client, at: ScreenPoint) -> None:
        link.give_pointer_back(client)
        panel.tell("Working ...")
        try:
            camera = link.camera(client).cameras()
            with link.lock:
                name, objects = panel.pick(camera, at)
        except SemfieldError as error:
            panel.tell(str(error))
            return
        panel.choose(name, objects)

    panel.link, panel.b_pick = link, ClientButton("Pick by a click", begin)
