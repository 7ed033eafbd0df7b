"""Adam in one pass over memory."""

from dataclasses import dataclass

from nerfstudio.engine.optimizers import AdamOptimizerConfig


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """torch's fused Adam: of tables with millions of numbers the usual one takes longer than their gradients."""

    fused: bool = True
    """Let one kernel do a whole step."""
