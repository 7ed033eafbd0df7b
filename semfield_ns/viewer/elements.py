"""The elements of the page: what a panel is made of.

They tell which browser an event came from, have a value before there is a page, and are quiet when the program itself
sets a value. Events come in threads of the viewer's; nothing is locked meanwhile.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from semfield_ns.compat.viser import relabel
from semfield_ns.viewer.text import plain

Client = Any
"""a viser ClientHandle: one browser"""
Gui = Any
"""viser's GuiApi; an element lands in the container whose `with` block it is installed in"""
T = TypeVar("T")

GRAY = "gray"
"""colour of ordinary buttons; the brand's is for what the page is for"""


def _nothing(client: Client, value: Any) -> None:
    pass


class Shown:
    """Something on the page that can be hidden."""

    handle: Any = None
    label: str = ""
    _visible: bool = True

    def show(self, visible: bool) -> None:
        """Shows or hides it."""
        self._visible = visible
        if self.handle is not None:
            self.handle.visible = visible

    def rename(self, label: str) -> None:
        """Another label."""
        if label != self.label and self.handle is not None:
            relabel(self.handle, label)
        self.label = label


class Control(Shown, ABC, Generic[T]):
    """An element with a value.

    Args:
        label: to its left.
        value: at first.
        changed: called with the browser and the value when somebody changes it.
        hint: shown when the pointer rests on it.
        visible: at first.
    """

    def __init__(
        self,
        label: str,
        value: T,
        changed: Callable[[Client, T], None] = _nothing,
        hint: str | None = None,
        visible: bool = True,
    ) -> None:
        self.label, self.hint = label, hint
        self.changed = changed
        self._value, self._visible, self._disabled = value, visible, False

    @abstractmethod
    def _add(self, gui: Gui, **common: Any) -> Any:
        """Adds it to the page."""

    def install(self, gui: Gui) -> None:
        """Adds it to the page."""
        common = {"hint": self.hint, "visible": self._visible, "disabled": self._disabled}
        self.handle = self._add(gui, label=self.label, initial_value=self._value, **common)
        self.handle.on_update(self._updated)

    def _updated(self, event: Any) -> None:
        if event.client is not None:
            self.changed(event.client, event.target.value)

    @property
    def value(self) -> T:
        """As the page shows it."""
        return self._value if self.handle is None else self.handle.value

    @value.setter
    def value(self, value: T) -> None:
        self._value = value
        if self.handle is not None and self.handle.value != value:
            self.handle.value = value

    def enable(self, enabled: bool) -> None:
        """A control that is not enabled is grey and takes nothing."""
        self._disabled = not enabled
        if self.handle is not None:
            self.handle.disabled = not enabled


class Switch(Control[bool]):
    """On or off."""

    def _add(self, gui: Gui, **common: Any) -> Any:
        return gui.add_checkbox(**common)


class Text(Control[str]):
    """A line of text."""

    def _add(self, gui: Gui, **common: Any) -> Any:
        return gui.add_text(**common)


class Number(Control[float]):
    """A number to type in.

    Args:
        limits: the least and the greatest.
        step: of the arrows.
    """

    def __init__(
        self, label: str, value: float, limits: tuple[float, float], step: float = 0.1, hint: str | None = None
    ) -> None:
        super().__init__(label, value, hint=hint)
        self._limits, self._step = limits, step

    def _add(self, gui: Gui, **common: Any) -> Any:
        return gui.add_number(min=self._limits[0], max=self._limits[1], step=self._step, **common)

    @property
    def bounded(self) -> float:
        """The value within its limits: a page may send any."""
        return min(max(float(self.value), self._limits[0]), self._limits[1])


class Slider(Control[float]):
    """A number on a scale.

    Args:
        limits: the least and the greatest.
        step: between two values.
    """

    def __init__(
        self,
        label: str,
        value: float,
        limits: tuple[float, float],
        step: float,
        changed: Callable[[Client, float], None] = _nothing,
        hint: str | None = None,
    ) -> None:
        super().__init__(label, value, changed, hint)
        self._limits, self._step = limits, step

    def _add(self, gui: Gui, **common: Any) -> Any:
        return gui.add_slider(min=self._limits[0], max=self._limits[1], step=self._step, **common)


