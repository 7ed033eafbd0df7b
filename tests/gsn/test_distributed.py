"""Two processes that train together: the same weights on both, and those of one process with all rays."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from semfield_ns.gsn import datamanager
from tests.gsn.builders import small_pipeline, write_scenes

pytestmark = pytest.mark.slow

STEPS = 20
FIRST = 0  # step 4 begins the second stage


def batches(pipeline):
    """The same steps wherever they are drawn: two of one scene, one a rank."""
    return [[pipeline.datamanager.rays_of(pipeline.datamanager.draw()) for _ in range(2)] for _ in range(STEPS)]


def two_targets(pixels, rays, most):
    return 2


def make(root):
    pipeline = small_pipeline(root)
    # Guided and uniform steps are drawn at random; here all are uniform, and nothing is jittered differently.
    pipeline.model.config.rays.mode = "uniform"
    pipeline.model.train()
    return pipeline


def loss_of(network, model, step, bundle, batch):
    torch.manual_seed(step)  # the jitter of samples
    model.set_step(step)
    return sum(model.get_loss_dict(network(bundle), batch).values())


def optimizer_of(pipeline):
    return torch.optim.SGD([p for group in pipeline.get_param_groups().values() for p in group], lr=1e-2)


def train_together(rank: int, root: Path, port: int, output: Path) -> None:
    torch.set_num_threads(1)
    datamanager.targets_worth = two_targets
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=120))
    pipeline = make(root)
    network = DistributedDataParallel(pipeline.model, find_unused_parameters=True)
    optimizer = optimizer_of(pipeline)
    for step, pair in enumerate(batches(pipeline), start=FIRST):
        optimizer.zero_grad()
        loss_of(network, pipeline.model, step, *pair[rank]).backward()
        optimizer.step()
    torch.save(pipeline.model.state_dict(), output / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datamanager, "targets_worth", two_targets)
    root = write_scenes(tmp_path / "scenes", count=1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(train_together, args=(root, port, tmp_path), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())

    alone = make(root)
    before = {key: value.clone() for key, value in alone.model.state_dict().items()}
    optimizer = optimizer_of(alone)
    for step, pair in enumerate(batches(alone), start=FIRST):
        optimizer.zero_grad()
        (sum(loss_of(alone.model, alone.model, step, *part) for part in pair) / 2).backward()
        optimizer.step()
    for key, value in alone.model.state_dict().items():
        assert torch.allclose(first[key].float(), value.float(), atol=1e-5), key
    for group in ("network.feature_net.conv1.weight", "network.net_coarse.rgb_fc.weight", "network.dino.dinofc.weight"):
        assert not torch.equal(first[group], before[group]), group
