"""Which of many scenes the viewer shows."""

from nerfstudio.viewer.viewer_elements import ViewerDropdown
from torch import nn

from semfield_ns.scene_model import SceneModel
from semfield_ns.viewer.edit_panel import EditPanel


class ScenePanel(nn.Module):
    """A list of scenes to choose from.

    Args:
        model: of several scenes.
        editing: the panel of the shown scene's edits, if there is one.
    """

    def __init__(self, model: SceneModel, editing: EditPanel | None = None) -> None:
        super().__init__()
        names = list(model.scene_names)

        def show(element: ViewerDropdown[str]) -> None:
            model.show(names.index(element.value))
            if editing is not None:
                editing.restart()

        self.scene: ViewerDropdown[str] = ViewerDropdown(
            "Scene",
            names[model.shown],
            names,
            cb_hook=show,
            hint="The cameras in the picture are those of the scene shown first.",
        )
