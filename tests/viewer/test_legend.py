import numpy as np
import pytest
import torch
import viser
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerElement
from torch import nn

from semfield_ns.rendering.palette import default_palette
from semfield_ns.viewer.legend import SemanticPanel, legend_markdown

NAMES = ("wall", "cat", "ball")


@pytest.fixture
def server():
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    yield server
    server.stop()


def test_works_without_a_server():
    panel = SemanticPanel(NAMES, default_palette(3))
    assert panel.visible_classes().dtype == torch.bool
    assert panel.visible_classes().tolist() == [True, True, True]
    panel.switch(1).value = False
    assert panel.visible_classes().tolist() == [True, False, True]


def test_is_no_part_of_a_checkpoint():
    panel = SemanticPanel(NAMES, default_palette(3))
    assert not list(panel.parameters()) and not panel.state_dict()


def test_no_class_at_all():
    assert SemanticPanel((), default_palette(0)).visible_classes().shape == (0,)


def test_nerfstudio_finds_the_elements_in_order():
    pipeline, pipeline.model = nn.Module(), nn.Module()
    pipeline.model.classes = SemanticPanel([f"class {i}" for i in range(12)], default_palette(12))
    found = parse_object(pipeline, ViewerElement, "Custom Elements")
    assert [path.rsplit("/", 1)[0] for path, _ in found] == ["Custom Elements/model/classes"] * 13
    assert [element.name for _, element in found] == ["Classes", *(f"class {i}" for i in range(12))]


def test_installed_switches_drive_the_visible_classes(server):
    panel = SemanticPanel(NAMES, default_palette(3))
    changes = []
    for _, element in parse_object(panel, ViewerElement, "panel"):
        element.install(server)
        element.cb_hook = lambda element: changes.append(element.name)
    panel.switch(2).gui_handle.value = False
    assert panel.visible_classes().tolist() == [True, True, False]
    assert changes == ["ball"]
    assert "`#" in panel.legend.gui_handle.content
    panel.legend.remove()


def test_a_class_name_cannot_run_code_in_the_browser():
    text = legend_markdown(["{alert(1)}", "<b>x</b>", "![a](b)", "a_b"], default_palette(4))
    names = [row.split("` ", 1)[1] for row in text.split("\n\n")]
    assert not set("{}<>![]()_`*") & set("".join(names))
    assert names[3] == "a&#95;b"


def test_legend_by_hand():
    assert legend_markdown(["sky"], np.array([[1, 2, 255]], np.uint8)) == "`#0102ff` sky"
