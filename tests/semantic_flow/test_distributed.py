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

STEPS = 16
"""proposal densities are trained in every step before step 10, and in every other one from there on"""
STAGE_ONE = 12


def make(preset):
    """A model whose two stages are both trained, with all losses of its preset."""
    return make_model(preset, stage_one_steps=STAGE_ONE)


def loss_of(network, model, step: int, rank: int) -> torch.Tensor:
    model.set_step(step)
    bundle, batch = make_batch(seed=2 * step + rank)
    torch.manual_seed(step)  # jitter and the direction of warped renders
    return sum(model.get_loss_dict(network(bundle), batch).values())


def optimizer_of(model) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for group in model.get_param_groups().values() for p in group], lr=1e-3)


def train_together(rank: int, preset, port: int, output: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    model = make(preset)
    network = DistributedDataParallel(model, find_unused_parameters=True)  # as Nerfstudio's pipeline wraps it
    optimizer = optimizer_of(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(network, model, step, rank).backward()
        optimizer.step()
    torch.save(model.state_dict(), output / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("preset", [semantic_flow_tiny, semantic_flow_paper], ids=lambda p: p.config.method_name)
def test_two_processes_train_as_one(preset, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(train_together, args=(preset, port, tmp_path), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())

    alone = make(preset)
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
        assert torch.allclose(first[key].float(), value.float(), atol=1e-4), key
    for key in (
        "branches.static.density.layer.weight",
        "branches.flow.velocity_head.weight",
        "heads.attention.out.weight",
    ):
        assert not torch.equal(first[key], before[key]), key
