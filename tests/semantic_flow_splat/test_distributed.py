"""Several processes that train together: other pictures, the same Gaussians, those of one process with all pictures."""

import json
import socket
from copy import copy, deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer
from nerfstudio.pipelines import base_pipeline
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from semfield_ns.method_configs.semantic_flow_splat import semantic_flow_splat_tiny
from semfield_ns.scenes.synthetic import write_scene

STEPS = 20
FRAMES = 8
BEFORE = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION


def set_up(data: Path, output: Path, rank: int = 0, world_size: int = 1, load_dir: Path | None = None) -> Trainer:
    """A trainer of the tiny preset whose Gaussians become more at steps 7 and 14."""
    config = deepcopy(semantic_flow_splat_tiny.config)
    config.data = config.pipeline.datamanager.data = data
    config.output_dir, config.timestamp, config.vis, config.load_dir = output, "now", "tensorboard", load_dir
    config.max_num_iterations, config.steps_per_save, config.steps_per_eval_image = STEPS, STEPS, 8
    config.pipeline.datamanager.dataparser.labels = "every-2"  # every other picture has a loss that others lack
    settings = config.pipeline.model
    settings.start_gaussians, settings.max_gaussians, settings.network_batch = 1500, 2000, 512
    settings.grow_every, settings.gather_every = 7, 5
    for group in config.optimizers.values():
        group["optimizer"].eps = 1e-6  # rounding errors of gradients that are zero are no reason for whole steps
    torch.manual_seed(rank)  # one of its own for each process, as Nerfstudio gives it
    trainer = config.setup(local_rank=rank, world_size=world_size)
    trainer.setup()
    # Which Gaussians the network looks at is drawn as it is in the other process.
    trainer.callbacks.append(TrainingCallback([BEFORE], lambda step: torch.manual_seed(step), 1))
    return trainer


def result_of(trainer: Trainer) -> dict:
    """What all processes must have alike, and the files that this one has written."""
    model, optimizers = trainer.pipeline.model, trainer.optimizers.optimizers
    memory = {name: optimizer.state_dict()["state"] for name, optimizer in optimizers.items()}
    return {
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "memory": {f"{name} {n} {key}": v for name, m in memory.items() for n, s in m.items() for key, v in s.items()},
        "files": sorted(path.name for path in trainer.base_dir.rglob("*") if path.is_file()),
    }


def train_together(rank: int, data: Path, port: int, output: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=240))
    # Nerfstudio's pipeline takes it that every process has a GPU.
    wrap = DistributedDataParallel.__init__
    DistributedDataParallel.__init__ = lambda own, module, device_ids=None, **settings: wrap(own, module, **settings)
    base_pipeline.dist = SimpleNamespace(barrier=lambda device_ids: dist.barrier())
    trainer = set_up(data, output / str(rank), rank, 2)
    started = len(trainer.pipeline.model.gaussians)
    trainer.train()
    assert len(trainer.pipeline.model.gaussians) > started
    torch.save(result_of(trainer), output / f"{rank}.pt")
    dist.barrier()
    # A checkpoint has more Gaussians than the scene begins with.
    (saved,) = (output / "0").rglob("nerfstudio_models")
    resumed = set_up(data, output / f"resumed {rank}", rank, 2, saved)
    resumed.config.max_num_iterations = 2
    resumed.train()
    torch.save(result_of(resumed), output / f"resumed {rank}.pt")
    dist.destroy_process_group()


def train_alone(data: Path, output: Path) -> Trainer:
    """The same steps in one process, each with the pictures of both."""
    trainer = set_up(data, output)
    pipeline, optimizers = trainer.pipeline, trainer.optimizers
    for step in range(STEPS):
        pipeline.train()
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, BEFORE)
        optimizers.zero_grad_all()
        for _ in range(2):
            torch.manual_seed(step)
            (sum(pipeline.get_train_loss_dict(step)[1].values()) / 2).backward()
        optimizers.optimizer_step_all()
        optimizers.scheduler_step_all(step)
    return trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, some pictures of which are smaller than the others."""
    folder = tmp_path_factory.mktemp("data")
    write_scene("demo", folder, num_frames=FRAMES, width=64, height=48, samples_per_axis=1)
    meta = json.loads((folder / "transforms.json").read_text())
    for frame in meta["frames"][1:FRAMES:3]:
        path = folder / frame["file_path"]
        Image.open(path).resize((32, 24)).save(path)
        for key in frame.keys() - {"file_path"}:
            if key.endswith("_path"):
                del frame[key]
        frame.update(w=32, h=24, fl_x=meta["fl_x"] / 2, fl_y=meta["fl_y"] / 2, cx=16, cy=12)
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def drawn(manager, count: int, steps: int, **settings) -> torch.Tensor:
    """The frames that several processes get, [steps, processes]."""
    order = []
    for rank in range(count):
        own = copy(manager)
        own.local_rank, own.world_size, own.config = rank, count, replace(manager.config, **settings)
        own.setup_train()
        torch.manual_seed(0)  # the others are sent what the first process draws
        order.append([int(own.next_train(step)[0].metadata["frame"]) for step in range(steps)])
    return torch.tensor(order).T


def different(steps: torch.Tensor) -> bool:
    """Whether no two processes get the same frame in a step."""
    return all(len(step.unique()) == len(step) for step in steps)


def test_processes_are_given_different_pictures(manager):
    steps = drawn(manager, 2, 3 * FRAMES // 2)
    assert all(part.unique().tolist() == list(range(FRAMES)) for part in steps.split(FRAMES // 2))
    # Two of each round are too few for three processes.
    steps = drawn(manager, 3, 40)
    assert different(steps) and steps.unique().tolist() == list(range(FRAMES))


def test_processes_look_at_the_same_window_of_a_long_video(manager):
    steps = drawn(manager, 2, 60, memory_budget=2, window_steps=3)
    assert different(steps) and steps.unique().tolist() == list(range(FRAMES))
    assert all(len(part.unique()) <= 3 for part in steps.split(3))


def test_more_processes_than_pictures_share_them(manager):
    steps = drawn(manager, FRAMES + 2, 4)
    assert steps.flatten().bincount().tolist() == [5] * FRAMES


@pytest.mark.slow
def test_two_processes_train_as_one(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(train_together, args=(data, port, tmp_path), nprocs=2, start_method="spawn")
    for name in ("", "resumed "):
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in range(2))
        for kind in ("weights", "memory"):
            assert first[kind].keys() == second[kind].keys()
            for key, value in first[kind].items():
                assert torch.equal(value, second[kind][key]), (name, kind, key)
        assert any(file.endswith(".ckpt") for file in first["files"])
        assert not any(file.endswith(".ckpt") or "events" in file for file in second["files"])

    together = torch.load(tmp_path / "0.pt", weights_only=True)
    alone = result_of(train_alone(data, tmp_path / "alone"))
    for kind in ("weights", "memory"):
        assert alone[kind].keys() == together[kind].keys()
        for key, value in alone[kind].items():
            assert torch.allclose(together[kind][key], value, rtol=0, atol=1e-5), (kind, key)
    for key, value in alone["memory"].items():
        assert bool(value.any()) == (value.numel() > 0), key  # nothing stays as it was
