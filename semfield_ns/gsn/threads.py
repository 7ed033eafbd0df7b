"""Independent pieces of work on the cores of a CPU, each piece on one core.

The products of a few rays are too small to be shared among cores; whole chunks of rays are not.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_cores(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results of all items in their order, without gradients; as many at once as PyTorch has threads.

    Autocast is in the threads what it is here. When it is interrupted, what has not begun is dropped.
    """
    count = torch.get_num_threads()
    if count == 1 or len(items) < 2:
        return [work(item) for item in items]
    half, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def alone(item: Item) -> Result:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=half):
            return work(item)

    futures = [_pool(count).submit(alone, item) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Threads whose own products stay on one core."""
    pool, started = ThreadPoolExecutor(count, thread_name_prefix="gsn-render"), Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    for _ in range(count):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(count)  # the number is a thread's own, but also what threads to come begin with
    return pool
