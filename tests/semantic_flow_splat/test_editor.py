"""Edits of Gaussians."""

import numpy as np
import torch

from semfield_ns.editing.edits import Edit
from semfield_ns.gaussians.values import Gaussians, covariances
from semfield_ns.semantic_flow_splat.editor import placed


def test_objects_are_removed_moved_and_copied(trained, manager):
    model, camera = trained.model, manager.train_dataset.cameras[3:4]
    plain, version = model.raw_outputs_for_camera(camera), model.version()
    moving = plain["dynamic_weight"][..., 0] > 0.9
    assert bool(moving.any())
    try:
        names = model.editor.change([Edit("remove")])
        assert names
        assert model.version() != version  # or the viewer would go on showing what it has rendered before
        removed = model.raw_outputs_for_camera(camera)
        assert float(removed["dynamic_weight"].max()) < 1e-3
        assert torch.allclose(removed["rgb"], removed["rgb_static"], atol=1e-5)
        model.editor.change([Edit("duplicate", translation=(0.0, 0.0, 0.4))])
        doubled = model.raw_outputs_for_camera(camera)
        assert float(doubled["dynamic_weight"].mean()) > float(plain["dynamic_weight"].mean())
        model.editor.change([Edit("recolor", color=(0.0, 0.0, 1.0))])
        blue = model.raw_outputs_for_camera(camera)["rgb"][moving]
        assert float(blue[:, :2].mean()) < 0.2 * float(blue[:, 2].mean())
    finally:
        model.editor.change(())
    assert model.version() == version
    assert torch.equal(model.raw_outputs_for_camera(camera)["rgb"], plain["rgb"])


def test_what_is_removed_throws_no_shadow_and_what_is_moved_throws_it_elsewhere(trained, manager):
    model, step = trained.model, 3.0
    gaussians = model.gaussians
    still = gaussians.num_still
    shades = gaussians.shades.data.clone()
    try:
        # All that darkens the still ones is shadows of the strength 0.5.
        model.editor.change([Edit("remove")])
        hidden_by = model.editor.scene().shadows.hidden_by.sum(dim=0)
        gaussians.shades.data[:still] = (1 - 0.5 * hidden_by).clamp(min=0.3).log()
        model.editor._known_shadows = None
        model.editor.change([Edit("remove")])
        scene = model.editor.scene()
        assert torch.allclose(scene.shadows.strengths, torch.tensor(0.5), atol=0.1)
        light = scene.light(step)
        dark = gaussians.brightness_at(step)[:still] < 0.97
        assert bool(dark.any()) and bool((light[still:] == 1).all())
        assert float((gaussians.brightness_at(step) * light)[:still][dark].sub(1).abs().mean()) < 0.03
        model.editor.change([Edit("recolor", color=(0.0, 0.0, 1.0))])
        assert model.editor.scene().light(step) is None, "it is still there"
        model.editor.change([Edit("move", translation=(0.0, 0.0, 1e-4))])
        assert float(model.editor.scene().light(step).sub(1).abs().mean()) < 0.01, "it is nearly there"
        model.editor.change([Edit("duplicate", translation=(0.0, 0.0, 0.3))])
        light = model.editor.scene().light(step)
        assert float(light.max()) <= 1 and float(light[:still].min()) < 0.999, "a second shadow"
    finally:
        gaussians.shades.data = shades
        model.editor._known_shadows = None
        model.editor.change(())


def test_a_click_finds_the_object(trained, manager):
    model, camera = trained.model, manager.train_dataset.cameras[3:4]
    moving = (model.raw_outputs_for_camera(camera)["dynamic_weight"][..., 0] > 0.95).nonzero()
    row, column = moving[len(moving) // 2].tolist()
    name = model.editor.object_at(camera, ((column + 0.5) / 64, (row + 0.5) / 48))
    assert name in model.editor.tracks().names


def test_a_moved_object_is_where_it_was_put(trained, manager):
    model = trained.model
    step = 3.0
    before = model.gaussians.means_at(step)
    shift = np.array([0.1, 0.2, -0.3])
    try:
        model.editor.change([Edit("move", translation=tuple(shift))])
        scene = model.editor.scene()
        moved, origins = scene.apply(model.values(step, torch.zeros(len(before), 3)), step)
    finally:
        model.editor.change(())
    own = scene.owners[origins] >= 0
    expected = before[origins[own]] + torch.from_numpy(model.editor.world[:, :3] @ shift).float()
    assert torch.allclose(moved.means[own], expected, atol=1e-4)
    assert torch.equal(moved.means[~own], before[origins[~own]])


def test_covariances_follow_a_placement_also_a_mirrored_one():
    generator = torch.Generator().manual_seed(0)
    n = 6
    gaussians = Gaussians(
        torch.randn(n, 3, generator=generator),
        torch.randn(n, 4, generator=generator),
        torch.rand(n, 3, generator=generator) + 0.1,
        torch.rand(n, generator=generator),
        torch.rand(n, 3, generator=generator),
    )
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    for linear in (1.5 * turn, 1.5 * turn @ torch.diag(torch.tensor([1.0, 1.0, -1.0]))):
        matrix = torch.cat([linear, torch.tensor([[1.0], [2.0], [3.0]])], dim=1)
        found = placed(gaussians, matrix)
        wanted = linear @ covariances(gaussians.quaternions, gaussians.scales) @ linear.T
        assert torch.allclose(covariances(found.quaternions, found.scales), wanted, atol=1e-4)
        assert torch.allclose(found.means, gaussians.means @ linear.T + matrix[:, 3], atol=1e-5)
