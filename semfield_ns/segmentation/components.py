"""Connected parts of masks."""

import torch
from jaxtyping import Bool
from torch import Tensor


def supported_parts(
    mask: Bool[Tensor, "H W"], support: Bool[Tensor, "H W"], min_pixels: int = 1
) -> Bool[Tensor, "H W"]:
    """The 8-connected parts of a mask that touch some support, without those of fewer pixels.

    Where nothing is supported at all, every part that is large enough is kept.
    """
    import numpy as np
    from scipy.ndimage import label

    parts, count = label(mask.cpu().numpy(), structure=np.ones((3, 3)))
    if count == 0:
        return mask
    size = np.bincount(parts.ravel(), minlength=count + 1)
    kept = size >= min_pixels
    touched = np.bincount(parts[support.cpu().numpy()], minlength=count + 1) > 0
    touched[0] = kept[0] = False
    if touched.any():
        kept &= touched
    return torch.from_numpy(kept[parts]).to(mask.device)


def without_holes(mask: Bool[Tensor, "H W"], most_pixels: int) -> Bool[Tensor, "H W"]:
    """The mask with its holes of at most so many pixels closed; what reaches the border of the picture is no hole."""
    import numpy as np
    from scipy.ndimage import label

    gaps, _ = label(~mask.cpu().numpy())
    size = np.bincount(gaps.ravel())
    closed = size <= most_pixels
    closed[np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))] = False
    closed[0] = True
    return torch.from_numpy(closed[gaps]).to(mask.device)
