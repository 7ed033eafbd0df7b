"""Which of many scenes the viewer shows."""

from collections.abc import Callable, Sequence

from nerfstudio.viewer.viewer_elements import ViewerDropdown
from torch import nn


class ScenePanel(nn.Module):
    """A list of scenes to choose from; nothing where there is only one.

    Args:
        names: of the scenes.
        shown: index of the one shown first.
        show: called with the index of the one that is chosen.
    """

    def __init__(self, names: Sequence[str], shown: int, show: Callable[[int], None]) -> None:
        super().__init__()
        if len(names) > 1:
            self.scene: ViewerDropdown[str] = ViewerDropdown(
                "Scene",
                names[shown],
                list(names),
                cb_hook=lambda element: show(list(names).index(element.value)),
                hint="The cameras in the picture are those of the scene shown first.",
            )
