"""Two processes that train together, over both stages: the same weights on both, those of one process with all rays."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from semfield_ns.method_configs.semantic_flow import semantic_flow_paper, semantic_flow_tiny
from tests.semantic_flow.conftest import make_batch, make_model

pytestmark = pytest.mark.slow

STEPS = 20
"""proposal densities are trained in every step before step 10, and in every other one from there on"""
STAGE_ONE = 12
PRESETS = {"tiny": semantic_flow_tiny, "paper": semantic_flow_paper}


def make(name: str):
    """A model of a preset, with all its losses, that goes through both stages."""
    return make_model(PRESETS[name], stage_one_steps=STAGE_ONE)


def loss_of(network, model, step: int, rank: int) -> torch.Tensor:
    model.set_step(step)
    bundle, batch = make_batch(seed=2 * step + rank)
    torch.manual_seed(step)  # jitter and the direction of warped renders
    return sum(model.get_loss_dict(network(bundle), batch).values())


def optimizer_of(model) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for group in model.get_param_groups().values() for p in group], lr=1e-3)


def train_together(rank: int, port: int, output: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    for name in PRESETS:
        model = make(name)
        network = DistributedDataParallel(model, find_unused_parameters=True)  # as Nerfstudio's pipeline wraps it
        optimizer = optimizer_of(model)
        for step in range(STEPS):
            optimizer.zero_grad()
            loss_of(network, model, step, rank).backward()
            optimizer.step()
        torch.save(model.state_dict(), output / f"{name}{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Folder with the weights of every preset and process."""
    output = tmp_path_factory.mktemp("trained")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(train_together, args=(port, output), nprocs=2, start_method="spawn")
    return output


@pytest.mark.parametrize("name", PRESETS)
def test_two_processes_train_as_one(name, trained):
    first, second = (torch.load(trained / f"{name}{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())

    alone = make(name)
    before = {key: value.clone() for key, value in alone.state_dict().items()}
    optimizer = optimizer_of(alone)
    for step in range(STEPS):
        # Each process has a sampler with a schedule of its own; here one model goes twice through a step.
        schedule = getattr(alone, "proposal_sampler", None)
        since = getattr(schedule, "_steps_since_update", None)
        optimizer.zero_grad()
        total = loss_of(alone, alone, step, 0)
        if schedule is not None:
            schedule._steps_since_update = since
        ((total + loss_of(alone, alone, step, 1)) / 2).backward()
        optimizer.step()
    for key, value in alone.state_dict().items():
        assert torch.allclose(first[key].float(), value.float(), atol=1e-5), key
    for key in (
        "branches.static.density.layer.weight",
        "branches.flow.velocity_head.weight",
        "heads.attention.out.weight",
    ):
        assert not torch.equal(first[key], before[key]), key
