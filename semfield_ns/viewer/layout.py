"""The page around our panels: all that is private in the layout of Nerfstudio's viewer, and in viser's page.

Tab bar, sizes and shortcuts are what viser 0.2.7 has no calls for: a style sheet and a script of our own, which know
elements by their ids.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
from viser import GuiTabGroupHandle, GuiTabHandle
from viser._messages import GuiUpdateMessage, RunJavascriptMessage

from semfield_ns.errors import SemfieldError
from semfield_ns.viewer.elements import GRAY, Button, Client, Gui, Switch, Text
from semfield_ns.viewer.files import checked_name
from semfield_ns.viewer.link import ScreenPoint

TOP = -1.0
"""order of what comes before everything of Nerfstudio's"""

STYLE = """
.mantine-ScrollArea-viewport p, .mantine-ScrollArea-viewport li { overflow-wrap: anywhere; }
.mantine-ScrollArea-viewport > div { display: block !important; }
.mantine-Tabs-tab { padding: 0.6em 0.4em !important; font-size: 0.82em !important;
  letter-spacing: -0.5px; }
.semfield-status { height: 6.5em; overflow-y: auto; }
.mantine-Notification-root { overflow-wrap: anywhere; }
.semfield-caption { position: fixed; left: 1em; bottom: 1em; max-width: 40em; color: white; z-index: 2;
  background: rgba(0, 0, 0, 0.7); border-radius: 0.4em; font: 0.9em sans-serif; pointer-events: none; }
.semfield-caption:not([data-text=""])::after { content: attr(data-text); display: block; padding: 0.4em 0.8em; }
"""
"""Long words wrap; the panel keeps its width, and the status line its height, whatever is in it."""

SCRIPT = """
(() => {
  const page = (window.semfield ??= { keys: {}, hints: {} });
  const sheet = (name, text) => {
    let node = document.getElementById("semfield-" + name);
    if (!node) {
      node = document.createElement("style");
      node.id = "semfield-" + name;
      document.head.appendChild(node);
    }
    node.textContent = text;
  };
  page.sheet = sheet;
  // Hidden lines of text are how the page tells the server something.
  page.write = (id, value) => {
    const input = document.querySelector(`div:has(> div > p > label[for="${id}"]) input`);
    if (!input) return;
    const text = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
    text.set.call(input, value);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  page.painted = (id, value) => requestAnimationFrame(() => requestAnimationFrame(() => page.write(id, value)));
  if (page.listens) return;
  page.listens = true;
  const gl = document.createElement("canvas").getContext("webgl");
  const info = gl?.getExtension("WEBGL_debug_renderer_info");
  const renderer = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
  if (!gl || /swiftshader|llvmpipe|software|basic render/i.test(renderer)) {
    document.documentElement.dataset.semfieldSoftware = "";
  }
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  // viser turns and moves the camera by arrows and letters, wherever they are pressed.
  document.body.addEventListener("keydown", (event) => {
    const takers = "[role=slider], .mantine-Slider-root, [role=listbox], input, textarea";
    if (event.target.closest(takers)) event.stopPropagation();
  });
  // The way of a pointer that draws goes to the server by a hidden line of text. viser gets no moves: it takes
  // the press and the release for a click where the way begins.
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  paper.style.cssText = "position: fixed; inset: 0; width: 100%; height: 100%; pointer-events: none; z-index: 1";
  paper.innerHTML = '<polyline fill="none" stroke="white" stroke-width="4"/>';
  document.body.appendChild(paper);
  const show = (way) => paper.firstChild.setAttribute("points", way.join(" "));
  let canvas = null, way = [];
  window.addEventListener("pointerdown", (event) => {
    if (!page.pencil || event.button !== 0 || event.target.tagName !== "CANVAS") return;
    [canvas, way] = [event.target, [[event.clientX, event.clientY]]];
  }, true);
  window.addEventListener("pointermove", (event) => {
    if (!canvas) return;
    event.stopPropagation();
    const [x, y] = way[way.length - 1];
    if (Math.hypot(event.clientX - x, event.clientY - y) > 4) way.push([event.clientX, event.clientY]);
    show(way);
  }, true);
  window.addEventListener("pointerup", () => {
    if (!canvas) return;
    const box = canvas.getBoundingClientRect();
    const shares = way.map(([x, y]) => [(x - box.x + 0.5) / box.width, (y - box.y + 0.5) / box.height]);
    canvas = null;
    show([]);
    if (shares.length > 1) page.write(page.pencil, JSON.stringify({ time: Date.now(), way: shares }));
  }, true);
  // What the status line says is also said over the picture while the line is scrolled out of sight.
  const caption = document.createElement("div");
  caption.className = "semfield-caption";
  document.body.appendChild(caption);
  setInterval(() => {
    const line = document.querySelector(".semfield-status strong");
    const box = line?.getBoundingClientRect();
    const there = box?.width && document.elementFromPoint(box.x + 2, box.y + 2)?.closest(".semfield-status");
    caption.dataset.text = box?.width && !there ? line.textContent : "";
  }, 300);
  document.body.addEventListener("mouseover", (event) => {
    const button = event.target.closest("button[id]");
    if (button && page.hints[button.id]) button.title = page.hints[button.id];
  });
  window.addEventListener("keydown", (event) => {
    const at = event.target;
    const types = at.isContentEditable || at.tagName === "TEXTAREA" ||
      (at.matches("input:not([aria-haspopup=listbox])") && !["checkbox", "radio", "button", "range"].includes(at.type));
    const control = event.ctrlKey || event.metaKey;
    const key = (control ? "Control+" : "") + (event.shiftKey ? "Shift+" : "") +
      (event.key.length === 1 ? event.key.toLowerCase() : event.key);
    const button = document.getElementById(page.keys[key] ?? "");
    const presses = !control && at.tagName === "BUTTON" && ["Enter", " "].includes(event.key);
    if (!button || types || presses) return;
    event.preventDefault();
    event.stopPropagation();
    button.click();
  }, true);
})();
"""
"""Keys press buttons, unless somebody types. Pointers draw. Buttons have hints. Sheets can be replaced by name."""

