"""`benchmarks/gpu.sh` on a machine that has PyTorch, what its images bring besides, and the carried wheels."""

import importlib.metadata as metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MACHINE = ROOT / "benchmarks" / "gpu_machine.txt"
WHEELS_MIB = 60


def distributions_there() -> set[str]:
    """Of the packages in `MACHINE` that are installed here, and what torch needs."""
    found: set[str] = set()
    waiting = MACHINE.read_text().split()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        if name in ("torch", "torchvision", "triton") or name.startswith(("cuda-", "nvidia-")):
            needed = map(Requirement, requirements)
            # CUDA's wheels are extras of `cuda-toolkit`.
            waiting += [need.name for need in needed if need.marker is None or "linux" in str(need.marker)]
    return found


def link_distributions(names: set[str], folder: Path) -> None:
    """An environment's site-packages with nothing but these."""
    for name in sorted(names):
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            source, target = Path(str(distribution.locate_file(top))), folder / top
            if source.exists() and not target.exists():
                target.symlink_to(source)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "benchmarks/wheels.py", str(folder), "--have", str(MACHINE)]
    command += ["--python", "{}.{}".format(*sys.version_info)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.mark.slow
def test_the_carried_wheels_are_small(wheels: Path):
    size = sum(wheel.stat().st_size for wheel in wheels.glob("*.whl")) / 2**20
    assert 5 < size <= WHEELS_MIB


@pytest.mark.slow
def test_the_script_runs_with_torch_and_carried_wheels_alone(wheels: Path, tmp_path: Path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=300)
    (site,) = venv.glob("lib/python*/site-packages")
    link_distributions(distributions_there(), site)
    assert not (site / "nerfstudio").exists()
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**kept, "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    results = tmp_path / "results"
    command = ["bash", "benchmarks/gpu.sh", "--device", "cpu", "--quick"]
    command += ["--out", str(results), "--wheels", str(wheels)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    logs = "".join(f"\n# {log.name}\n{log.read_text()[-3000:]}" for log in sorted(results.glob("*.log")))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    assert {part.stem for part in results.glob("*.done")} == {"fields", "tests", "splats", "speed"}
    presets = json.loads((results / "presets.json").read_text())
    assert {"semantic-flow-tiny", "gsn-tiny", "semantic-flow-splat-tiny"} == {row["preset"] for row in presets.values()}
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0 and "exit code" not in again.stdout
