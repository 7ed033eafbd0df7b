"""A cache that never holds more than it may."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

from torch import Tensor


class BoundedCache:
    """Keeps the tensors that were used last, up to a number of bytes. Threads may share it.

    Args:
        budget: bytes; a tensor that is larger by itself is not kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, made if it is not there (twice, if two threads want it at the same time)."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        size = value.numel() * value.element_size()
        with self._lock:
            if key not in self._kept and size <= self.budget:
                self._kept[key] = value
                self.used += size
                while self.used > self.budget:
                    _, old = self._kept.popitem(last=False)
                    self.used -= old.numel() * old.element_size()
        return value

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()
            self.used = 0
