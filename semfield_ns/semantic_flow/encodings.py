"""What a field looks a point up in: frequencies (the paper), feature planes, or a hash grid."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.field_components.encodings import HashEncoding, KPlanesEncoding, NeRFEncoding
from torch import Tensor, nn

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
        self.levels = nn.ModuleList(
            KPlanesEncoding([resolution] * 3 + [frames] * (in_dim - 3), num_components=config.channels)
            for resolution in config.resolutions
        )
        self.out_dim = config.channels * len(config.resolutions)

    def forward(self, coordinates: Float[Tensor, "points axes"]) -> Float[Tensor, "points dim"]:
        """Encodes coordinates in [-1, 1]."""
        return torch.cat([planes_at(level, coordinates) for level in self.levels], dim=-1)

    def variation(self) -> Float[Tensor, ""]:
        """Mean squared difference of neighbouring cells, summed over planes: roughness that no ray constrains."""
        planes = list(self.levels.parameters())
        total = torch.zeros((), device=planes[0].device)
        for plane in planes:
            total = total + plane.diff(dim=-1).square().mean() + plane.diff(dim=-2).square().mean()
        return total


def planes_at(level: nn.Module, coordinates: Float[Tensor, "points axes"]) -> Float[Tensor, "points dim"]:
    """The product of all planes of a level at each point: what `level(coordinates)` gives, in fewer kernels.

    Planes of one size are looked up together, and no list of axes is copied to the device.
    """
    assert isinstance(level, KPlanesEncoding), "what `PlanesEncoding` is made of"
    sizes = [tuple(plane.shape) for plane in level.plane_coefs]
    product = coordinates.new_ones(())
    for size in dict.fromkeys(sizes):
        same = [number for number, other in enumerate(sizes) if other == size]
        planes = torch.stack([level.plane_coefs[number] for number in same])
        pairs = [[coordinates[:, axis] for axis in level.coo_combs[number]] for number in same]
        places = torch.stack([torch.stack(pair, dim=-1) for pair in pairs])[:, None]
        found = F.grid_sample(planes, places, align_corners=True, padding_mode="border")
        for plane in found[:, :, 0].unbind():  # `prod` has a slow gradient
            product = product * plane.T
    return product


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
        return self.encoding(((coordinates + 1) / 2).clamp(0, 1)).float()


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
