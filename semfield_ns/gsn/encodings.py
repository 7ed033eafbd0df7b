"""Positions and directions as sines and cosines (the gamma of NeRF)."""

import torch
from jaxtyping import Float
from torch import Tensor

OCTAVES = 10
ENCODED_DIM = 3 + 2 * 3 * OCTAVES


def frequency_encoding(x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 63"]:
    """X itself, then sin(2^k x) and cos(2^k x) for k = 0 .. 9, without a factor pi; float32.

    Half precision would lose the high octaves, whatever precision the network has.
    """
    x = x.float()
    octaves = x[..., None, :] * (2.0 ** torch.arange(OCTAVES, device=x.device, dtype=x.dtype))[:, None]
    waves = torch.stack([octaves.sin(), octaves.cos()], dim=-2)
    return torch.cat([x, waves.flatten(-3)], dim=-1)