HIDDEN_BUTTON = (
    'div:has(> button[id="{id}"]) {{ position: absolute; width: 0; height: 0; overflow: hidden; margin: 0; }}'
)
HIDDEN_TEXT = 'div:has(> div > div > p > label[for="{id}"]) {{ display: none; }}'
MOST_POINTS = 1000
"""of a way"""
BESIDE = """
div:has(> button[id="{id}"]) {{ display: inline-block; width: calc({share}% - {gap}px);
  margin: 0 0 0.5em 10px !important; vertical-align: top; }}
"""
SWATCH = """
label[for="{id}"]::before {{ content: ""; display: inline-block; width: 0.85em; height: 0.85em; margin-right: 0.45em;
  border-radius: 0.2em; vertical-align: -0.1em; background: {color}; }}
div:has(> div > p > label[for="{id}"]) > div:first-child {{ width: 85%; }}
"""
SLOW = (
    '[data-semfield-software] label[for="{id}"]::after {{ content: " (slow here: no graphics card)"; color: orange; }}'
)
HELD = 'button[id="{id}"] {{ outline: 3px solid #ffffff !important; outline-offset: -3px; }}'


def run_in_page(target: Any, source: str) -> None:
    """Runs a script in a browser (a client), or in all, also those that come later (the server).

    Scripts are of this module; nothing that comes from a file or a page is in them.
    """
    interface = target._websock_server if hasattr(target, "_websock_server") else target._websock_connection
    interface.queue_message(RunJavascriptMessage(source=source))


