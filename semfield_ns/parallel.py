"""Several processes that train one model, each on a GPU of its own: what they have in common, and who does what.

They are those of torch.distributed, which Nerfstudio starts. A process that is alone shares with nobody.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


def together() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank(alone: int = 0) -> int:
    """The number of this process among all, on all machines.

    Args:
        alone: the number, where there is no other process.
    """
    return dist.get_rank() if together() else alone


def share(items: list[Value]) -> list[Value]:
    """Those of the items that are for this process; each is for one."""
    return items[dist.get_rank() :: dist.get_world_size()] if together() else items


def summed(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum over processes, the same bit for bit in all of them."""
    if together():
        dist.all_reduce(values)
    return values


def of_first(make: Callable[[], Value], device: torch.device | str) -> Value:
    """What the first process makes, in all processes; the others wait for it.

    Args:
        make: called in the first process only.
        device: that this process trains on: on GPUs, nothing else can be sent.
    """
    if not together():
        return make()
    found = [make() if rank() == 0 else None]
    dist.broadcast_object_list(found, src=0, device=torch.device(device))
    return found[0]  # type: ignore[return-value]


@contextmanager
def first_before_others(device: torch.device | str) -> Iterator[None]:
    """A block that the first process has left before the others enter it: these find in caches what it has written."""
    if rank() > 0:
        of_first(lambda: None, device)
    yield
    if rank() == 0:
        of_first(lambda: None, device)


def averaging(model: nn.Module) -> DistributedDataParallel:
    """The model, beginning as it is in the first process, with gradients that are means over the processes."""
    with warnings.catch_warnings():
        # torch 2.15 has another name for the last argument, which those before it do not know.
        warnings.simplefilter("ignore", FutureWarning)
        # Each process works its buffers out: they need not be sent in every step.
        return DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
