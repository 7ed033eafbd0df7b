"""Inputs at the edge of what makes sense, and beyond: the right picture, or an error that says what to do."""

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.projection import project
from semfield_ns.gaussians.rasterize import rasterize, render, uplift
from tests.gaussians.scenes import HEIGHT, INTRINSICS, NAMES, WIDTH, gaussians, leaves, pose

CAMERA = (pose(), INTRINSICS, WIDTH, HEIGHT)


def single(num: int = 50, **options) -> "torch.Tensor":
    return leaves(gaussians(num, **options), torch.float32)


@pytest.mark.parametrize("case", ["none at all", "behind", "beside", "transparent"])
def test_nothing_to_see(case: str):
    scene = single(0 if case == "none at all" else 50)
    shift = {"behind": [0.0, 0, 100], "beside": [1e4, 0, 0]}.get(case, [0.0, 0, 0])
    opacities = scene.opacities * (0.0 if case == "transparent" else 1.0)
    moved = replace(scene, means=scene.means + torch.tensor(shift), opacities=opacities)
    background = torch.rand(5)
    found = render(moved, *CAMERA, background=background, depth=True, median_depth=True, index=True)
    assert torch.equal(found.channels, background.expand(HEIGHT, WIDTH, 5))
    assert not found.accumulation.any() and not found.depth.any() and not found.median_depth.any()
    assert (found.index == -1).all()
    (found.channels.sum() + found.depth.sum()).backward()
    for name in NAMES:
        assert not getattr(scene, name).grad.any()
    projection = project(moved.means, moved.quaternions, moved.scales, *CAMERA)
    sums, contributions = uplift(projection, moved.opacities, torch.ones(HEIGHT, WIDTH, 2))
    assert sums.shape == (len(scene), 2) and not sums.any() and not contributions.any()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", NAMES[:4])
def test_numbers_that_are_not_finite_leave_the_gaussian_out(name: str, number: float):
    scene = single()
    values = getattr(scene, name).detach().clone()
    values[::3] = number
    broken = leaves(replace(scene, **{name: values}), torch.float32)
    found = render(broken, *CAMERA, depth=True, index=True)
    kept = torch.arange(len(scene)) % 3 != 0
    assert torch.equal(found.channels, render(scene.select(kept), *CAMERA).channels)
    found.channels.sum().backward()
    for field in NAMES:
        gradient = getattr(broken, field).grad
        assert torch.isfinite(gradient).all() and not gradient[~kept].any()


def test_channels_that_are_not_finite_are_seen():
    scene = single()
    found = render(replace(scene, channels=torch.full((50, 2), float("nan"))), *CAMERA)
    assert torch.isnan(found.channels[found.accumulation[..., 0] > 0]).all()


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e6, 1e12, 1e25, 1e38])
def test_scales_of_any_size(factor: float):
    scene = single()
    found = render(replace(scene, scales=scene.scales * factor), *CAMERA, depth=True)
    assert torch.isfinite(found.channels).all() and found.accumulation.max() <= 1
    (found.channels.sum() + found.depth.sum()).backward()
    for name in NAMES:
        assert torch.isfinite(getattr(scene, name).grad).all()


def test_places_of_any_size():
    scene = single()
    for factor in (1e10, 1e30):
        found = render(replace(scene, means=scene.means * factor, scales=scene.scales * factor), *CAMERA)
        assert torch.isfinite(found.channels).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_kinds_of_floats_are_converted(dtype: torch.dtype):
    scene = leaves(gaussians(50), dtype)
    found = render(scene, *CAMERA)
    assert found.channels.dtype == torch.float32
    found.channels.sum().backward()
    assert all(getattr(scene, name).grad.dtype == dtype for name in NAMES)


def test_non_contiguous_inputs_and_gradients():
    scene = single()
    torch.manual_seed(0)
    turned = type(scene)(*(getattr(scene, name).detach().t().contiguous().t().requires_grad_() for name in NAMES))
    a, b = render(scene, *CAMERA).channels, render(turned, *CAMERA).channels
    assert torch.equal(a, b)
    a.permute(2, 0, 1).contiguous().sum().backward()
    b.permute(2, 0, 1).mul(torch.ones(HEIGHT, WIDTH)).sum().backward()
    for name in NAMES:
        torch.testing.assert_close(getattr(scene, name).grad, getattr(turned, name).grad)


def test_a_picture_without_gradients_keeps_nothing():
    scene = single()
    with torch.no_grad():
        quiet = render(scene, *CAMERA).channels
    assert quiet.grad_fn is None
    assert torch.equal(quiet, render(scene, *CAMERA).channels)
    assert render(scene.detach(), *CAMERA).channels.grad_fn is None


def test_two_threads_at_once():
    scene = single(500).detach()
    expected = render(scene, *CAMERA).channels
    wrong = []

    def work() -> None:
        for _ in range(20):
            if not torch.equal(render(scene, *CAMERA).channels, expected):
                wrong.append(1)

    both = [threading.Thread(target=work) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not wrong


def test_wrong_inputs_are_said():
    scene = single()
    for name, value, words in (
        ("means", torch.zeros(50, 2), r"means of Gaussians: shape \[50, 2\]"),
        ("quaternions", torch.zeros(49, 4), "quaternions"),
        ("scales", torch.zeros(50), "scales"),
        ("opacities", torch.zeros(50, 1), "opacities"),
        ("channels", torch.zeros(50), "channels"),
        ("channels", torch.zeros(50, 3, dtype=torch.int64), "int64"),
        ("channels", torch.zeros(50, 3, device="meta"), "meta"),
    ):
        with pytest.raises(SemfieldError, match=words):
            render(replace(scene, **{name: value}), *CAMERA)
    with pytest.raises(SemfieldError, match="background"):
        render(scene, *CAMERA, background=torch.zeros(4))
    with pytest.raises(SemfieldError, match="0x37"):
        render(scene, pose(), INTRINSICS, 0, HEIGHT)
    with pytest.raises(SemfieldError, match="camera_to_world"):
        render(scene, torch.eye(3), INTRINSICS, WIDTH, HEIGHT)
    with pytest.raises(SemfieldError, match="not finite"):
        render(scene, pose() * float("nan"), INTRINSICS, WIDTH, HEIGHT)
    with pytest.raises(SemfieldError, match="focal"):
        render(scene, pose(), (0.0, 1.0, 1.0, 1.0), WIDTH, HEIGHT)
    with pytest.raises(SemfieldError, match="intrinsics"):
        render(scene, pose(), (1.0, 1.0), WIDTH, HEIGHT)
    with pytest.raises(SemfieldError, match="backend"):
        render(scene, *CAMERA, backend="metal")
    projection = project(scene.means, scene.quaternions, scene.scales, *CAMERA)
    with pytest.raises(SemfieldError, match="values"):
        uplift(projection, scene.opacities, torch.zeros(WIDTH, HEIGHT, 2))
    with pytest.raises(SemfieldError, match="means2d"):
        rasterize(projection, scene.opacities[:3], scene.channels[:3])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_gsplat_without_a_cuda_device():
    with pytest.raises(SemfieldError, match="CUDA"):
        render(single(), *CAMERA, backend="gsplat")


def test_importing_is_light():
    code = (
        "import sys; import semfield_ns.gaussians.rasterize, semfield_ns.gaussians.harmonics; "
        "print([name for name in ('numba', 'gsplat', 'llvmlite') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
