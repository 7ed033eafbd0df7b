"""The model in training, in evaluation, and from checkpoint to checkpoint."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn import datamanager
from semfield_ns.gsn.accumulation import summed
from semfield_ns.gsn.model import depth_error, of_each_target
from semfield_ns.gsn.sampling import guided_depths, inverse_depths
from semfield_ns.gsn.schedule import TwoStageSchedulerConfig, follow_stages
from semfield_ns.segmentation.views import surface_points
from semfield_ns.teachers.base import Teacher
from tests.gsn.builders import small_pipeline, write_scenes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def step_losses(pipeline, step):
    pipeline.model.set_step(step)
    pipeline.zero_grad()
    _, losses, _ = pipeline.get_train_loss_dict(step)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("mode", ["uniform", "guided"])
def test_two_stages_train_what_they_should(root, mode):
    pipeline = small_pipeline(root)
    pipeline.model.config.rays.mode = mode
    pipeline.train()
    assert step_losses(pipeline, 3).keys() == {"rgb"}
    groups = pipeline.get_param_groups()
    assert not any(p.grad is not None and p.grad.any() for p in groups["head"])
    assert any(p.grad is not None and p.grad.any() for p in groups["encoder"])
    assert step_losses(pipeline, 4).keys() == {"rgb", "features"}
    assert any(p.grad is not None and p.grad.any() for p in groups["head"])
    assert bool(pipeline.model.projection.fitted)


def test_depth_is_learned_where_a_scene_brings_it(root):
    pipeline = small_pipeline(root, depth_loss=1.0)
    model = pipeline.model
    pipeline.train()
    assert step_losses(pipeline, 0).keys() == {"rgb", "depth"}
    posed = model.library.scenes[0]
    depth = model.library.depth(0, posed.train[1])
    true = np.load(posed.depth_paths[posed.train[1]])
    torch.testing.assert_close(depth, torch.from_numpy(true) * posed.scale)
    assert posed.near < float(depth.min()) and float(depth.max()) < posed.far
    # The same weights, and other depths: another loss, of the same colours.
    rays, _ = pipeline.datamanager.next_train(0)

    def losses():
        torch.manual_seed(0)
        return model.get_outputs(rays)["losses"]

    before = losses()
    model.library.scenes = [replace(scene, depth_unit=0.5 * scene.depth_unit) for scene in model.library.scenes]
    model.library.images.clear()
    after = losses()
    assert float(before["rgb"]) == float(after["rgb"]) and float(before["depth"]) != float(after["depth"])
    model.library.scenes = [replace(scene, depth_paths=()) for scene in model.library.scenes]
    assert losses().keys() == {"rgb"}


def test_errors_of_depth_are_shares_of_the_range_of_inverse_depths():
    found, true = torch.tensor([[2.0], [4.0], [3.0]]), torch.tensor([[4.0], [4.0], [0.0]])  # the last is not known
    assert float(depth_error(found, true, (1.0, 5.0))) == pytest.approx((1 / 2 - 1 / 4) / (1 - 1 / 5))
    assert float(depth_error(true[:2], 100 * true[:2], (1.0, 5.0))) == pytest.approx(2 * (1 / 4 - 1 / 5) / (1 - 1 / 5))


def test_rays_that_are_not_kept_in_memory_train_the_same(root):
    gradients = []
    for at_once in (0, 10):
        pipeline = small_pipeline(root)
        pipeline.model.config.rays.mode, pipeline.model.config.rays.rays_in_memory = "uniform", at_once
        pipeline.train()
        torch.manual_seed(1)
        step_losses(pipeline, 4)
        gradients.append([p.grad for group in pipeline.get_param_groups().values() for p in group])
    for first, second in zip(*gradients, strict=True):
        assert (first is None) == (second is None)
        assert first is None or torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("frame", ["scene", "view"])
def test_targets_share_an_encoding(root, frame, monkeypatch):
    monkeypatch.setattr(datamanager, "targets_worth", lambda *_: 3)
    pipeline = small_pipeline(root, frame=frame)
    model = pipeline.model
    model.config.rays.mode = "uniform"
    pipeline.train()
    model.set_step(4)
    bundle, batch = next(
        found for found in map(pipeline.datamanager.next_train, range(20)) if len(of_each_target(found[0])) == 3
    )
    encoded = []
    model.network.feature_net.register_forward_hook(lambda *_: encoded.append(1))

    def gradients(bundles):
        pipeline.zero_grad()
        torch.manual_seed(1)
        for some in bundles:
            (sum(model.get_loss_dict(model(some), batch).values()) / len(bundles)).backward()
        return [parameter.grad for parameter in model.network.parameters()]

    together = gradients([bundle])
    assert len(encoded) == 1
    apart = gradients(of_each_target(bundle))
    assert len(encoded) == 4
    for first, second in zip(together, apart, strict=True):
        assert (first is None) == (second is None)
        assert first is None or torch.allclose(first, second, atol=1e-6)
    assert any(gradient is not None and gradient.any() for gradient in together)


def test_losses_in_parts_have_the_gradients_of_all():
    x, weight, unused = (torch.randn(size, requires_grad=True) for size in ((12, 3), (3, 2), (4,)))
    maps = x.sin()  # made of x once, and looked at by every part

    def losses(rows):
        return {"a": (maps[rows] @ weight).square().sum(), "b": maps[rows].exp().sum()}

    ((losses(slice(None))["a"] + losses(slice(None))["b"]) * 3).backward(retain_graph=True)
    expected = x.grad.clone(), weight.grad.clone()
    x.grad = weight.grad = None
    found = summed((losses(slice(start, start + 5)) for start in range(0, 12, 5)), [weight, unused, maps])
    assert torch.allclose(found["a"], losses(slice(None))["a"]) and torch.allclose(found["b"], losses(slice(None))["b"])
    (sum(found.values()) * 3).backward()
    assert torch.allclose(x.grad, expected[0], rtol=1e-4) and torch.allclose(weight.grad, expected[1], rtol=1e-4)
    assert unused.grad is None
    alone = summed([losses(slice(None))], [weight])
    with pytest.raises(AssertionError, match="added up"):
        alone["a"].backward()


def test_training_learns(root):
    pipeline = small_pipeline(root, stage_one_steps=10_000)
    optimizer = torch.optim.Adam([p for group in pipeline.get_param_groups().values() for p in group], lr=2e-3)
    losses = []
    for step in range(60):
        pipeline.model.set_step(step)
        optimizer.zero_grad()
        loss = sum(pipeline.get_train_loss_dict(step)[1].values())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


def test_outputs_keep_the_contract(root):
    pipeline = small_pipeline(root)
    model = pipeline.model
    model.prepare_tokens()
    model.eval()
    camera, batch = pipeline.datamanager.next_eval_image(0)
    model.begin_evaluation()
    outputs = model.get_outputs_for_camera(camera)
    model.end_evaluation(None)
    assert "features" not in model.get_outputs_for_camera(camera)
    for name, channels in (("rgb", 3), ("depth", 1), ("accumulation", 1), ("features_pca", 3)):
        value = outputs[name]
        assert value.shape == (36, 48, channels) and value.dtype == torch.float32 and value.isfinite().all(), name
        assert channels == 1 or (value.min() >= 0 and value.max() <= 1), name
    scene = model.library.scenes[int(camera.metadata["scene"])]
    assert (outputs["depth"] >= 0.99 * scene.near).all()
    metrics, images = model.get_image_metrics_and_images(outputs, batch)
    assert all(math.isfinite(metrics[name]) for name in ("psnr", "ssim", "feature_cosine"))
    assert images["features"].shape == (36, 96, 3)


def test_every_teacher_has_its_head(root):
    further = "semfield_ns.teachers.classical:ClassicalTeacher"
    pipeline = small_pipeline(root, more_teachers=(further,))
    pipeline.train()
    losses = step_losses(pipeline, 4)
    assert losses.keys() == {"rgb", "features", "features_ClassicalTeacher"}
    model = pipeline.model
    heads = [list(head.parameters()) for head in model.network.feature_heads.values()]
    assert len(heads) == 2 and all(any(p.grad is not None and p.grad.any() for p in head) for head in heads)
    assert sum(map(len, heads)) == len(pipeline.get_param_groups()["head"])
    pipeline.eval()
    camera, batch = pipeline.datamanager.next_eval_image(0)
    model.begin_evaluation()
    outputs = model.get_outputs_for_camera(camera)
    metrics, _ = model.get_image_metrics_and_images(outputs, batch)
    model.end_evaluation(None)
    assert outputs["features_pca_ClassicalTeacher"].shape == (36, 48, 3)
    assert math.isfinite(metrics["feature_cosine_ClassicalTeacher"])
    other = small_pipeline(root / "scene_1", more_teachers=(further,))
    other.load_pipeline(pipeline.state_dict(), 4)
    assert torch.equal(other.model.distilled[1].projection.basis, model.distilled[1].projection.basis)
    with pytest.raises(SemfieldError, match="more teachers"):
        small_pipeline(root).load_pipeline(pipeline.state_dict(), 4)
    with pytest.raises(SemfieldError, match="would have the same name"):
        small_pipeline(root, more_teachers=("classical", "classical"))


def test_pictures_need_no_teacher_before_the_second_stage(root):
    pipeline = small_pipeline(root)
    pipeline.model.eval()
    camera, _ = pipeline.datamanager.next_eval_image(0)
    outputs = pipeline.model.get_outputs_for_camera(camera)
    assert "features_pca" not in outputs and "rgb" in outputs


def test_maps_are_used_again_until_the_weights_change(root):
    pipeline = small_pipeline(root)
    model = pipeline.model.eval()
    camera, _ = pipeline.datamanager.next_eval_image(0)
    model.get_outputs_for_camera(camera)
    assert len(model.maps) == 3
    model.set_step(1)
    assert len(model.maps) == 0


def test_bfloat16_pictures_are_close(root):
    pipeline = small_pipeline(root)
    model = pipeline.model.eval()
    model.prepare_tokens()
    camera, _ = pipeline.datamanager.next_eval_image(0)
    exact = model.raw_outputs_for_camera(camera)
    model.config.precision = "bfloat16"
    half = model.raw_outputs_for_camera(camera)
    for name in ("rgb", "features"):
        assert (half[name] - exact[name]).norm() < 1e-2 * exact[name].norm(), name


@pytest.mark.parametrize("frame", ["scene", "view"])
def test_in_the_frame_of_the_view_a_scene_may_be_turned(root, frame):
    model = small_pipeline(root, frame=frame).model.eval()
    # What is added to the blended colours depends on positions and directions.
    torch.nn.init.normal_(model.network.net_coarse.rgb_fc.weight)
    posed = model.library.scenes[0]
    before = model.raw_outputs_for_camera(posed.cameras[posed.held_out[0]])["rgb"]
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.9, -0.4], [-0.9, 0.0, 0.7], [0.4, -0.7, 0.0]]))
    poses = posed.cameras.camera_to_worlds
    posed.cameras.camera_to_worlds = torch.cat([turn @ poses[:, :, :3], turn @ poses[:, :, 3:] + 0.3], dim=-1)
    after = model.raw_outputs_for_camera(posed.cameras[posed.held_out[0]])["rgb"]
    difference = float((after - before).abs().max())
    assert difference < 1e-3 if frame == "view" else difference > 0.01


def test_tokens_are_joined_under_autocast(root):
    pipeline = small_pipeline(root)
    pipeline.model.prepare_tokens()
    expected = pipeline.model.tokens_of(0, [1, 2])[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pipeline.model.tokens_of(0, [1, 2])[0], expected)


def test_sparse_features_are_close(root):
    pipeline = small_pipeline(root)
    model = pipeline.model.eval()
    model.prepare_tokens()
    camera, _ = pipeline.datamanager.next_eval_image(0)
    dense = model.raw_outputs_for_camera(camera)["features"]
    model.config.rays.feature_stride = 2
    sparse = model.raw_outputs_for_camera(camera)["features"]
    assert sparse.shape == dense.shape
    assert F.cosine_similarity(sparse, dense, dim=-1).mean() > 0.9


def test_checkpoints_fit_any_scenes_but_not_another_teacher(root, tmp_path):
    pipeline = small_pipeline(root)
    pipeline.model.prepare_tokens()
    state = pipeline.state_dict()
    other = small_pipeline(root / "scene_1")
    other.load_pipeline(state, 10)
    assert other.model.knows_features
    assert torch.equal(other.model.projection.basis, pipeline.model.projection.basis)
    with pytest.raises(SemfieldError, match="teacher is 'classical' in the checkpoint and 'resnet18' here"):
        small_pipeline(root, teacher="resnet18").load_pipeline(state, 10)
    wide = small_pipeline(root)
    wide.model.config.network.feature_dim = 16
    with pytest.raises(SemfieldError, match="feature dimension is '8' in the checkpoint and '16' here"):
        wide.load_pipeline(state, 10)


def test_rates_of_two_stages():
    scheduler = TwoStageSchedulerConfig(stage_one_steps=100, stage_two_factor=0.1, halve_every=40, warmup=10).setup()
    values = [scheduler.multiplier(step) for step in (0, 9, 39, 40, 99, 100, 139, 140)]
    assert values == pytest.approx([0.1, 1, 1, 0.5, 0.25, 0.1, 0.1, 0.05])

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = scheduler.get_scheduler(optimizer, 1.0)
    follow_stages([schedule], 39)
    assert schedule.lr_lambdas[0](39) == pytest.approx(0.1)
    follow_stages([schedule], 0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_guided_samples_gather_where_the_weights_are():
    near, far = torch.full((2, 1), 1.0), torch.full((2, 1), 10.0)
    depths = inverse_depths(near, far, 21)
    weights = torch.zeros(2, 21)
    weights[0, 5], weights[1, 20] = 1.0, 1.0
    for jitter in (False, True):
        found = guided_depths(near, far, weights, 16, jitter)
        assert (found.diff(dim=-1) >= 0).all() and (found >= 1.0).all() and (found <= 10.0 + 1e-4).all()
        close = (1 / found[0] - 1 / depths[0, 5]).abs() < 0.9 * 1.6 / 20
        assert close.float().mean() > 0.8
    uniform = guided_depths(near, far, torch.ones(2, 21), 16)
    steps = (1 / uniform[0]).diff()
    assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-5)


class Stripes(Teacher):
    """Position and brightness: features that are not those that the model renders."""

    name, dim, stride = "stripes", 4, 4

    def encode(self, images):
        rows, columns = self.grid_size(*images.shape[1:3])
        light = F.interpolate(images.mean(-1)[:, None], size=(rows, columns), mode="area")[:, 0]
        y, x = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
        return torch.stack([light, light.square(), x.expand_as(light), y.expand_as(light)], dim=-1)


def test_strokes_see_pictures_by_a_teacher_of_their_own(root):
    pipeline = small_pipeline(root, matching_teacher=f"{__name__}:Stripes")
    model = pipeline.model
    model.prepare_tokens()
    pipeline.eval()
    posed = model.library.scenes[model.shown]
    camera = posed.cameras[torch.tensor([posed.train[0]])]
    taken = model.image_outputs(camera)
    size = taken["rgb"].shape[:2]
    torch.testing.assert_close(taken["features"], model.matching.upright(model.shown, posed.train[0], size))
    assert model.pictures().features.shape[-1] == taken["features"].shape[-1] != model.config.network.feature_dim
    # What the surface of a view is compared by comes from the pictures that show it.
    raw = model.raw_outputs_for_camera(camera)
    found = model.surface_outputs(surface_points(raw, camera), camera)["features"]
    lengths = found.norm(dim=-1)
    assert found.shape == taken["features"].shape and bool(((lengths - 1).abs() < 1e-4).logical_or(lengths == 0).all())
    own = small_pipeline(root, matching_teacher="classical").model
    own.prepare_tokens()
    assert own.matching is None and own.surface_outputs(surface_points(raw, camera), camera) == {}
    assert own.pictures().features.shape[-1] == own.config.network.feature_dim
