"""Nerfstudio's trainer, which also adapts a checkpoint to another scene and gives each of several scenes a config."""

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from semfield_ns.io import write_text
from semfield_ns.scenes.formats import read_scene
from semfield_ns.semantic_flow.pipeline import decode_classes

SCENE_CONFIGS = "scenes"
"""Folder of a run of several scenes with a config.yml for each: NAME.yml."""


@dataclass
class SemanticFlowTrainerConfig(TrainerConfig):
    """Nerfstudio's settings of a run.

    `load_checkpoint` of a run on other data adapts it to `data`; `load_dir` goes on with a run.
    """

    _target: type = field(default_factory=lambda: SemanticFlowTrainer)


class SemanticFlowTrainer(Trainer):
    """Adapts where a checkpoint of other data is given."""

    config: SemanticFlowTrainerConfig
    _source: dict[str, Any] | None = None
    """The checkpoint to adapt."""

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Reads the checkpoint to adapt, if there is one, sets everything up and writes the config.yml anew."""
        config = self.config
        if config.load_dir is None and config.load_checkpoint is not None and not resumes(config):
            from semfield_ns.semantic_flow.many_scenes.adaptation import for_adaptation

            self._source = self._read_checkpoint(config.load_checkpoint)
            manager: Any = config.pipeline.datamanager
            if any(key.startswith("_model.scenes.") for key in self._source["pipeline"]):
                manager.encoder_basis = "common"
            paths = list(manager.scene_folders().values()) or [Path(manager.data)]
            # A new scene's own list of classes counts; one without labels is given that of the checkpoint.
            if all(read_scene(path, manager.dataparser.images).label_map is None for path in paths):
                manager.dataparser.classes = decode_classes(self._source["pipeline"])
            lengths = [group["scheduler"].max_steps for group in config.optimizers.values() if group["scheduler"]]
            for_adaptation(config, config.max_num_iterations, max(lengths, default=0))
        super().setup(test_mode)
        if self.local_rank == 0:
            self._write_configs()

    def train(self) -> None:
        """Trains; with 0 iterations, which Nerfstudio's trainer cannot do, saves the adapted checkpoint as it is."""
        if self.config.max_num_iterations > 0:
            super().train()
            return
        self.save_checkpoint(0)
        CONSOLE.print(f"No training steps were requested. Wrote {self.base_dir / 'config.yml'}")

    def _read_checkpoint(self, path: Path) -> dict[str, Any]:
        return torch.load(path, map_location="cpu")

    def _load_checkpoint(self) -> None:
        if self._source is None:
            super()._load_checkpoint()
            return
        from semfield_ns.semantic_flow.many_scenes.adaptation import transfer

        state = self._source["pipeline"]
        names = [entry.name for entry in decode_classes(state)]
        model: Any = self.pipeline.model
        for entry in getattr(model, "models", [model]):
            report = transfer(entry, state, names)
        CONSOLE.log(f"Adapting {self.config.load_checkpoint} to other data. {report.sentence()}")

    def _write_configs(self) -> None:
        """config.yml anew, with what setup found out; and one a scene where there are several."""
        from semfield_ns.semantic_flow.many_scenes.data import ManyScenesDataManager, member_config

        write_text(self.base_dir / "config.yml", yaml.dump(self.config))
        manager: Any = self.pipeline.datamanager
        if isinstance(manager, ManyScenesDataManager):
            for name, folder in manager.folders.items():
                own: Any = deepcopy(self.config)
                own.data = folder
                own.pipeline.datamanager = member_config(manager.config, folder, manager.classes)
                own.pipeline.scene = name
                path = self.base_dir / SCENE_CONFIGS / f"{name.replace('/', '_')}.yml"
                write_text(path, yaml.dump(own))


def resumes(config: TrainerConfig) -> bool:
    """Whether the checkpoint that is to be loaded is one of a run on the same data."""
    assert config.load_checkpoint is not None
    beside = config.load_checkpoint.parent.parent / "config.yml"
    if not beside.is_file():
        return False
    # Nerfstudio's own way to read a run's configuration; like every ns-* command it trusts the file.
    before = yaml.load(beside.read_text(encoding="utf-8"), Loader=yaml.Loader)
    data, other = (entry.pipeline.datamanager.data for entry in (config, before))
    return data is not None and other is not None and Path(data).resolve() == Path(other).resolve()
