"""Outputs that are made when they are asked for: to make them all takes longer than to make the one that is shown."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping

import torch
from torch import Tensor


class LazyOutputs(MutableMapping[str, Tensor]):
    """A mapping of outputs [H, W, channels], each made at its first use and kept.

    Args:
        makers: of each output.
        size: bytes, about, of everything once it is made.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]], size: int = 0) -> None:
        self.size = size
        self._makers = dict(makers)
        self._made: dict[str, Tensor] = {}

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._makers[name] = lambda: value
        self._made.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self._makers[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __or__(self, other: Mapping[str, Tensor]) -> "LazyOutputs":
        """Both, the other's where both have an output; what is not made yet is made later."""
        result = LazyOutputs(self._makers, self.size)
        result._made = dict(self._made)
        for name, value in other.items():
            result[name] = value
        return result


def size_of(outputs: Mapping[str, Tensor]) -> int:
    """Bytes of outputs; what is not made yet is counted too, and not made."""
    if isinstance(outputs, LazyOutputs):
        return outputs.size
    return sum(value.numel() * value.element_size() for value in outputs.values())
