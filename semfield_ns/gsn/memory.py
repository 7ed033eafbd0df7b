"""A cache that never holds more than it may."""

from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock

from cachetools import LRUCache
from torch import Tensor


class BoundedCache:
    """Keeps the tensors that were used last, up to a number of bytes. Threads may share it.

    Args:
        budget: bytes; a tensor that is larger by itself is not kept.
    """

    def __init__(self, budget: int) -> None:
        self._kept: LRUCache[Hashable, Tensor] = LRUCache(budget, lambda value: value.numel() * value.element_size())
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def used(self) -> int:
        """Bytes."""
        return int(self._kept.currsize)

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, made if it is not there (twice, if two threads want it at the same time)."""
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        value = make()
        with self._lock, suppress(ValueError):  # too large
            self._kept.setdefault(key, value)
        return value

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()
