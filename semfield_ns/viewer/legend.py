"""The palette legend and the class switches in Nerfstudio's viewer."""

import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, UInt8
from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerElement
from numpy import ndarray
from torch import Tensor, nn
from viser import ViserServer

from semfield_ns.rendering.palette import hex_color


def legend_markdown(names: Sequence[str], colors: UInt8[ndarray, "C 3"]) -> str:
    """A list of colours and class names: viser draws a swatch beside a colour in backquotes.

    viser runs its markdown as code (MDX), and names come from scene files, so everything in a name that is not plain
    text is written as a character entity.
    """
    rows = (f"`{hex_color(color)}` {plain(name)}" for name, color in zip(names, colors, strict=True))
    return "\n\n".join(rows)


def plain(text: str) -> str:
    """`text` as markdown that shows just these characters."""
    return re.sub(r"[^A-Za-z0-9 ]", lambda match: f"&#{ord(match.group())};", text)


class Legend(ViewerElement[str]):
    """Text in the panel; Nerfstudio has no element for that.

    Args:
        name: unique name of the element.
        content: markdown.
    """

    def __init__(self, name: str, content: str) -> None:
        super().__init__(name)
        self.content = content

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        # It has what Nerfstudio asks of a handle (visible, remove), but is not one of the types that it declares.
        self.gui_handle = cast(Any, viser_server.gui.add_markdown(self.content, visible=self.visible))

    def install(self, viser_server: ViserServer) -> None:
        self._create_gui_handle(viser_server)

    def change(self, content: str) -> None:
        """Shows another text."""
        self.content = content
        if self.gui_handle is not None:
            cast(Any, self.gui_handle).content = content


class SemanticPanel(nn.Module):
    """One switch a class.

    Nerfstudio finds the elements among the attributes of the modules of a pipeline, shows them in alphabetical order of
    the attributes' names in a folder named like the attribute that holds this module, and renders again at a change.
    There is no parameter and no buffer in here, so nothing of it is in checkpoints.

    Args:
        names: C class names.
        colors: [C, 3] palette, 0 to 255.
    """

    def __init__(self, names: Sequence[str], colors: UInt8[ndarray, "C 3"]) -> None:
        super().__init__()
        self.legend = Legend("Classes", legend_markdown(names, colors))
        self._switch_names = [f"show_{index:04d}" for index in range(len(names))]
        for attribute, name in zip(self._switch_names, names, strict=True):
            setattr(self, attribute, ViewerCheckbox(name, True, hint=f"Show or hide the class {name}"))

    def switch(self, index: int) -> ViewerCheckbox:
        """The switch of a class."""
        return getattr(self, self._switch_names[index])

    def visible_classes(self) -> Bool[Tensor, "C"]:
        """Which classes are switched on, on the CPU."""
        return torch.tensor([self.switch(i).value for i in range(len(self._switch_names))], dtype=torch.bool)
