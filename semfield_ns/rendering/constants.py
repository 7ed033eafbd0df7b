"""Small constant tensors on a device, made once: a copy to a GPU for each use would make the host wait each time."""

from functools import lru_cache

import torch
from jaxtyping import Shaped
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor, dtype: torch.dtype | None = None) -> Shaped[Tensor, "values"]:
    """The values as a tensor on the device, and if not said of the type, of another one; shared: not to be changed."""
    return _made(tuple(float(value) for value in values), dtype or like.dtype, like.device)


@lru_cache(maxsize=4096)
def _made(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # so that gradients may pass it later
        return torch.tensor(values, dtype=dtype, device=device)
