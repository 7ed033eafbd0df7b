"""PSNR, SSIM and, where its weights are at hand, LPIPS of one image."""

import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.compat import lazy_lpips


def image_quality(
    rendered: Float[Tensor, "height width 3"], truth: Float[Tensor, "height width 3"]
) -> dict[str, float]:
    """Image metrics, both images in [0, 1].

    Returns:
        "psnr" in dB, "ssim", and "lpips" unless its weights cannot be had.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    error = (rendered - truth).square().mean().clamp(min=1e-10)
    first, second = (image.permute(2, 0, 1)[None] for image in (rendered, truth))
    similarity = structural_similarity_index_measure(first, second, data_range=1.0)
    assert isinstance(similarity, Tensor), "a tuple comes only where the whole map is asked for"
    result = {
        "psnr": float(-10 * torch.log10(error)),
        "ssim": float(similarity),
    }
    lpips = lazy_lpips(str(rendered.device))
    if lpips is not None:
        result["lpips"] = float(lpips(first, second))
    return result
