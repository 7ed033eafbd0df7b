"""Superpixels of a view and which of them touch: a thousand nodes instead of two hundred thousand pixels."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_REGIONS = 1000
PIXELS_A_REGION = 36
SAMPLES = 4
"""pixels of a region that are looked up in other views"""


@dataclass(frozen=True, eq=False)
class Regions:
    """Superpixels, on the device of the view."""

    labels: Int[Tensor, "H W"]
    """region of each pixel, 0 to R - 1"""
    size: Float[Tensor, "R"]
    """pixels"""
    samples: Int[Tensor, "R S"]
    """flat indices of some of the pixels of each region"""
    edges: Int[Tensor, "E 2"]
    """pairs of regions that touch, the smaller number first"""
    border: Float[Tensor, "E"]
    """how many neighbouring pixels each pair shares"""

    def mean(self, values: Float[Tensor, "H W C"]) -> Float[Tensor, "R C"]:
        """Means over the pixels of each region."""
        total = values.new_zeros(len(self.size), values.shape[-1])
        total.index_add_(0, self.labels.flatten(), values.flatten(0, 1))
        return total / self.size[:, None]

    def count(self, mask: Tensor) -> Float[Tensor, "R"]:
        """How many pixels of a mask [H, W] each region has."""
        return torch.bincount(self.labels[mask], minlength=len(self.size)).float()


def find_regions(rgb: Float[Tensor, "H W 3"]) -> Regions:
    """SLIC superpixels of a picture with values in [0, 1]. Deterministic; runs on the CPU, wherever the picture is."""
    from skimage.segmentation import slic

    height, width = rgb.shape[:2]
    wanted = int(np.clip(height * width / PIXELS_A_REGION, 4, MAX_REGIONS))
    image = rgb.detach().clamp(0, 1).cpu().numpy().astype(np.float32)
    found = slic(image, n_segments=wanted, compactness=10.0, max_num_iter=5, start_label=0, channel_axis=-1)
    return regions_of(torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(height, width)).to(rgb.device))


def regions_of(labels: Int[Tensor, "H W"]) -> Regions:
    """Sizes, samples and neighbours of a partition into regions 0 to R - 1, none of them empty."""
    flat = labels.flatten()
    size = torch.bincount(flat)
    order = flat.argsort(stable=True)
    start = size.cumsum(dim=0) - size
    share = (torch.arange(SAMPLES, device=flat.device) + 0.5) / SAMPLES
    samples = order[start[:, None] + (size[:, None] * share).long()]
    count = len(size)
    across = torch.stack([labels[:, :-1].flatten(), labels[:, 1:].flatten()])
    down = torch.stack([labels[:-1].flatten(), labels[1:].flatten()])
    pairs = torch.cat([across, down], dim=1)
    pairs = pairs[:, pairs[0] != pairs[1]].sort(dim=0).values
    keys, border = torch.unique(pairs[0] * count + pairs[1], return_counts=True)
    edges = torch.stack([keys // count, keys % count], dim=1)
    return Regions(labels, size.float(), samples, edges, border.float())
