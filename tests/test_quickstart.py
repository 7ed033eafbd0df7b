"""The notebook of the documentation, run with few steps."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def test_no_outputs_are_kept():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell.outputs for cell in cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)] == []


@pytest.mark.slow
def test_it_ends_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (training,) = (cell for cell in notebook.cells if "STEPS = 100" in cell.source)
    training.source = training.source.replace("STEPS = 100", "STEPS = 30")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    said = "".join(output.get("text", "") for output in last.outputs)
    psnr, right = re.search(r"PSNR ([\d.]+) dB, (\d+)% of the classes right", said).groups()
    assert float(psnr) > 22 and int(right) > 85
    assert any("image/png" in output.get("data", {}) for output in last.outputs)