class Vector(Control[tuple[float, float, float]]):
    """Three numbers."""

    def _add(self, gui: Gui, **common: Any) -> Any:
        return gui.add_vector3(step=0.05, **common)


class Color(Control[tuple[int, int, int]]):
    """A colour, 0 to 255."""

    def _add(self, gui: Gui, **common: Any) -> Any:
        return gui.add_rgb(**common)


class Choice(Control[str]):
    """One of several words."""

    def __init__(
        self,
        label: str,
        options: Sequence[str],
        changed: Callable[[Client, str], None] = _nothing,
        hint: str | None = None,
    ) -> None:
        super().__init__(label, options[0], changed, hint)
        self._options = tuple(options)

    def _add(self, gui: Gui, **common: Any) -> Any:
        return gui.add_dropdown(options=self._options, **common)

    @property
    def options(self) -> tuple[str, ...]:
        """The words to choose from."""
        return self._options

    def offer(self, options: Sequence[str]) -> None:
        """Other words to choose from; the first is chosen where the chosen one is not among them."""
        if tuple(options) == self._options:
            return
        self._options = tuple(options)
        if self._value not in self._options:
            self._value = self._options[0]
        if self.handle is not None:
            self.handle.options = self._options


class Button(Shown):
    """A button.

    Args:
        label: on it.
        pressed: called with the browser.
        hint: shown when the pointer rests on it; viser's own buttons do not, our page does (`layout`).
        main: whether it is one of the few that the page is for.
    """

    def __init__(
        self, label: str, pressed: Callable[[Client], None], hint: str | None = None, main: bool = False
    ) -> None:
        self.label, self.hint, self.main = label, hint, main
        self.pressed = pressed

    def install(self, gui: Gui) -> None:
        """Adds it to the page."""
        self.handle = gui.add_button(self.label, color=None if self.main else GRAY, visible=self._visible)
        self.handle.on_click(lambda event: self.pressed(event.client))


class Buttons:
    """Small buttons in one row.

    Args:
        label: to their left.
        options: what is on them.
        pressed: called with the browser and what is on the button.
    """

    def __init__(self, label: str, options: Sequence[str], pressed: Callable[[Client, str], None]) -> None:
        self.label, self._options, self.pressed = label, tuple(options), pressed
        self.handle: Any = None

    def install(self, gui: Gui) -> None:
        """Adds them to the page."""
        self.handle = gui.add_button_group(self.label, self._options)
        self.handle.on_click(lambda event: self.pressed(event.client, event.target.value))


class Markdown(Shown):
    """Text.

    Args:
        content: markdown. viser runs it as code (MDX), so whatever comes from files or pages goes through `plain`.
    """

    def __init__(self, content: str = "", visible: bool = True) -> None:
        self._content, self._visible = content, visible

    def install(self, gui: Gui) -> None:
        """Adds it to the page."""
        self.handle = gui.add_markdown(self._content, visible=self._visible)

    @property
    def content(self) -> str:
        """The markdown."""
        return self._content

    def change(self, content: str) -> None:
        """Shows another text; none takes no place."""
        if content == self._content:
            return
        self._content = content
        if self.handle is not None:
            self.handle.content = content

    def tell(self, sentence: str) -> None:
        """Shows a sentence as it is."""
        self.change(plain(sentence))


class Progress:
    """A bar that fills; it is there while something is done."""

    def __init__(self) -> None:
        self.handle: Any = None

    def install(self, gui: Gui) -> None:
        """Adds it to the page."""
        self.handle = gui.add_progress_bar(0.0, visible=False, animated=True)

    def show(self, share: float | None) -> None:
        """How much is done, 0 to 1; None hides the bar."""
        if self.handle is None:
            return
        if share is not None:
            self.handle.value = 100 * min(max(share, 0.0), 1.0)
        self.handle.visible = share is not None


class Element(Protocol):
    """Anything that can be on the page."""

    def install(self, gui: Gui) -> None:
        """Adds it to the page."""


def install(gui: Gui, *elements: Element) -> None:
    """Adds elements to the page, one below the other."""
    for element in elements:
        element.install(gui)
