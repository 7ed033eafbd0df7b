"""Learning rates of two stages in one run."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


@dataclass
class TwoStageSchedulerConfig(SchedulerConfig):
    """Halves the rate at regular steps, and multiplies it by a factor when the second stage begins."""

    _target: type = field(default_factory=lambda: TwoStageScheduler)
    stage_one_steps: int = 300_000
    """First step of the second stage; in training that of the model, whatever is said here (see `follow_stages`)."""
    stage_two_factor: float = 1.0
    """Of the rate, from then on."""
    halve_every: int = 50_000
    """Steps, counted from the beginning of the stage."""
    warmup: int = 0
    """Steps over which the rate of the first stage rises from nothing."""


class TwoStageScheduler(Scheduler):
    config: TwoStageSchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """A multiplier of the optimizer's own rate."""
        return LambdaLR(optimizer, lr_lambda=self.multiplier)

    def multiplier(self, step: int) -> float:
        """What the rate is multiplied by at a step."""
        config = self.config
        second = step >= config.stage_one_steps
        since = step - config.stage_one_steps if second else step
        factor = config.stage_two_factor if second else min(1.0, (step + 1) / max(config.warmup, 1))
        return factor * 0.5 ** (since // max(config.halve_every, 1))


def follow_stages(schedulers: Iterable[LRScheduler], stage_one_steps: int) -> None:
    """Lets rates change when the model's second stage begins: a user who moves it sets it once."""
    for scheduler in schedulers:
        for multiplier in getattr(scheduler, "lr_lambdas", ()):
            owner = getattr(multiplier, "__self__", None)
            if isinstance(owner, TwoStageScheduler):
                owner.config.stage_one_steps = stage_one_steps
                # The rate of the next step was set by what was known before.
                groups = scheduler.optimizer.param_groups
                for group, base in zip(groups, scheduler.base_lrs, strict=True):
                    group["lr"] = base * owner.multiplier(scheduler.last_epoch)
