"""A device that is not there: its tensors are computed on the CPU, and what a real one would be asked for is counted.

PyTorch takes it for a device of its own, "sim": a tensor has to be sent there and back. So what makes the host wait for
a GPU is seen on any machine: copies that are not asynchronous, and operations whose result the host needs to go on.
Importing this module changes PyTorch for the whole process.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

PACKAGES = ("semfield_ns", "nerfstudio")
"""whose lines are named"""
FREE = frozenset(
    {
        *(
            "_reshape_alias",
            "_unsafe_view",
            "alias",
            "as_strided",
            "detach",
            "diagonal",
            "expand",
            "lift_fresh",
            "movedim",
        ),
        *("permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind"),
        *("unsafe_split", "unsqueeze", "view", "empty", "empty_like", "empty_strided", "new_empty"),
    }
)
"""views and allocations: no kernel is launched"""
WAITING = frozenset(
    {
        *("_local_scalar_dense", "_unique2", "equal", "is_nonzero", "masked_select", "nonzero", "unique_consecutive"),
        *("unique_dim", "repeat_interleave"),
    }
)
kernels: Counter[str] = Counter()
"""operations that launch a kernel, by name"""
waits: Counter[str] = Counter()
"""what makes the host wait, and where"""


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("sim", backend_module=_Backend())
DEVICE = torch.device("sim", 0)


class Simulated(torch.Tensor):
    """A tensor on the device."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> "Simulated":
        """Wraps what it holds."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, value.size(), strides=value.stride(), dtype=value.dtype, device=DEVICE
        )
        made.value = value
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """Its shape."""
        return f"Simulated{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Everything that is done with it."""
        return _computed(func, args, kwargs or {})


def reset() -> None:
    """Begins to count anew."""
    kernels.clear(), waits.clear()


def _wait(what: str) -> None:
    frame, lines = sys._getframe(2), []
    while frame is not None and len(lines) < 2:
        path = Path(frame.f_code.co_filename)
        if any(package in path.parts for package in PACKAGES):
            lines.append(f"{path.name}:{frame.f_lineno}")
        frame = frame.f_back
    waits[f"{what} at {' in '.join(lines)}"] += 1


def _there(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _computed(func: Any, args: tuple, kwargs: dict) -> Any:
    name = func.overloadpacket.__name__
    if name not in FREE:
        kernels[name] += 1
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    held = {id(tensor.value): tensor for tensor in tensors if isinstance(tensor, Simulated)}
    if name in WAITING:
        _wait(name)
    elif name.startswith(("index", "_index_put")) and any(
        t.dtype == torch.bool for t in tree_leaves(args[1:2]) if t is not None and isinstance(t, torch.Tensor)
    ):
        _wait(f"{name} by a mask")
    if name == "_to_copy":
        return _copied(func, args[0], kwargs)
    if name == "copy_":
        if len({isinstance(tensor, Simulated) for tensor in args[:2]}) > 1 and not (len(args) > 2 and args[2]):
            _wait("copy")
    elif held and any(not isinstance(tensor, Simulated) and tensor.dim() for tensor in tensors):
        _wait(f"{name} of two devices")
    args, kwargs = tree_map(lambda leaf: leaf.value if isinstance(leaf, Simulated) else leaf, (args, kwargs))
    if _there(kwargs.get("device")):
        kwargs = {**kwargs, "device": "cpu"}
    found = func(*args, **kwargs)

    def on_device(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return held[id(leaf)] if id(leaf) in held else Simulated(leaf)

    return tree_map(on_device, found)


def _copied(func: Any, tensor: torch.Tensor, kwargs: dict) -> torch.Tensor:
    here = isinstance(tensor, Simulated)
    target = _there(kwargs["device"]) if kwargs.get("device") is not None else here
    if here != target and not kwargs.get("non_blocking"):
        _wait("copy")
    value = tensor.value if isinstance(tensor, Simulated) else tensor
    made = func(value, **{key: setting for key, setting in kwargs.items() if key not in ("device", "non_blocking")})
    return Simulated(made) if target else made


_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda func, *args, **kwargs: _computed(func, args, kwargs), "PrivateUse1")

# What PyTorch cannot do with such a device by itself.
_tensor, _as_tensor, _tolist = torch.tensor, torch.as_tensor, torch.Tensor.tolist


def _made(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> torch.Tensor:
    if not _there(device):
        return _tensor(data, dtype=dtype, device=device, requires_grad=requires_grad)
    return _tensor(data, dtype=dtype).to(device).requires_grad_(requires_grad)


def _made_as(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
    if isinstance(data, torch.Tensor):
        return data.to(device=device or data.device, dtype=dtype or data.dtype)
    return _made(data, dtype=dtype, device=device) if _there(device) else _as_tensor(data, dtype=dtype, device=device)


torch.tensor = _made  # type: ignore[assignment]
torch.as_tensor = _made_as
torch.Tensor.new_tensor = lambda tensor, data, dtype=None, device=None, **_: _made(
    data, dtype=dtype or tensor.dtype, device=device or tensor.device
)
torch.Tensor.tolist = lambda tensor: _tolist(tensor.cpu() if isinstance(tensor, Simulated) else tensor)
