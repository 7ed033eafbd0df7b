"""The model: what training learns, what pictures hold, what checkpoints keep."""

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerElement

from semfield_ns.errors import SemfieldError
from semfield_ns.semantic_flow_splat.losses import at_size
from tests.semantic_flow_splat.conftest import ALL_ON, make_model, train


def test_a_viewer_that_goes_through_the_model_makes_no_gaussians(trained, monkeypatch):
    """It would look for the objects of the scene, which takes long, for nothing."""
    asked = []
    monkeypatch.setattr(trained.model, "splats", asked.append)
    assert parse_object(trained.model, ViewerElement, "model") == [] and asked == []


def test_training_makes_held_out_views_better(trained):
    assert trained.after > trained.before + 1
    assert sum(trained.losses[-10:]) < 0.8 * sum(trained.losses[:10])


def test_the_classes_of_held_out_views_are_learned(trained, manager):
    dataset, right, total = manager.eval_dataset, 0, 0
    for index in range(4):
        logits = trained.model.raw_outputs_for_camera(dataset.cameras[index : index + 1])["logits"]
        labels = dataset[index]["semantics"][..., 0]
        right += int((logits.argmax(dim=-1) == labels)[labels >= 0].sum())
        total += int((labels >= 0).sum())
    assert right / total > 0.9


def test_every_loss_has_a_gradient(manager):
    model = make_model(manager, loss_weights=ALL_ON)
    model.gather()
    camera, batch = manager.next_train(0)
    losses = model.get_loss_dict(model.get_outputs(camera), batch)
    missing = set(ALL_ON.__dataclass_fields__) - set(losses)
    # The scene gives metric depth: carried labels teach nothing.
    assert missing <= {"flow", "rigidity", "depth", "semantics_carried"}, missing
    sum(losses.values()).backward()
    for name, parameters in model.get_param_groups().items():
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters), name


def test_carried_labels_teach_where_depth_is_not_given(manager):
    model = make_model(manager)
    batches = [manager.next_train(step) for step in range(8)]
    camera, batch = next((c, b) for c, b in batches if b["propagated_label"].any())
    outputs = model.get_outputs(camera)
    assert "semantics_carried" not in model.get_loss_dict(outputs, batch)
    model.metric_depth = False
    assert float(model.get_loss_dict(outputs, batch)["semantics_carried"]) > 0


def test_the_outputs_keep_the_contract(trained, manager):
    camera = manager.eval_dataset.cameras[:1]
    outputs = trained.model.get_outputs_for_camera(camera)
    names = {"rgb", "depth", "accumulation", "semantics_colormap", "semantics_confidence", "flow_forward"}
    names |= {"flow_backward", "dynamic_weight", "rgb_static", "rgb_dynamic", "features_pca", "semantics"}
    assert names <= set(outputs)
    for name in outputs:
        value = outputs[name]
        assert value.shape[:2] == (48, 64) and value.shape[2] in (1, 3) and value.dtype == torch.float32, name
        assert bool(value.isfinite().all()), name
        if value.shape[2] == 3:
            assert float(value.min()) >= 0 and float(value.max()) <= 1, name


def test_depth_and_surface_are_those_of_the_scene(trained, manager):
    index = 0
    camera = manager.train_dataset.cameras[index : index + 1]
    raw, item = trained.model.raw_outputs_for_camera(camera), manager.train_dataset[index]
    bundle = camera.generate_rays(camera_indices=0, keep_shape=True)
    along = raw["depth"] / bundle.metadata["directions_norm"]
    error = ((along - item["depth"]).abs() / item["depth"]).median()
    assert float(error) < 0.05
    assert torch.allclose(raw["surface"], bundle.origins + bundle.directions * raw["depth"], atol=1e-4)


def test_a_camera_without_a_time_and_one_between_frames_are_rendered(trained, manager):
    cameras = manager.train_dataset.cameras
    between = cameras[:1]
    between.times = (cameras.times[0] + cameras.times[1])[None] / 2
    assert bool(trained.model.raw_outputs_for_camera(between)["rgb"].isfinite().all())
    timeless = Cameras(
        camera_to_worlds=cameras.camera_to_worlds[2:3], fx=60.0, fy=60.0, cx=20.0, cy=15.0, width=40, height=30
    )
    assert trained.model.get_outputs_for_camera(timeless)["rgb"].shape == (30, 40, 3)


