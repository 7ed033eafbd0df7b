"""The classes of a scene: their colours, which of them are shown, and what is where."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, UInt8
from numpy import ndarray
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.palette import hex_color
from semfield_ns.viewer.elements import Button, Buttons, Client, Gui, Switch, install
from semfield_ns.viewer.layout import Layout
from semfield_ns.viewer.link import ScreenPoint
from semfield_ns.viewer.live import LiveSegmentation
from semfield_ns.viewer.page import Page

CLASSES = "semantics_colormap"
"""the output that shows classes"""


class ClassesPanel:
    """One switch a class, in its colour. What is switched off is pale in the picture of classes.

    Args:
        page: that has it.
        names: C class names.
        colors: [C, 3] palette, 0 to 255.
        live: knows what is where; None in tests.
    """

    def __init__(
        self, page: Page, names: Sequence[str], colors: UInt8[ndarray, "C 3"], live: LiveSegmentation | None = None
    ) -> None:
        self._page, self._names, self._colors, self._live = page, list(names), colors, live
        self.ask = Button("What is here?", self._begin_to_ask, hint="Class, confidence and distance of what you click")
        self.all = Buttons("Classes", ["All", "None"], self._show_all)
        self.switches = [
            Switch(name, True, partial(self._switched, name), hint=f"Show or hide the class {name}") for name in names
        ]

    def install(self, gui: Gui) -> None:
        """Adds them to the page."""
        if self._live is not None:
            self.ask.install(gui)
        install(gui, self.all, *self.switches)

    def arrange(self, layout: Layout) -> None:
        """Each switch has its colour."""
        layout.swatches(self.switches, [hex_color(color) for color in self._colors])

    def visible_classes(self) -> Bool[Tensor, "C"]:
        """Which classes are switched on, on the CPU."""
        return torch.tensor([switch.value for switch in self.switches], dtype=torch.bool)

    def _switched(self, name: str, client: Client, value: bool) -> None:
        self._changed(f"{name} is shown again." if value else f"{name} is hidden: Classes shows it grey.")

    def _show_all(self, client: Client, which: str) -> None:
        for switch in self.switches:
            switch.value = which == "All"
        self._changed(f"All classes are {'shown' if which == 'All' else 'hidden'}.")

    def _changed(self, said: str) -> None:
        """A switch is seen to do something."""
        for name, switch in zip(self._names, self.switches, strict=True):
            switch.rename(name if switch.value else f"{name} (hidden)")
        self._page.tell(said)
        self._page.show_output(CLASSES)
        self._page.render(prepared=True)

    # ------------------------------------------------------------------------------------------ what is where

    def _begin_to_ask(self, client: Client) -> None:
        if client is None:
            return
        self._page.take_pointer(client, "click", lambda points: self._answer(client, points[0]))
        self._page.tell("Click on something.")

    def _answer(self, client: Client, at: ScreenPoint) -> None:
        assert self._live is not None, "the button is there with it only"
        self._page.give_pointer_back(client)
        try:
            camera = self._page.camera(client)
            with self._page.hold():
                raw = self._live.near(camera)
        except SemfieldError as error:
            self._page.warn(client, str(error))
            return
        height, width = raw["rgb"].shape[:2]
        row, column = (min(int(share * size), size - 1) for share, size in ((at[1], height), (at[0], width)))
        told = [f"{float(raw['depth'][row, column]):.2f} away"]
        if "logits" in raw:
            shares = raw["logits"][row, column].softmax(dim=-1)
            number = int(shares.argmax())
            told.insert(0, f"{self._names[number]}, {100 * float(shares[number]):.0f} % sure")
        self._page.tell(f"Here: {', '.join(told)}.")
