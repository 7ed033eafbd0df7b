"""What renders: numba on CPUs, gsplat on CUDA devices. Each is imported when it is first used."""

from types import ModuleType
from typing import Literal

import torch

from semfield_ns.errors import SemfieldError

Backend = Literal["auto", "cpu", "gsplat"]


def load(backend: Backend, device: torch.device) -> ModuleType:
    """The module (with `project`, `rasterize` and `uplift`) that renders tensors of this device.

    Raises:
        SemfieldError: for an unknown name, and if the tensors are where it cannot render them.
    """
    if backend not in ("auto", "cpu", "gsplat"):
        raise SemfieldError(f"Rendering backend {backend!r}: there are auto, cpu and gsplat.")
    if backend == "gsplat" and not torch.cuda.is_available():
        raise SemfieldError("Rendering backend gsplat needs a CUDA device, and there is none: use cpu or auto.")
    if backend == "auto":
        backend = "gsplat" if device.type == "cuda" else "cpu"
    needed = {"cpu": "cpu", "gsplat": "cuda"}[backend]
    if device.type != needed:
        raise SemfieldError(f"Rendering backend {backend}: the Gaussians are on {device}; move them to {needed}.")
    if backend == "gsplat":
        from semfield_ns.gaussians import gsplat_backend

        return gsplat_backend
    from semfield_ns.gaussians import cpu

    return cpu
