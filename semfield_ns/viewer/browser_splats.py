"""Pages draw the Gaussians themselves: all that is private in viser's renderer of splats.

viser sorts the Gaussians of all nodes together, and lets them grow for half a second whenever one node comes or goes.
So each time step has a node of its own, sent before it is needed, and time moves on by showing one and hiding another.
"""

import threading
import time
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semfield_ns.compat.viser import forget_node
from semfield_ns.gaussians.harmonics import colours
from semfield_ns.gaussians.splats import Splats
from semfield_ns.gaussians.values import covariances
from semfield_ns.rendering.palette import colorize_labels, faint
from semfield_ns.scene_model import MovingSceneModel
from semfield_ns.viewer.elements import Gui, Markdown, Switch, install
from semfield_ns.viewer.layout import Layout
from semfield_ns.viewer.link import ViewerLink, viser_units

MOST = 2_000_000
"""Gaussians in a page, of all time steps together: 64 MB. Of more, steps are left out evenly."""
FLATTEST = 1e-3
"""shortest axis over the longest: viser takes roots of covariances, which have to be positive"""
OVERLAP_SECONDS = 0.05
"""for which two time steps are seen: a page shows a node one picture late"""
CLASSES = "semantics_colormap"
"""the output that shows classes; with any other one, pages show colours"""


class DrawingPanel:
    """The switch between pictures that the server renders and Gaussians that pages draw.

    Args:
        model: that has Gaussians.
        link: to the viewer.
    """

    def __init__(self, model: MovingSceneModel, link: ViewerLink) -> None:
        self.draw = Switch(
            "Draw in the browser",
            False,
            lambda *_: link.render(prepared=False),
            hint="By the graphics card of this computer: colours and classes, once training is done",
        )
        self.state = Markdown()
        pages = PageGaussians(model, self, link)
        link.on_ready.append(lambda: link.cover_with(pages.cover))

    def install(self, gui: Gui) -> None:
        """Adds it to the page."""
        install(gui, self.draw, self.state)

    def arrange(self, layout: Layout) -> None:
        """Where it would be slow, it says so."""
        layout.warn_of_software(self.draw)


class PageGaussians:
    """The Gaussians that pages have, and which of them are shown.

    Args:
        model: that has Gaussians.
        panel: says whether they are wanted.
        link: to the viewer.
    """

    def __init__(self, model: MovingSceneModel, panel: DrawingPanel, link: ViewerLink) -> None:
        self.link = link
        self._model, self._panel = model, panel
        self._lock = threading.Lock()
        self._nodes: dict[int, Any] = {}
        self._shown: int | None = None
        self._sent: Hashable = None
        self._generation = 0

    def cover(self) -> UInt8[np.ndarray, "2 2 3"] | None:
        """Brings the pages up to date; returns what lies behind the Gaussians, or None where none are to be drawn.

        Called by the threads of all pages, whenever one of them would get another picture.
        """
        with self._lock:
            if not self._panel.draw.value or self.link.training:
                self._remove()
                return None
            classes = self.link.shown[0] == CLASSES
            wanted = self._model.version(), classes, tuple(self._model.visible_classes().tolist()) if classes else ()
            if wanted != self._sent:
                self._remove()
                self._send(classes)
                self._sent = wanted
            step = self._model.step_of(self.link.time)
            self._show(min(self._nodes, key=lambda number: abs(number - step)))
        return np.broadcast_to(_bytes(self._model.background), (2, 2, 3))

    @torch.no_grad()
    def _send(self, classes: bool) -> None:
        with self.link.hold():
            cameras = self._model.time_cameras()
            first = self._model.splats(0.0)
            assert first is not None, "the panel is for models that have Gaussians"
            count = len(first.gaussians)
            every = -(-len(cameras) * count // MOST)
            values = {}
            for number in range(0, len(cameras), every):
                splats = self._model.splats(float(number))
                assert splats is not None, "as above"
                values[number] = node_values(splats, self._seen_from(cameras[number].camera_to_worlds, splats, classes))
        # Names that no page has seen: it would keep the Gaussians of a node that it knows, or show none of them.
        self._generation += 1
        server = self.link.viser_server
        for number, arrays in values.items():
            name = f"/gaussians_{self._generation}/{number:05d}"
            with server.atomic():  # or it would be seen before it is hidden
                self._nodes[number] = server.scene._add_gaussian_splats(name, *arrays, visible=False)
        self._panel.state.change(f"{count:,} Gaussians at {len(values)} moments are in the page.")

    def _seen_from(self, poses: Float[Tensor, "1 3 4"], splats: Splats, classes: bool) -> Float[Tensor, "N 3"]:
        """Colours of Gaussians, those of their classes if these are wanted, from a camera."""
        model = self._model
        rgb = colours(splats.coefficients, splats.gaussians.means, poses[0].to(splats.coefficients)).clamp(0, 1)
        if not classes or model.label_map is None:
            return rgb
        palette = torch.as_tensor(model.label_map.colors).to(rgb.device)
        visible = model.visible_classes().to(rgb.device)[splats.classes][:, None]
        return torch.where(visible, colorize_labels(splats.classes, palette), faint(rgb))

    def _show(self, number: int) -> None:
        before, self._shown = self._shown, number
        self._nodes[number].visible = True
        if before is not None and before != number:
            time.sleep(OVERLAP_SECONDS)
            self._nodes[before].visible = False

    def _remove(self) -> None:
        if not self._nodes:
            return
        for node in self._nodes.values():
            forget_node(node)
        self._nodes, self._shown, self._sent = {}, None, None
        self._panel.state.change("")


def node_values(splats: Splats, rgb: Float[Tensor, "N 3"]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres [N, 3], covariances [N, 3, 3], colours [N, 3] and opacities [N, 1] as viser takes them, in its units."""
    gaussians, unit = splats.gaussians, viser_units()
    scales = unit * gaussians.scales.double()
    scales = torch.maximum(scales, FLATTEST * scales.amax(dim=-1, keepdim=True))
    return (
        (unit * gaussians.means).cpu().numpy(),
        covariances(gaussians.quaternions.double(), scales).cpu().numpy(),
        _bytes(rgb),
        _bytes(gaussians.opacities[:, None]),
    )


def _bytes(values: Float[Tensor, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Rounded; viser would cut off."""
    return (255 * values.clamp(0, 1)).round().byte().cpu().numpy()
