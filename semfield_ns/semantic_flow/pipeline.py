"""Joins the data manager and the model of semantic-flow: which rays a stage wants."""

from dataclasses import dataclass, field
from typing import Any

from semfield_ns.pipeline import SemfieldPipeline, SemfieldPipelineConfig


@dataclass
class SemanticFlowPipelineConfig(SemfieldPipelineConfig):
    """The shared pipeline, with a data manager that follows the model's stages."""

    _target: type = field(default_factory=lambda: SemanticFlowPipeline)


class SemanticFlowPipeline(SemfieldPipeline):
    """Asks the model which part of a step's rays should be dynamic."""

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """See Nerfstudio's pipeline."""
        self.datamanager.dynamic_fraction = self.model.dynamic_fraction(step)
        return super().get_train_loss_dict(step)
