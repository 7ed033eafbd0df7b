"""Adam in one pass over memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig


class FusedAdam(torch.optim.Adam):
    """torch's Adam, whose fused kernel changes parameters without a note in their version counters.

    What is kept of weights until they change goes by these: stacked planes, and pictures in the viewer.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see `torch.optim.Adam`."""
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    torch.autograd.graph.increment_version(parameter)
        return loss


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """torch's fused Adam: of tables with millions of numbers the usual one takes longer than their gradients."""

    _target: type = field(default_factory=lambda: FusedAdam)
    fused: bool = True
    """Let one kernel do a whole step."""
