"""Rendering weights in half precision."""

import pytest
import torch

from semfield_ns.semantic_flow.fields.blending import alpha, exclusive_product, single_weights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_opaque_samples_stay_numbers_in_half_precision(dtype):
    factors = torch.tensor([1.0, 0.5, 0.0, 0.5])[:, None]
    found = exclusive_product(factors.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), torch.tensor([1.0, 1.0, 0.5, 0.0])[:, None], atol=1e-3)
    density = torch.tensor([0.0, torch.inf, torch.inf])[:, None]
    opacity = alpha(density.to(dtype), torch.tensor([0.1, 0.1, 0.0])[:, None].to(dtype))
    assert single_weights(opacity)[:, 0].tolist() == [0, 1, 0]
