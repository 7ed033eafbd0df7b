"""The fast network against vectors of the official code and against a plain implementation."""

import pytest
import torch
import torch.nn.functional as F

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.checkpoints import import_official
from semfield_ns.gsn.encoder import ImageEncoder
from semfield_ns.gsn.network import OFFICIAL, GSNNetwork, NetworkConfig
from semfield_ns.gsn.projection import SourceViews, project, ray_difference, tabled
from semfield_ns.gsn.rendering import render_chunks
from semfield_ns.gsn.sampling import inverse_depths
from semfield_ns.gsn.transformers import (
    FoldedViewAttention,
    ViewAttention,
    attend_views,
    fold_view_attention,
    mix_views,
)
from semfield_ns.scene_model import finished
from tests.gsn.scenes import FLIP, random_rays, random_views, reference_of, reference_render


def official_camera(values):
    intrinsics, pose = values[..., 2:18].unflatten(-1, (4, 4)), values[..., 18:].unflatten(-1, (4, 4))
    return intrinsics, pose


def test_official_numbers_come_out(official_file, parity):
    data = {name: torch.as_tensor(value) for name, value in parity.items()}
    network = import_official(official_file, "gsn")
    intrinsics, pose = official_camera(data["source_cameras"])
    target_intrinsics, target_pose = official_camera(data["target_camera"])
    views = SourceViews(
        images=data["src_rgb"].permute(0, 3, 1, 2),
        camera_to_world=(pose @ FLIP)[:, :3],
        intrinsics=torch.stack([intrinsics[:, i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))], dim=-1),
        tokens=(F.normalize(data["tokens"], dim=1),),
    )
    pixels = torch.cat([data["uv"].float(), torch.ones(len(data["uv"]), 1)], dim=-1)
    directions = pixels @ torch.linalg.inv(target_intrinsics[:3, :3]).T @ target_pose[:3, :3].T
    near, far = (torch.full((len(pixels), 1), float(data[name])) for name in ("near", "far"))
    depths = inverse_depths(near, far, int(data["n_samples"]))
    with torch.no_grad():
        views = network.encode(views)
        outputs = network.render(target_pose[:3, 3].expand(len(pixels), 3), directions, depths, views)
    assert (views.maps - data["featmaps"]).abs().max() < 1e-4
    assert (outputs["rgb"] - data["rgb"]).abs().max() < 1e-4
    assert (outputs["features"] - data["features"]).abs().max() < 1e-4


CASES = {
    "official": ({}, {}),
    "one view": ({}, {"views": 1}),
    "a view that looks backwards": ({}, {"behind": 1}),
    "no valid view": ({}, {"views": 3, "behind": 3}),
    "most rays leave the pictures": ({}, {"spread": 1.5}),
    "masked pooling": ({"masked_pooling": True}, {"behind": 2, "spread": 0.9}),
    "odd sizes": ({"dim": 32, "blocks": 3, "feature_dim": 16, "image_dim": 8}, {"height": 37, "width": 53, "rays": 7}),
    "GNT": ({"direction": "trunk", "blocks": 5, "feature_dim": 0}, {}),
    "one sample": ({}, {"samples": 1}),
}


def make_case(network_changes, scene_changes):
    torch.manual_seed(0)
    values = {**OFFICIAL, "encoder_width": 8, "encoder_blocks": (1, 1, 1), **network_changes}
    network = GSNNetwork(NetworkConfig(**values)).eval()
    scene = {"views": 5, "height": 48, "width": 64, "rays": 40, "samples": 12, "behind": 0, "spread": 0.4}
    scene |= scene_changes
    views = random_views(
        scene["views"], scene["height"], scene["width"], values.get("feature_dim", 64) or 4, behind=scene["behind"]
    )
    with torch.no_grad():
        views = network.encode(views)
    return network, views, random_rays(scene["rays"], scene["samples"], spread=scene["spread"])