def test_scene_flow_is_the_same_a_little_before_and_after_a_frame(trained):
    model = trained.model
    ahead, _ = model._scene_flow(2.499)
    behind, _ = model._scene_flow(2.501)
    moving = slice(model.gaussians.num_still, None)
    assert torch.allclose(ahead[moving], behind[moving], atol=0.02)
    assert float(ahead[: model.gaussians.num_still].abs().max()) == 0


def test_a_checkpoint_comes_back_bit_for_bit_whatever_the_number_of_gaussians(trained, manager):
    state = trained.model.state_dict()
    other = make_model(manager, max_gaussians=1000).eval()
    assert len(other.gaussians) != len(trained.model.gaussians)
    before = {id(p) for group in other.get_param_groups().values() for p in group}
    other.load_state_dict(state, strict=True)
    assert {id(p) for group in other.get_param_groups().values() for p in group} == before
    camera = manager.eval_dataset.cameras[1:2]
    theirs, ours = (model.raw_outputs_for_camera(camera) for model in (other, trained.model))
    for name in ("rgb", "logits", "features", "depth"):
        assert torch.equal(theirs[name], ours[name]), name


def test_training_is_the_same_again_with_the_same_seed(manager):
    results = []
    for _ in range(2):
        model = make_model(manager)
        manager.setup_train()
        results.append(train(model, manager, 3))
    assert results[0] == results[1]


def test_points_move_with_the_gaussians_that_they_are_on(trained):
    gaussians = trained.model.gaussians
    chosen = torch.nonzero(gaussians.opacities_at(0) > 0.5)[:, 0]
    chosen = chosen[chosen >= gaussians.num_still][:20]
    points = gaussians.means_at(0)[chosen]
    assert torch.allclose(trained.model.trace_points(points, 0.0, 1.0), gaussians.means_at(7)[chosen], atol=1e-5)


def test_what_is_switched_off_gives_nothing(manager):
    model = make_model(manager, flow_attention=False, uplift_labels=False)
    model.gather()
    assert model.semantics is None and float(model.gaussians.known.abs().max()) == 0
    model = make_model(manager, free_logits=False, image_features=False)
    model.gather()
    assert float(model.gathered.features.abs().max()) == 0
    camera, batch = manager.next_train(0)
    sum(model.get_loss_dict(model.get_outputs(camera), batch).values()).backward()
    assert model.gaussians.logits.grad is None or float(model.gaussians.logits.grad.abs().max()) == 0


def test_evidence_alone_knows_most_of_the_classes(manager):
    model = make_model(manager, flow_attention=False)
    model.gather()
    dataset = manager.train_dataset
    labels = dataset.semantics(0)[..., 0]
    logits = model.eval().raw_outputs_for_camera(dataset.cameras[:1])["logits"]
    assert float((logits.argmax(dim=-1) == labels)[labels >= 0].float().mean()) > 0.85


def test_rays_are_refused(trained, manager):
    bundle = manager.train_dataset.cameras.generate_rays(camera_indices=0)
    with pytest.raises(SemfieldError, match="whole pictures"):
        trained.model.get_outputs(bundle)


def test_several_scenes_are_refused(tmp_path, scene):
    from semfield_ns.semantic_flow_splat.datamanager import SplatDataManagerConfig

    for name in ("a", "b"):
        (tmp_path / name).symlink_to(scene, target_is_directory=True)
    with pytest.raises(SemfieldError, match="one a run"):
        SplatDataManagerConfig(data=tmp_path).setup(device="cpu", test_mode="val")


def test_a_picture_at_a_smaller_size_has_the_means_of_its_pixels():
    image = torch.arange(24.0).reshape(4, 2, 3)
    assert at_size(image, None) is image
    assert torch.equal(at_size(image, (2, 1)), image.reshape(2, 4, 3).mean(dim=1, keepdim=True))
    ramp = torch.arange(8.0)[:, None, None].expand(8, 2, 3)
    # Each of 6 pixels covers 4/3 of 8.
    assert torch.allclose(at_size(ramp, (6, 2))[:3, 0, 0], torch.tensor([0.25, 1.5, 2.75]))
    assert torch.allclose(at_size(ramp, (6, 2)).mean(), ramp.mean())
