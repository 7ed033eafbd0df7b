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
