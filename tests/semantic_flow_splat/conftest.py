"""A model on a small synthetic scene."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.data.scene_box import SceneBox

from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow_splat.config import SemanticFlowSplatModelConfig, SplatLossWeights
from semfield_ns.semantic_flow_splat.datamanager import SplatDataManagerConfig

SETTINGS = {"max_gaussians": 4000, "harmonics_degree": 1, "num_tokens": 4, "network_batch": 512, "token_dim": 16}


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> Path:
    """Eight frames of the demo, 64x48."""
    folder = tmp_path_factory.mktemp("splat") / "scene"
    return write_scene("demo", folder, num_frames=8, width=64, height=48, samples_per_axis=1)


@pytest.fixture(scope="session")
def manager(scene: Path):
    """Its data manager; labels of every second frame."""
    torch.manual_seed(0)
    parser = SemfieldDataParserConfig(labels="every-2")
    return SplatDataManagerConfig(data=scene, encoder="classical", dataparser=parser).setup(
        device="cpu", test_mode="val"
    )


def make_model(manager, **settings):
    """A model that begins with the scene, in training mode."""
    torch.manual_seed(0)
    config = SemanticFlowSplatModelConfig(**SETTINGS | settings)
    box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
    metadata = manager.train_dataset.metadata
    return config.setup(
        scene_box=box, num_train_data=len(manager.train_dataset), metadata=metadata, device="cpu", grad_scaler=None
    ).train()


def train(model, manager, steps: int) -> list[float]:
    """Losses of a short training."""
    rates = {"still": 1e-3, "tracks": 2e-3, "semantics": 3e-3, "logits": 5e-2}
    groups = [{"params": v, "lr": rates.get(name, 1e-2)} for name, v in model.get_param_groups().items()]
    optimizer, totals = torch.optim.Adam(groups, eps=1e-15), []
    model.gather()
    for step in range(steps):
        camera, batch = manager.next_train(step)
        total = sum(model.get_loss_dict(model.get_outputs(camera), batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total))
    return totals


@pytest.fixture(scope="session")
def trained(manager) -> SimpleNamespace:
    """A model after some steps, its losses, and the held-out PSNR before and after."""
    model = make_model(manager)
    before = held_out_psnr(model, manager)
    losses = train(model, manager, 60)
    model.settle()
    return SimpleNamespace(model=model.eval(), losses=losses, before=before, after=held_out_psnr(model, manager))


def held_out_psnr(model, manager) -> float:
    """Of the first few held-out views, dB."""
    dataset, values = manager.eval_dataset, []
    for index in range(min(4, len(dataset))):
        rgb = model.raw_outputs_for_camera(dataset.cameras[index : index + 1])["rgb"]
        values.append(-10 * float((rgb - dataset[index]["image"][..., :3]).square().mean().log10()))
    return sum(values) / len(values)


ALL_ON = SplatLossWeights(**dict.fromkeys(SplatLossWeights.__dataclass_fields__, 1.0))
