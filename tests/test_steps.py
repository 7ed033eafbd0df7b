"""What training steps ask of a GPU, counted on a device that is simulated on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MOST_KERNELS = {
    "semantic-flow": 2033,
    "semantic-flow-tiny": 2250,
    "semantic-flow-splat": 460,
    "semantic-flow-splat-tiny": 320,
    "gsn": 1750,
    "gsn-tiny": 1420,
}
"""of a step, in either stage; the figures of today are in docs/measurements.md"""


@pytest.mark.parametrize("preset", MOST_KERNELS)
def test_no_step_waits_for_the_device(preset, tmp_path):
    results = tmp_path / "counts.json"
    command = [sys.executable, ROOT / "benchmarks" / "steps.py", "--presets", preset, "--results", results]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT, timeout=900)
    rows = json.loads(results.read_text())
    assert len(rows) == (1 if "splat" in preset else 2)
    for row in rows:
        assert row["where"] == {}
        assert row["kernels"] <= MOST_KERNELS[preset]
