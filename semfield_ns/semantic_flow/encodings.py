"""What a field looks a point up in: frequencies (the paper), feature planes, or a hash grid."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.field_components.encodings import HashEncoding, KPlanesEncoding, NeRFEncoding
from torch import Tensor, nn

from semfield_ns.rendering.constants import constant

Implementation = Literal["torch", "tcnn"]


@dataclass
class EncodingConfig:
    """How positions (and times) in the cube [-1, 1] are encoded."""

    kind: Literal["frequency", "planes", "hash", "none"] = "planes"
    """"frequency": the paper's gamma; "planes": feature planes over every pair of axes; "hash": a hash grid (static
    fields only); "none": nothing, where another feature already describes the point."""
    frequencies: int = 10
    """Octaves of "frequency"."""
    channels: int = 16
    """Channels of one level of "planes"."""
    resolutions: tuple[int, ...] = (64, 128)
    """Cells along each spatial axis of "planes", a level each; coarsest and finest of "hash"."""
    frames_per_cell: float = 1.0
    """Frames that one cell of a time plane covers; the time axis of "planes" follows the length of the video."""
    hash_size: int = 19
    """log2 of the entries of a level of "hash"."""
    hash_levels: int = 16
    """Levels of "hash"."""


class Encoding(nn.Module):
    """Coordinates in [-1, 1] to features."""

    out_dim: int
    """Channels of a feature."""


class FrequencyEncoding(Encoding):
    """gamma(x): the raw coordinates and sin, cos of them over octaves; 63 channels for 3-D and 84 for 4-D at 10."""

    def __init__(self, in_dim: int, frequencies: int) -> None:
        super().__init__()
        self.encoding = NeRFEncoding(
            in_dim, num_frequencies=frequencies, min_freq_exp=-2.0, max_freq_exp=frequencies - 3.0, include_input=True
        )
        self.out_dim = self.encoding.get_out_dim()

    def forward(self, coordinates: Float[Tensor, "points axes"]) -> Float[Tensor, "points dim"]:
        """Encodes coordinates in [-1, 1]; the lowest octave is half a period over the cube."""
        return self.encoding(coordinates)


class PlanesEncoding(Encoding):
    """Feature planes at several resolutions, concatenated (K-Planes); with a fourth axis for time in 4-D."""

    def __init__(self, config: EncodingConfig, in_dim: int, num_frames: int) -> None:
        super().__init__()
        frames = max(round(num_frames / config.frames_per_cell), 2)
        levels = [
            KPlanesEncoding([resolution] * 3 + [frames] * (in_dim - 3), num_components=config.channels)
            for resolution in config.resolutions
        ]
        self.levels = nn.ModuleList(levels)
        self.out_dim = config.channels * len(config.resolutions)
        # Those over pairs of spatial axes are of one size, and those over time and an axis.
        pairs = levels[0].coo_combs
        spatial = [number for number, pair in enumerate(pairs) if 3 not in pair]
        over_time = [number for number, pair in enumerate(pairs) if 3 in pair]
        self._alike = [numbers for numbers in (spatial, over_time) if numbers]
        self._axes = [tuple(axis for number in numbers for axis in pairs[number]) for numbers in self._alike]
        self._state: tuple | None = None
        self._stacks: list[list[Tensor]] = []

    def forward(self, coordinates: Float[Tensor, "points axes"]) -> Float[Tensor, "points dim"]:
        """Encodes coordinates in [-1, 1]."""
        return planes_at(self._stacked(), self._axes, coordinates).T

    def _stacked(self) -> list[list[Tensor]]:
        """Of each level, planes of one size stacked; made when a plane has changed."""
        inference = torch.is_inference_mode_enabled()
        state = (inference, *((p.data_ptr(), p._version, p.requires_grad) for p in self.parameters()))
        if state != self._state:
            coefficients: list[Any] = [level.plane_coefs for level in self.levels]
            # With gradients in any case: a training step looks planes up with and without, and makes them once.
            with torch.enable_grad():
                self._stacks = [[torch.stack([c[n] for n in numbers]) for numbers in self._alike] for c in coefficients]
            self._state = state
        return self._stacks

    def variation(self) -> Float[Tensor, ""]:
        """Mean squared difference of neighbouring cells, summed over planes: roughness that no ray constrains."""
        alike = [planes for level in self._stacked() for planes in level]
        return torch.stack(
            [len(p) * (p.diff(dim=-1).square().mean() + p.diff(dim=-2).square().mean()) for p in alike]
        ).sum()


def planes_at(
    levels: list[list[Float[Tensor, "_ dim _ _"]]],
    axes: list[tuple[int, ...]],
    coordinates: Float[Tensor, "points axes"],
) -> Float[Tensor, "channels points"]:
    """Of each level the product of all its planes at each point: what `KPlanesEncoding` gives, in fewer kernels.

    Args:
        levels: planes of each size, stacked.
        axes: of the planes of each size, two a plane.
        coordinates: in [-1, 1].
    """
    places = coordinates.index_select(1, constant(sum(axes, ()), coordinates, torch.long)).T.unflatten(0, (-1, 2))
    parts = places.transpose(1, 2)[:, None].split([len(part) // 2 for part in axes])
    found = [
        torch.cat([F.grid_sample(plane, place, align_corners=True, padding_mode="border") for plane in planes], dim=1)
        for planes, place in zip(zip(*levels, strict=True), parts, strict=True)
    ]
    return Product.apply(math.prod(found[1:], start=found[0]).squeeze(2))


class Product(torch.autograd.Function):
    """The product of three tensors that are stacked; `prod` and single products have slower gradients."""

    @staticmethod
    def forward(ctx: Any, values: Float[Tensor, "3 *shape"]) -> Float[Tensor, "*shape"]:
        """Without gradients."""
        ctx.save_for_backward(values)
        return values[0] * values[1] * values[2]

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "*shape"]) -> Float[Tensor, "3 *shape"]:
        """Of each: the product of the others."""
        (values,) = ctx.saved_tensors
        twice = torch.cat([values, values])
        return twice[1:4] * twice[2:5] * gradient


class HashGridEncoding(Encoding):
    """Nerfstudio's multi-resolution hash grid over the cube."""

    def __init__(self, config: EncodingConfig, implementation: Implementation) -> None:
        super().__init__()
        self.encoding = HashEncoding(
            num_levels=config.hash_levels,
            min_res=config.resolutions[0],
            max_res=config.resolutions[-1],
            log2_hashmap_size=config.hash_size,
            implementation=implementation,
        )
        self.out_dim = self.encoding.get_out_dim()

    def forward(self, coordinates: Float[Tensor, "points axes"]) -> Float[Tensor, "points dim"]:
        """Encodes coordinates in [-1, 1]."""
        unit = ((coordinates + 1) / 2).clamp(0, 1)
        if self.encoding.tcnn_encoding is not None:
            return self.encoding(unit).float()
        return hash_grid_at(self.encoding, unit)


