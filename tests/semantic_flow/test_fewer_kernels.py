"""What is computed in few kernels, beside Nerfstudio's plain computation of the same."""

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.encodings import HashEncoding, SHEncoding
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.model_components.ray_samplers import LinearDisparitySampler

from semfield_ns.rendering.rays import DisparitySampler, PinholeRays
from semfield_ns.semantic_flow.encodings import EncodingConfig, PlanesEncoding, hash_grid_at
from semfield_ns.semantic_flow.fields.branches import harmonics
from tests.semantic_flow.conftest import FRAMES, HEIGHT, WIDTH, make_cameras


def same_with_gradients(ours: torch.Tensor, theirs: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """Both, and the gradients of a weighted sum of them."""
    assert torch.allclose(ours, theirs, atol=1e-5)
    weights = torch.randn(ours.shape)
    for mine, given in zip(*(torch.autograd.grad((v * weights).sum(), inputs) for v in (ours, theirs)), strict=True):
        assert torch.allclose(mine, given, atol=1e-5 * float(given.abs().max()))


@pytest.mark.parametrize("axes", [3, 4])
def test_feature_planes(axes):
    encoding = PlanesEncoding(EncodingConfig(channels=5, resolutions=(8, 12)), axes, num_frames=7)
    for plane in encoding.parameters():
        torch.nn.init.normal_(plane)
    points = (2.2 * torch.rand(50, axes) - 1.1).requires_grad_()
    theirs = torch.cat([level(points) for level in encoding.levels], dim=-1)
    same_with_gradients(encoding(points), theirs, [points, *encoding.parameters()])
    with torch.no_grad():
        first = next(encoding.parameters())
        first += 1
    theirs = torch.cat([level(points) for level in encoding.levels], dim=-1)
    assert torch.allclose(encoding(points), theirs, atol=1e-5)  # what was stacked before is not used any more


def test_hash_grid():
    grid = HashEncoding(num_levels=5, min_res=4, max_res=64, log2_hashmap_size=9, implementation="torch")
    torch.nn.init.normal_(grid.hash_table)
    points = torch.rand(80, 3)
    points[:3] = torch.tensor([[0, 0, 0], [1, 1, 1], [0.5, 0.25, 0.75]])
    points.requires_grad_()
    same_with_gradients(hash_grid_at(grid, points), grid(points), [points, grid.hash_table])


def test_directions():
    directions = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    theirs = SHEncoding(levels=3, implementation="torch")(directions)
    assert torch.allclose(harmonics(directions), theirs, atol=1e-6)


def test_rays_of_pixels():
    cameras = make_cameras()
    cameras.fy = 1.2 * cameras.fy
    indices = torch.stack([torch.randint(size, (60,)) for size in (FRAMES, HEIGHT, WIDTH)], dim=-1)
    ours, theirs = PinholeRays(cameras)(indices), RayGenerator(cameras)(indices)
    for name in ("origins", "directions", "pixel_area", "camera_indices", "times"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-6), name
    assert torch.allclose(ours.metadata["directions_norm"], theirs.metadata["directions_norm"])


def test_samples_of_rays():
    ones = torch.ones(9, 1)
    bundle = RayBundle(torch.zeros(9, 3), torch.randn(9, 3), ones, nears=ones + torch.rand(9, 1), fars=20 * ones)
    torch.manual_seed(3)
    ours = DisparitySampler()(bundle, num_samples=6)
    torch.manual_seed(3)
    theirs = LinearDisparitySampler()(bundle, num_samples=6)
    assert torch.allclose(ours.frustums.starts, theirs.frustums.starts)
    assert torch.allclose(ours.frustums.ends, theirs.frustums.ends)
    assert torch.allclose(ours.spacing_ends, theirs.spacing_ends)
