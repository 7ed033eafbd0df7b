"""Structural similarity as a loss, beside the implementation that splatfacto uses."""

import pytest
import torch
from pytorch_msssim import ssim

from semfield_ns.semantic_flow_splat.similarity import similarity_loss, windowed


def pictures(height: int, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height * width)
    truth = torch.rand(height, width, 3, generator=generator, dtype=dtype)
    noise = 0.2 * torch.randn(height, width, 3, generator=generator, dtype=dtype)
    return (truth + noise).requires_grad_(), truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("size", [(11, 11), (12, 40), (37, 23)])
def test_value_and_gradient_are_the_usual_ones(size, dtype):
    rgb, truth = pictures(*size, dtype)
    found = similarity_loss(rgb, truth)
    wanted = 1 - ssim(*(image.permute(2, 0, 1)[None] for image in (rgb, truth)), data_range=1.0)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(value, rgb)[0] for value in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5 * float(gradients[1].abs().max()))


def test_equal_pictures_lose_nothing_and_small_ones_neither():
    rgb, truth = pictures(20, 20, torch.float32)
    assert float(similarity_loss(truth, truth)) == pytest.approx(0, abs=1e-6)
    loss = similarity_loss(rgb[:10], truth[:10])
    assert float(loss) == 0
    loss.backward()
    assert rgb.grad is not None and not rgb.grad.any()


def test_windows_are_the_same_on_every_path():
    values = pictures(30, 25, torch.float32)[0].detach()
    torch.testing.assert_close(windowed(values), windowed(values.double()).float(), rtol=1e-5, atol=1e-6)
