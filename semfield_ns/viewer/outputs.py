"""Which output the pages show."""

from collections.abc import Sequence

from semfield_ns.viewer.elements import Choice, Client, Gui
from semfield_ns.viewer.link import ViewerLink

NAMES = {
    "rgb": "Colour",
    "semantics_colormap": "Classes",
    "segmentation_overlay": "Segmented objects",
    "instances": "Things",
    "depth": "Depth",
    "dynamic_weight": "What moves",
    "similarity": "Similarity to the object",
    "segmentation": "Mask of the object",
    "semantics_confidence": "Confidence of the class",
    "features_pca": "Features",
    "accumulation": "Opacity",
}
"""of the outputs, as people call them; others go by what is before the first underscore"""


class OutputChoice:
    """A list of outputs, by the names that people have for them.

    Args:
        link: to the viewer.
    """

    def __init__(self, link: ViewerLink) -> None:
        self._link = link
        self._of_label = {"Colour": "rgb"}
        self.choice = Choice("Show", ["Colour"], self._choose, hint="What the picture shows")
        link.on_output.append(self._chosen)

    def install(self, gui: Gui) -> None:
        """Adds the list to the page."""
        self.choice.install(gui)

    def offer(self, outputs: Sequence[str]) -> None:
        """These can be chosen."""
        known = [name for name in NAMES if name in outputs]
        ordered = known + [name for name in outputs if name not in NAMES]
        labels = {label_of(name): name for name in ordered}
        if labels == self._of_label:
            return
        self._of_label = labels
        self.choice.offer(list(labels))
        self._chosen(self._link.shown[0])

    def _choose(self, client: Client, label: str) -> None:
        self._link.show_output(self._of_label.get(label, "rgb"))

    def _chosen(self, name: str) -> None:
        if label_of(name) in self._of_label:
            self.choice.value = label_of(name)


def label_of(name: str) -> str:
    """How an output is called on the page."""
    return NAMES.get(name, name.replace("_", " ").capitalize())