class Layout:
    """Nerfstudio's panel, with ours in it.

    Args:
        viewer: Nerfstudio's.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer, self._server = viewer, viewer.viser_server
        self._styles: list[str] = [STYLE]
        self._keys: dict[str, str] = {}
        self._pencil, self._receipts = Text("way", ""), Text("painted", "")

    @property
    def gui(self) -> Gui:
        """Viser's."""
        return self._server.gui

    def top(self, label: str) -> AbstractContextManager[Any]:
        """A container above everything of Nerfstudio's."""
        return self.gui.add_folder(label, order=TOP)

    def tabs(self, labels: Sequence[str]) -> list[GuiTabHandle]:
        """New tabs before those of Nerfstudio, in the same bar; the first is the open one."""
        group = self._bar()
        count = len(group._labels)
        added = [group.add_tab(label) for label in labels]
        for entries in (group._labels, group._icons_html, group._tabs):
            values: list[Any] = list(entries)
            entries[:] = values[count:] + values[:count]
        # Without pictures all fit in the width of the panel.
        group._icons_html[:] = [None] * len(group._labels)
        group._sync_with_client()
        return added

    def _bar(self) -> GuiTabGroupHandle:
        """Nerfstudio's tabs."""
        root = self.gui._container_handle_from_id["root"]
        return next(child for child in root._children.values() if isinstance(child, GuiTabGroupHandle))

    def note(self, tab: str, sentence: str) -> None:
        """Says something at the top of a tab of Nerfstudio's."""
        bar = self._bar()
        with bar._tabs[bar._labels.index(tab)]:
            self.gui.add_markdown(sentence, order=TOP)

    def calm(self) -> None:
        """Nerfstudio's own buttons look as ordinary as they are."""
        for handle in (self._viewer.hide_images, self._viewer.show_images):
            self.gui._websock_interface.queue_message(GuiUpdateMessage(handle._impl.id, {"color": GRAY}))

    def tame_cameras(self, clicked: Callable[[Client, int], None]) -> bool:
        """Training cameras are hidden, as the page looks through one of them, until somebody wants to see them.

        Args:
            clicked: called with a browser that clicks on one, and its number in the dataset.

        Returns:
            Whether there are any yet.
        """
        viewer = self._viewer
        cameras = getattr(viewer, "camera_handles", None)  # they come when the scene is known
        if not cameras:
            return False
        for number, handle in cameras.items():
            handle.on_click(lambda event, number=number: clicked(event.client, number))
        viewer.set_camera_visibility(False)
        viewer.hide_images.visible, viewer.show_images.visible = False, True
        return True

    def show_training(self, training: bool) -> None:
        """What is about training is there while something is trained."""
        viewer = self._viewer
        paused = viewer.trainer is not None and viewer.trainer.training_state == "paused"
        viewer.pause_train.visible = training and not paused
        viewer.resume_train.visible = paused
        viewer.stats_markdown.visible = training or paused
        for element in (viewer.control_panel._train_speed, viewer.control_panel._train_util):
            element.set_hidden(not (training or paused))

    def replace_outputs(self) -> None:
        """Nerfstudio's list of outputs goes: ours is there instead."""
        self._viewer.control_panel._output_render.set_hidden(True)

    def replace_time(self) -> None:
        """Nerfstudio's time slider goes: ours is there instead."""
        panel = self._viewer.control_panel
        panel._time_enabled = False  # it is asked whenever another output is chosen
        panel._time.set_hidden(True)

    def guard_render_name(self) -> None:
        """Nerfstudio writes camera paths to files called as a page says; from now on that is a name, never a path."""
        for handle in list(self.gui._gui_input_handle_from_id.values()):
            if handle._impl.label == "Render name":
                handle._impl.value = RenderName(handle._impl.value)

    def guard_numbers(self) -> None:
        """A field in which somebody has typed "-" sends no number, which viser cannot store: it stays as it was."""
        handlers = self.gui._websock_interface._incoming_handlers[GuiUpdateMessage]
        handlers[:] = [partial(_with_numbers, handler) for handler in handlers]

    # ---------------------------------------------------------------------------------------- styles and shortcuts

    def beside(self, *buttons: Button) -> None:
        """Buttons that follow each other share a row."""
        count = len(buttons)
        share, gap = 100 / count, 10 * (count + 1) / count
        self._styles += [BESIDE.format(id=button.handle._impl.id, share=share, gap=gap) for button in buttons]

    def swatches(self, switches: Sequence[Switch], colors: Sequence[str]) -> None:
        """A patch of colour before the label of each switch."""
        pairs = zip(switches, colors, strict=True)
        self._styles += [SWATCH.format(id=switch.handle._impl.id, color=color) for switch, color in pairs]

    def warn_of_software(self, switch: Switch) -> None:
        """Browsers that draw without a graphics card say so beside a switch."""
        self._styles.append(SLOW.format(id=switch.handle._impl.id))

    def shortcuts(self, actions: Mapping[str, Callable[[Client], None]]) -> None:
        """Keys, such as "Control+z", and what they do."""
        for key, action in actions.items():
            button = Button(f"key {key}", action)
            button.install(self.gui)
            self._keys[key] = button.handle._impl.id
            self._styles.append(HIDDEN_BUTTON.format(id=button.handle._impl.id))

    def pencil(self, drawn: Callable[[Client, list[ScreenPoint]], None]) -> None:
        """Calls a function with the way of each pointer that draws in the picture (`draws`), once it is released."""
        self._pencil = Text("way", "", lambda client, text: drawn(client, way) if (way := read_way(text)) else None)
        self._hide(self._pencil)

    def receipts(self, painted: Callable[[Client, str], None]) -> None:
        """Calls a function with what `ask` has asked a browser to send back."""
        self._receipts = Text("painted", "", painted)
        self._hide(self._receipts)

    def ask(self, client: Client, text: str) -> None:
        """Asks a browser to send a text back once it has painted all that it was sent before."""
        name = json.dumps(self._receipts.handle._impl.id)
        run_in_page(client, f"window.semfield?.painted({name}, {json.dumps(text)});")

    def _hide(self, element: Text) -> None:
        element.install(self.gui)
        self._styles.append(HIDDEN_TEXT.format(id=element.handle._impl.id))

    def draws(self, client: Client, draws: bool) -> None:
        """Whether the pointer of a browser draws."""
        name = json.dumps(self._pencil.handle._impl.id if draws else None)
        run_in_page(client, f"if (window.semfield) window.semfield.pencil = {name};")

    def finish(self, buttons: Iterable[Button]) -> None:
        """Pages get styles, shortcuts and the hints of buttons."""
        hints = {button.handle._impl.id: button.hint for button in buttons if button.handle and button.hint}
        keys = f"Object.assign(window.semfield.keys, {json.dumps(self._keys)});"
        keys += f"Object.assign(window.semfield.hints, {json.dumps(hints)});"
        sheet = f"window.semfield.sheet('panel', {json.dumps(''.join(self._styles))});"
        run_in_page(self._server, SCRIPT + keys + sheet)

    def mark(self, client: Client, button: Button | None) -> None:
        """The one button that is held down in a browser."""
        style = "" if button is None else HELD.format(id=button.handle._impl.id)
        run_in_page(client, f"window.semfield?.sheet('held', {json.dumps(style)});")


def _with_numbers(handler: Callable[[int, GuiUpdateMessage], None], client: int, message: GuiUpdateMessage) -> None:
    """Handles what a page has sent, unless it is a number that is none, or not finite."""
    value = message.updates.get("value")
    parts = value if isinstance(value, list | tuple) else [value]
    if all(math.isfinite(part) for part in parts if isinstance(part, float)):
        handler(client, message)


def read_way(text: str) -> list[ScreenPoint]:
    """The way of a pointer, as a page may give it: points of the picture; none where it is something else."""
    try:
        points = np.array(json.loads(text)["way"], dtype=np.float64).reshape(-1, 2)
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    if not 1 < len(points) <= MOST_POINTS or not np.isfinite(points).all():
        return []
    return [(x, y) for x, y in points.clip(0, 1).tolist()]


class RenderName(str):
    """The name of a render as a page may give it: viser makes every value that comes of this type."""

    def __new__(cls, value: object) -> "RenderName":
        """A name that is none becomes one."""
        try:
            return super().__new__(cls, checked_name(str(value)))
        except SemfieldError:
            return super().__new__(cls, "render")
