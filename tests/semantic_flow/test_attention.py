"""Flow attention against torch's own multi-head attention."""

import pytest
import torch
from torch import nn

from semfield_ns.semantic_flow.flow_attention.attention import FlowAttention, attend_by_products


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("tokens", [1, 3, 12])
def test_it_is_multi_head_attention_with_a_residual(tokens: int, device: str):
    torch.manual_seed(0)
    ours = FlowAttention(feature_dim=5, dim=16, heads=4, num_tokens=tokens).to(device)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).to(device)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.project.weight.data, ours.project.bias.data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    shapes = ((5,), (1,), (3,), (1,))
    features, visible, moved, durations = (torch.randn(7, tokens, *shape, device=device) for shape in shapes)
    embedded = ours.embed(
        torch.cat([features * visible, visible, ours.displacement_encoding(torch.cat([moved, durations], -1))], dim=-1)
    )
    attended, _ = theirs(embedded, embedded, embedded, need_weights=False)
    expected = ours.norm(embedded + attended).flatten(start_dim=-2)
    torch.testing.assert_close(ours(features, visible, moved, durations), expected, atol=1e-5, rtol=1e-5)


def test_matrix_products_are_attention():
    torch.manual_seed(0)
    query, key, value = (torch.randn(7, 5, 2, 8, dtype=torch.float64) for _ in range(3))
    heads_first = [part.transpose(1, 2) for part in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)
    torch.testing.assert_close(attend_by_products(query, key, value), expected)
