"""Figures of merit of one image: PSNR, SSIM, LPIPS where its weights are at hand, and the error of optical flow."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.compat.lpips import lazy_lpips


def psnr(pred: Float[Tensor, "*batch"], truth: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio, dB, of values in [0, 1]; infinite where both are the same."""
    return -10 * torch.log10((pred - truth).square().mean())


def image_quality(
    rendered: Float[Tensor, "height width 3"], truth: Float[Tensor, "height width 3"]
) -> dict[str, float]:
    """Image metrics, both images in [0, 1].

    Returns:
        "psnr" in dB, at most 100, "ssim", and "lpips" if its weights are available.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second = (image.permute(2, 0, 1)[None] for image in (rendered, truth))
    similarity = structural_similarity_index_measure(first, second, data_range=1.0)
    assert isinstance(similarity, Tensor), "a tuple comes only where the whole map is asked for"
    result = {"psnr": float(psnr(rendered, truth).clamp(max=100)), "ssim": float(similarity)}
    lpips = lazy_lpips(str(rendered.device))
    if lpips is not None:
        result["lpips"] = float(lpips(first, second))
    return result


def end_point_error(
    pred: Float[Tensor, "*batch 2"], truth: Float[Tensor, "*batch 2"], valid: Bool[Tensor, "*batch"] | None = None
) -> float:
    """Mean length, in pixels, of the difference of two flows where `valid`; NaN if that is nowhere."""
    lengths = (pred - truth).norm(dim=-1)
    return float((lengths if valid is None else lengths[valid]).mean())