@pytest.mark.parametrize("name", CASES)
def test_fast_and_plain_agree(name):
    network, views, rays = make_case(*CASES[name])
    trunk, head = reference_of(network)
    enlarged = F.interpolate(views.tokens[0], size=views.images.shape[-2:], mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = reference_render(trunk, head, *rays, views, enlarged)
        found = network.render(*rays, views)
    with_gradients = network.render(*rays, views)
    assert ("features" in expected) == (network.dino is not None)
    for key, value in expected.items():
        assert (found[key] - value).abs().max() < 1e-4, key
        assert (with_gradients[key] - value).abs().max() < 1e-4, key
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = network.render(*rays, views)
    for key in set(expected) & {"rgb", "features"}:
        assert (half[key] - expected[key]).norm() < 2e-2 * expected[key].norm(), key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hidden_views_are_masked_in_half_precision(dtype):
    torch.manual_seed(0)
    folded = fold_view_attention(ViewAttention(16), torch.randn(16, 5), torch.randn(16))
    query, codes = torch.randn(3, 2), torch.randn(4, 3, 7)
    visible = torch.ones(4, 3, 1)
    visible[:, 0], visible[1:, 1] = 0, 0  # no view sees the first sample, one the second
    with torch.no_grad():
        expected = attend_views(query, codes, visible, folded, mix_views)
        half = FoldedViewAttention(*(matrix.to(dtype) for matrix in folded))
        found = attend_views(query.to(dtype), codes.to(dtype), visible.to(dtype), half, mix_views)
    assert torch.allclose(found.float(), expected, atol=0.05)


def test_autocast_leaves_projections_alone():
    views = random_views(3, 48, 64)
    origins, directions, depths = random_rays(20, 8)
    points = (origins[:, None] + directions[:, None] * depths[..., None]).reshape(-1, 3)
    expected = project(points, views)
    with torch.autocast("cpu", torch.bfloat16):
        found = project(points, views)
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", ["official", "no valid view", "GNT"])
def test_gradients_agree(name):
    network, views, rays = make_case(*CASES[name])
    trunk, head = reference_of(network)
    enlarged = F.interpolate(views.tokens[0], size=views.images.shape[-2:], mode="bilinear", align_corners=False)

    def loss(outputs):
        return sum((outputs[key] * torch.arange(outputs[key].shape[-1])).square().mean() for key in ("rgb", "depth"))

    loss(reference_render(trunk, head, *rays, views, enlarged)).backward()
    loss(network.render(*rays, views)).backward()
    fast = dict(network.net_coarse.named_parameters())
    for key, parameter in trunk.named_parameters():
        expected = parameter.grad if parameter.grad is not None else torch.zeros(())
        given = fast[key].grad if fast[key].grad is not None else torch.zeros(())
        assert (given - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-5, key


def test_the_head_can_be_independent_of_the_view():
    points = torch.randn(50, 3) - torch.tensor([0.0, 0.0, 4.0])
    centres = torch.randn(3, 3)
    free = ray_difference(points, None, centres)
    assert free.shape == (3, 50, 4)
    assert torch.equal(free[..., 3], torch.zeros(3, 50))
    seen = ray_difference(points, torch.zeros(50, 3), centres)
    assert not torch.allclose(free, seen)


def test_the_token_grid_is_nearly_the_enlarged_map():
    network, views, rays = make_case({}, {})
    with torch.no_grad():
        enlarged = network.render(*rays, views)["features"]
        network.config.tokens_through_image = False
        grid = network.render(*rays, views)["features"]
    assert F.cosine_similarity(enlarged, grid, dim=-1).min() > 0.99


def test_weights_are_shares_and_depths_lie_between_the_planes():
    network, views, rays = make_case({}, {})
    with torch.no_grad():
        outputs = network.render(*rays, views)
    assert torch.allclose(outputs["weights"].sum(dim=-1), torch.ones(40), atol=1e-5)
    assert (outputs["depth"] >= 1.2 - 1e-4).all() and (outputs["depth"] <= 6.0 + 1e-4).all()


def test_samples_are_uniform_in_inverse_depth():
    near, far = torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [8.0]])
    depths = inverse_depths(near, far, 7)
    steps = (1 / depths).diff(dim=-1)
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), atol=1e-6)
    assert torch.allclose(depths[:, 0], near[:, 0]) and torch.allclose(depths[:, -1], far[:, 0])
    jittered = inverse_depths(near, far, 7, jitter=True)
    assert (jittered.diff(dim=-1) > 0).all() and (jittered >= near).all() and (jittered <= far).all()


def test_pictures_too_small_for_the_encoder_are_one_sentence():
    encoder = ImageEncoder(out_dim=4, width=4, blocks=(1, 1, 1))
    assert encoder(torch.rand(1, 3, 17, 20)).isfinite().all()
    with pytest.raises(SemfieldError, match="20x16 px is too small"):
        encoder(torch.rand(1, 3, 16, 20))


def test_pictures_are_the_same_on_any_number_of_cores():
    network, views, (origins, directions, depths) = make_case({}, {})
    views, found = tabled(views), []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            found.append(finished(render_chunks(network, origins, directions, depths, views, True, 7)))
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(threads)
    with torch.no_grad():
        expected = network.render(origins, directions, depths, views)
    assert found[0].keys() == found[1].keys() == {"rgb", "depth", "features"}
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], atol=1e-5), name
        assert torch.allclose(value, expected[name], atol=1e-4), name
