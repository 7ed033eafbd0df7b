"""Which of many scenes the viewer shows."""

from collections.abc import Callable

from semfield_ns.scene_model import SceneModel
from semfield_ns.viewer.elements import Choice, Client, Gui
from semfield_ns.viewer.layout import Layout
from semfield_ns.viewer.link import ViewerLink


class ScenePanel:
    """A list of scenes to choose from.

    Args:
        model: of several scenes.
        link: to the viewer.
        changed: called when another one is shown.
    """

    def __init__(self, model: SceneModel, link: ViewerLink, changed: Callable[[], None]) -> None:
        self._model, self._link, self._changed = model, link, changed
        self._names = list(model.scene_names)
        shown = self._names[model.shown]
        hint = "The cameras in the picture are those of the scene that was shown first"
        self.scene = Choice("Scene", self._names, self._show, hint=hint)
        self.scene.value = shown

    def install(self, gui: Gui) -> None:
        """Adds it to the page."""
        self.scene.install(gui)

    def arrange(self, layout: Layout) -> None:
        """It stands alone."""

    def _show(self, client: Client, name: str) -> None:
        with self._link.hold():
            self._model.show(self._names.index(name))
        self._changed()
        self._link.render(prepared=False)
