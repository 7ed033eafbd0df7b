"""LPIPS of torchmetrics, without a wait for a network that is not there."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("semfield")

DOWNLOAD_TIMEOUT_SECONDS = 10.0
ImageMetric = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


@cache
def lazy_lpips(device: str = "cpu") -> ImageMetric | None:
    """The LPIPS metric, built at the first call, or None (said once in the log) where its weights are not available.

    Args:
        device: where to compute it.

    Returns:
        A function of two image batches [B, 3, H, W] in [0, 1] that gives a scalar. It is a plain function, so a model
        may keep it without LPIPS getting into its parameters and checkpoints.
    """
    import torch
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            metric = LearnedPerceptualImagePatchSimilarity(normalize=True).to(device)
    # OSError: no network, a full disk; RuntimeError: a damaged download.
    except (OSError, RuntimeError) as error:
        logger.warning("LPIPS is left out: its AlexNet weights are not cached and cannot be downloaded (%s).", error)
        return None
    metric.eval()

    def lpips(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return metric(prediction.to(device).clamp(0.0, 1.0), truth.to(device).clamp(0.0, 1.0))

    return lpips


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """New connections give up after so many seconds: torch.hub downloads without a limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
