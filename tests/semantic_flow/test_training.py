"""Trainings that learn: a step of the optimizer of a preset reaches what the next step sees."""

from copy import deepcopy

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers

from semfield_ns.method_configs import gsn, semantic_flow, semantic_flow_splat
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow.encodings import EncodingConfig, PlanesEncoding

PRESETS = [
    *(semantic_flow.semantic_flow, semantic_flow.semantic_flow_paper, semantic_flow.semantic_flow_tiny),
    *(semantic_flow_splat.semantic_flow_splat, semantic_flow_splat.semantic_flow_splat_tiny),
    *(gsn.gsn, gsn.gsn_paper, gsn.gsn_tiny),
]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.config.method_name)
def test_a_step_is_noted_by_all_that_it_changes(preset):
    for group in preset.config.optimizers.values():
        changed, left = (torch.nn.Parameter(torch.randn(4)) for _ in range(2))
        optimizer = group["optimizer"].setup([changed, left])
        before = changed.detach().clone(), changed._version, left._version
        changed.square().sum().backward()
        optimizer.step()
        assert not torch.equal(changed, before[0])
        assert changed._version > before[1] and left._version == before[2]


def test_planes_are_looked_up_as_the_optimizer_left_them():
    encoding = PlanesEncoding(EncodingConfig(channels=3, resolutions=(8,)), 3, num_frames=1)
    optimizer = semantic_flow.semantic_flow_tiny.config.optimizers["static"]["optimizer"].setup(encoding.parameters())
    points = 2 * torch.rand(20, 3) - 1
    for _ in range(3):
        assert torch.allclose(encoding(points), encoding.levels[0](points), atol=1e-6)
        optimizer.zero_grad()
        encoding(points).square().sum().backward()
        optimizer.step()


@pytest.mark.slow
def test_the_tiny_preset_learns_where_things_are(tmp_path):
    config = deepcopy(semantic_flow.semantic_flow_tiny.config)
    manager = config.pipeline.datamanager
    manager.data = manager.dataparser.data = write_scene(
        "demo", tmp_path / "demo", num_frames=8, width=80, height=60, samples_per_axis=1
    )
    torch.manual_seed(0)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    groups = pipeline.get_param_groups()
    optimizers = Optimizers({name: config.optimizers[name] for name in groups}, groups)
    attributes = TrainingCallbackAttributes(optimizers=optimizers, grad_scaler=None, pipeline=pipeline, trainer=None)
    callbacks = pipeline.get_training_callbacks(attributes)
    pipeline.train()
    found = []
    for step in range(100):
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        optimizers.zero_grad_all()
        losses = pipeline.get_train_loss_dict(step)[1]
        sum(losses.values()).backward()
        optimizers.optimizer_step_all()
        found.append({name: float(losses[name].detach()) for name in ("depth", "flow", "rgb")})
    for name in found[0]:
        first, last = (sum(each[name] for each in part) for part in (found[10:20], found[-10:]))
        assert last < 0.6 * first, name
