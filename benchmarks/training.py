"""Trains the tiny preset in this process, for the benchmarks: same seeds, same schedule, a clock that they can stop."""

import platform
import random
import resource
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.engine.optimizers import Optimizers
from rich.progress import track

from semfield_ns.method_configs.semantic_flow import semantic_flow_tiny
from semfield_ns.semantic_flow.many_scenes.adaptation import for_adaptation, transfer
from semfield_ns.semantic_flow.pipeline import decode_classes

Head = Literal["flow", "point"]


@dataclass(frozen=True)
class Job:
    """What to train on, and how."""

    scene: Path
    labels: str = "all"
    dynamic_masks: Literal["all", "labelled", "none"] = "all"
    head: Head = "flow"
    seed: int = 0
    steps: int | None = None
    """of the preset by default; stage 1 keeps its share"""
    checkpoint: Path | None = None
    """to adapt"""
    shared: Literal["semantics", "networks"] = "networks"
    """what several scenes share"""
    rays: int | None = None
    """a step; of the preset by default"""
    carry: bool = True
    """labels carried along the flow, and the labels of neighbouring renders: False trains semantics without flow"""
    evidence: bool = False
    """of one picture and of carried labels, in the semantic heads"""
    eval_frames: Literal["auto", "held-out", "unlabelled", "train"] = "auto"

    def config(self):
        """The tiny preset with all this in it."""
        config = deepcopy(semantic_flow_tiny.config)
        manager, model = config.pipeline.datamanager, config.pipeline.model
        manager.data = manager.dataparser.data = self.scene
        manager.dataparser.labels = self.labels
        manager.dataparser.dynamic_masks = self.dynamic_masks
        manager.dataparser.eval_frames = self.eval_frames
        manager.train_num_rays_per_batch = self.rays or manager.train_num_rays_per_batch
        model.semantic_head, model.evidence = self.head, self.evidence
        if not self.carry:
            manager.propagate_labels = False
            model.loss_weights.semantics_warp = 0.0
        model.shared = self.shared
        if self.steps is not None:
            fitted = shortened if self.checkpoint is None else for_adaptation
            fitted(config, self.steps, config.max_num_iterations)
            config.max_num_iterations = self.steps
        return config


def shortened(settings: Any, steps: int, length: int) -> None:
    """Fits a preset's schedule of `length` steps to `steps` of them: learning rates, stages, sampling.

    Args:
        settings: a trainer's configuration of semantic-flow; changed.
        steps: of the training.
        length: of the schedule.
    """
    share = min(steps / max(length, 1), 1.0)
    model = settings.pipeline.model
    model.stage_one_steps = round(model.stage_one_steps * share)
    model.proposal_anneal_steps = max(1, round(model.proposal_anneal_steps * share))
    for group in settings.optimizers.values():
        if group["scheduler"] is not None and share < 1:
            group["scheduler"].max_steps = max(1, steps)


def train(job: Job, at: dict[int, Callable] | None = None):
    """Trains; returns the pipeline in evaluation mode and the seconds of training.

    Args:
        job: what to train.
        at: finished steps -> what to do then with the pipeline and the seconds so far; does not count as training.
    """
    config = job.config()
    steps = config.max_num_iterations
    for seeded in (torch.manual_seed, random.seed, np.random.seed):
        seeded(job.seed)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    if job.checkpoint is not None:
        state = torch.load(job.checkpoint, map_location="cpu")["pipeline"]
        print(transfer(pipeline.model, state, [entry.name for entry in decode_classes(state)]).sentence())
    groups = pipeline.get_param_groups()
    optimizers = Optimizers({name: config.optimizers[name] for name in groups}, groups)
    spent, start = 0.0, time.perf_counter()
    pipeline.train()
    for step in track(range(steps), description=f"{job.head} head, seed {job.seed}", transient=True):
        pipeline.model.set_step(step)
        optimizers.zero_grad_all()
        _, losses, _ = pipeline.get_train_loss_dict(step)
        sum(losses.values()).backward()
        optimizers.optimizer_step_all()
        for scheduler in optimizers.schedulers.values():
            scheduler.step()
        if at and step + 1 in at:
            spent += time.perf_counter() - start
            at[step + 1](pipeline.eval(), spent)
            pipeline.train()
            start = time.perf_counter()
    return pipeline.eval(), spent + time.perf_counter() - start


def machine() -> str:
    """Where and when figures were taken, for below a table."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    processor = platform.processor() or platform.machine()
    where = f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{where}, {date.today()}; peak memory {peak:.2f} GiB"