HASH_PRIMES = (1, 2654435761, 805459861)


def hash_grid_at(grid: HashEncoding, unit: Float[Tensor, "points 3"]) -> Float[Tensor, "points dim"]:
    """What `grid(unit)` gives in plain torch, for coordinates in [0, 1]: all corners of a cell at once.

    Nothing is copied to the device, and a gradient is added up where the entries are.
    """
    scalings = constant(tuple(grid.scalings.tolist()), unit)
    offsets = constant(tuple(grid.hash_offset.tolist()), unit, torch.long)
    scaled = unit[:, :, None] * scalings  # [points, 3, levels]
    below = scaled.floor()
    # As in Nerfstudio, a coordinate on a whole number has no other side.
    sides = torch.stack([below, scaled.ceil()], dim=-1).long() * constant(HASH_PRIMES, unit, torch.long)[:, None, None]
    x, y, z = sides.unbind(dim=1)  # [points, levels, 2]
    hashed = (x[..., :, None, None] ^ y[..., None, :, None] ^ z[..., None, None, :]) & (grid.hash_table_size - 1)
    entries = (hashed + offsets[:, None, None, None]).flatten()
    found = grid.hash_table.index_select(0, entries).reshape(*hashed.shape, -1)  # [points, levels, 2, 2, 2, channels]
    for fraction in (scaled - below).unbind(dim=1):
        low, high = found.unbind(dim=2)
        found = torch.lerp(low, high, fraction.reshape(*fraction.shape, *(1,) * (low.dim() - 2)))
    return found.flatten(start_dim=1)


def build_encoding(
    config: EncodingConfig, in_dim: int, num_frames: int = 1, implementation: Implementation = "torch"
) -> Encoding | None:
    """The encoding of a config; None for "none".

    Args:
        config: what to build.
        in_dim: 3 for positions, 4 for positions and time.
        num_frames: length of the video, for the time axis of planes.
        implementation: backend of the hash grid.

    Raises:
        ValueError: a hash grid over time.
    """
    match config.kind:
        case "frequency":
            return FrequencyEncoding(in_dim, config.frequencies)
        case "planes":
            return PlanesEncoding(config, in_dim, num_frames)
        case "hash":
            if in_dim != 3:
                raise ValueError("A hash grid encodes positions only; use 'planes' for fields that see the time.")
            return HashGridEncoding(config, implementation)
        case "none":
            return None


def require_encoding(
    config: EncodingConfig, in_dim: int, num_frames: int = 1, implementation: Implementation = "torch"
) -> Encoding:
    """`build_encoding` for a field to which nothing else describes the point.

    Raises:
        ValueError: the kind is "none", or a hash grid over time.
    """
    encoding = build_encoding(config, in_dim, num_frames, implementation)
    if encoding is None:
        raise ValueError("Only the dynamic field can do without an encoding ('none').")
    return encoding
