"""A button with which a panel is told what somebody clicks on."""

from semfield_ns.errors import SemfieldError
from semfield_ns.viewer.edit_panel import EditPanel
from semfield_ns.viewer.link import Client, ClientButton, ScreenPoint


def add_picking(panel: EditPanel) -> None:
    """Gives a panel the button "Pick by a click"; Nerfstudio finds it as an attribute."""
    link = panel.link

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

    panel.b_pick = ClientButton("Pick by a click", begin)
