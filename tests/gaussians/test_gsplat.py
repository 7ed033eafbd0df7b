"""gsplat's kernels against ours, where there is a CUDA device; what is plain torch in that backend, everywhere."""

from dataclasses import replace

import pytest
import torch

from semfield_ns.gaussians import gsplat_backend
from semfield_ns.gaussians.projection import Projection, project
from semfield_ns.gaussians.rasterize import render, uplift
from tests.gaussians import reference
from tests.gaussians.scenes import HEIGHT, INTRINSICS, NAMES, WIDTH, gaussians, leaves, pose

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat's kernels need a CUDA device")
CAMERA = (pose(), INTRINSICS, WIDTH, HEIGHT)


def test_median_and_strongest_of_lists():
    scene = gaussians(100)
    *_, median, index, weights = reference.render(scene, *CAMERA)
    means2d, depths, conics, seen = reference.project(*(getattr(scene, name) for name in NAMES[:3]), *CAMERA)
    order = torch.argsort(torch.where(seen, depths, torch.inf))
    pixel_ids, places = (weights[:, order] > 0).nonzero().unbind(-1)
    projection = Projection(means2d, depths, conics, seen.double(), WIDTH, HEIGHT)
    found = gsplat_backend.median_and_strongest(projection, scene.opacities, order[places], pixel_ids)
    torch.testing.assert_close(found[0], median)
    assert torch.equal(found[1], index)


def test_radii_are_those_of_the_other_backend():
    scene = leaves(gaussians(), torch.float32)
    found = project(*(getattr(scene, name) for name in NAMES[:3]), *CAMERA, opacities=scene.opacities)
    radii = gsplat_backend.reach(found.conics.detach(), scene.opacities.detach(), found.radii > 0)
    assert (radii - found.radii).abs().max() <= 1
    assert (radii != found.radii).float().mean() < 0.02


@on_cuda
@pytest.mark.parametrize("channels", [0, 3, 12, 70])
def test_the_same_picture_and_gradients(channels: int):
    results = []
    for device in ("cpu", "cuda"):
        scene = leaves(gaussians(channels=channels), torch.float32)
        there = scene.to(device)
        background = torch.linspace(0, 1, channels, device=device)
        found = render(there, *CAMERA, background=background, depth=True, median_depth=True, index=True)
        (found.channels.square().sum() + found.accumulation.sum() + found.depth.square().sum()).backward()
        results.append(
            [found.channels, found.accumulation, found.depth, *(getattr(scene, name).grad for name in NAMES)]
        )
        results[-1] = [tensor.detach().cpu() for tensor in results[-1]]
        projection = project(*(getattr(there, name) for name in NAMES[:3]), *CAMERA, opacities=there.opacities)
        values = torch.linspace(0, 1, HEIGHT * WIDTH * 3, device=device).reshape(HEIGHT, WIDTH, 3)
        results[-1] += [tensor.cpu() for tensor in uplift(projection, there.opacities, values)]
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        if ours.numel() == 0:
            continue
        scale = ours.abs().max().clamp(min=1e-6)
        assert ((ours - theirs).abs() > 2e-3 * scale).float().mean() < 1e-2


@on_cuda
def test_nothing_to_see_on_a_cuda_device():
    for num, shift in ((0, 0.0), (50, 100.0)):
        scene = leaves(gaussians(num), torch.float32)
        moved = replace(scene, means=scene.means + torch.tensor([0.0, 0, shift])).to("cuda")
        found = render(
            moved, *CAMERA, background=torch.ones(5, device="cuda"), depth=True, median_depth=True, index=True
        )
        assert (found.channels == 1).all() and (found.index == -1).all()
