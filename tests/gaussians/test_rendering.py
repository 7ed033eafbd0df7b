"""The CPU's kernels against plain torch in float64: values, and gradients of every input."""

from dataclasses import replace

import pytest
import torch

from semfield_ns.gaussians.projection import project
from semfield_ns.gaussians.rasterize import Rendering, rasterize, render, uplift
from semfield_ns.gaussians.values import Gaussians
from tests.gaussians import reference
from tests.gaussians.scenes import HEIGHT, INTRINSICS, NAMES, WIDTH, gaussians, leaves, pose


def noise(*shape: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(channels, accumulation, depth) -> torch.Tensor:
    given = [noise(*tensor.shape, seed=seed).to(tensor) for seed, tensor in enumerate((channels, accumulation, depth))]
    return (channels * given[0]).sum() + (accumulation * given[1]).sum() + (depth * given[2]).sum()


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    scale = max(float(expected.detach().abs().max()), 1e-6) if expected.numel() else 1.0
    difference = float((found.detach().double() - expected.detach()).abs().max()) if expected.numel() else 0.0
    assert difference <= tolerance * scale, f"{difference} of {scale}"


def compare(
    scene: Gaussians,
    width: int = WIDTH,
    height: int = HEIGHT,
    intrinsics=INTRINSICS,
    background: bool = True,
    tolerance=1e-4,
) -> Rendering:
    """Asserts that both give the same, and the same gradients; `scene` is float64 leaves."""
    single = leaves(scene, torch.float32)
    behind = noise(scene.channels.shape[1], seed=5).requires_grad_() if background else None
    single_behind = behind.detach().float().requires_grad_() if behind is not None else None
    found = render(
        single,
        pose(),
        intrinsics,
        width,
        height,
        background=single_behind,
        depth=True,
        median_depth=True,
        index=True,
    )
    expected = reference.render(scene, pose(), intrinsics, width, height, behind)
    channels, accumulation, depth, median, index, _ = expected
    assert found.depth is not None and found.median_depth is not None and found.index is not None
    for ours, theirs in (
        (found.channels, channels),
        (found.accumulation, accumulation),
        (found.depth, depth),
        (found.median_depth, median),
    ):
        assert_close(ours, theirs, tolerance)
    assert (found.index != index).float().mean() < 1e-3
    loss(found.channels, found.accumulation, found.depth).backward()
    loss(channels, accumulation, depth).backward()
    for name in NAMES:
        assert_close(getattr(single, name).grad, getattr(scene, name).grad, tolerance)
    if behind is not None and single_behind is not None:
        assert_close(single_behind.grad, behind.grad)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_random_scenes(seed: int):
    found = compare(gaussians(seed=seed, size=(0.02, 0.1, 0.2, 0.4)[seed]))
    assert found.accumulation.mean() > 0.05


@pytest.mark.parametrize("size", [(1, 1), (17, 13), (16, 16), (33, 2), (3, 40)])
def test_odd_sizes(size: tuple[int, int]):
    compare(gaussians(100), *size, intrinsics=(20.0, 21.0, size[0] / 3, size[1] / 2))


@pytest.mark.parametrize("channels", [0, 1, 3, 4, 7, 200])
def test_numbers_of_channels(channels: int):
    compare(gaussians(100, channels=channels))


def test_without_a_background():
    compare(gaussians(100), background=False)


def test_a_pixel_is_finished_when_it_is_nearly_opaque():
    scene = gaussians(400, size=0.5)
    opaque = leaves(replace(scene, opacities=0.9 + 0.1 * scene.opacities))
    # What is left behind an alpha of 0.999 has few digits in float32.
    found = compare(opaque, tolerance=1e-3)
    assert 0.999 < found.accumulation.max() <= 1


def test_many_gaussians_on_one_pixel():
    scene = gaussians(2000, size=0.01)
    compare(leaves(replace(scene, means=0.01 * scene.means, opacities=0.02 * scene.opacities)), tolerance=1e-3)


def test_thin_and_long_ones():
    scene = gaussians(60)
    scales = scene.scales.detach() * torch.tensor([8.0, 0.05, 0.0])
    compare(leaves(replace(scene, scales=scales, opacities=0.5 * scene.opacities)), 97, 81, tolerance=1e-3)


def test_huge_ones():
    scene = gaussians(10)
    found = render(
        leaves(replace(scene, scales=scene.scales * 1e12), torch.float32), pose(), INTRINSICS, WIDTH, HEIGHT, depth=True
    )
    expected = reference.render(replace(scene, scales=scene.scales * 1e12), pose(), INTRINSICS, WIDTH, HEIGHT)
    assert_close(found.accumulation, expected[1], 1e-3)
    found.channels.sum().backward()


def test_what_is_outside_the_field_of_view():
    scene = gaussians(100, size=0.6)
    compare(leaves(replace(scene, means=scene.means + torch.tensor([3.0, 0, 0]))))


def test_the_median_is_the_depth_of_the_one_that_crosses_half():
    scene = Gaussians(
        torch.tensor([[0.0, 0, -1], [0, 0, -2], [0, 0, -3]]),
        torch.tensor([[1.0, 0, 0, 0]]).expand(3, -1),
        torch.full((3, 3), 0.5),
        torch.tensor([0.4, 0.4, 0.9]),
        torch.zeros(3, 0),
    )
    found = render(scene, torch.eye(4), (10.0, 10.0, 0.5, 0.5), 1, 1, depth=True, median_depth=True, index=True)
    assert found.median_depth.item() == 2
    assert found.index.item() == 0
    weights = torch.tensor([0.4, 0.24, 0.324])
    torch.testing.assert_close(found.depth.flatten(), (weights @ torch.tensor([1.0, 2, 3]) / weights.sum())[None])


def test_what_is_not_asked_for_is_not_there():
    found = render(leaves(gaussians(20), torch.float32), pose(), INTRINSICS, WIDTH, HEIGHT)
    assert found.depth is None and found.median_depth is None and found.index is None


def test_only_the_accumulation_or_the_depth_is_learned_from():
    for name in ("accumulation", "depth"):
        single, double = leaves(gaussians(80), torch.float32), gaussians(80)
        getattr(render(single, pose(), INTRINSICS, WIDTH, HEIGHT, depth=True), name).sum().backward()
        reference.render(double, pose(), INTRINSICS, WIDTH, HEIGHT)[1 if name == "accumulation" else 2].sum().backward()
        for field in NAMES[:4]:
            assert_close(getattr(single, field).grad, getattr(double, field).grad)
        assert not single.channels.grad.any()


def test_uplifting_is_the_gradient_of_rendering():
    scene = leaves(gaussians(size=0.1), torch.float32)
    values = noise(HEIGHT, WIDTH, 70).float()
    values[..., -1] = 1
    projection = project(
        *(getattr(scene, name) for name in NAMES[:3]), pose(), INTRINSICS, WIDTH, HEIGHT, opacities=scene.opacities
    )
    sums, contributions = uplift(projection, scene.opacities, values)
    assert not sums.requires_grad
    channels = torch.zeros(len(scene), 70, requires_grad=True)
    picture = rasterize(projection, scene.opacities, channels).channels
    (picture * values).sum().backward()
    assert_close(sums, channels.grad.double(), 1e-5)
    assert_close(contributions, channels.grad[:, -1].double(), 1e-5)
    none, again = uplift(projection, scene.opacities, values[..., :0])
    assert none.shape == (len(scene), 0) and torch.equal(again, contributions)


def test_tight_radii_leave_nothing_out():
    scene = leaves(gaussians(), torch.float32)
    shapes = [getattr(scene, name).detach() for name in NAMES[:3]]
    tight = project(*shapes, pose(), INTRINSICS, WIDTH, HEIGHT, opacities=scene.opacities)
    loose = project(*shapes, pose(), INTRINSICS, WIDTH, HEIGHT)
    assert (tight.radii <= loose.radii).all() and (tight.radii < loose.radii).any()
    pictures = [rasterize(p, scene.opacities, scene.channels).channels for p in (tight, loose)]
    assert torch.equal(*pictures)


def test_the_same_again_with_any_number_of_threads():
    def run() -> list[torch.Tensor]:
        scene = leaves(gaussians(2000), torch.float32)
        found = render(scene, pose(), INTRINSICS, 150, 90, depth=True)
        loss(found.channels, found.accumulation, found.depth).backward()
        return [found.channels, found.depth, *(getattr(scene, name).grad for name in NAMES)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run()
        torch.set_num_threads(2)
        two, again = run(), run()
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(one, two, again, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)
