"""Several scenes at once: a data manager for each, and batches that have rays of all of them."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import DataManager
from torch.nn import Parameter

from semfield_ns.scenes.collection import merge_classes
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.labels import SemanticClass

if TYPE_CHECKING:
    from semfield_ns.semantic_flow.datamanager import (
        FlowDataset,
        SemanticFlowDataManager,
        SemanticFlowDataManagerConfig,
    )

SceneRays = list[tuple[int, RayBundle]]
"""Number of a scene and rays of it, for each scene of a batch."""


class ManyScenesDataManager(DataManager):
    """One `SemanticFlowDataManager` a scene, all with one list of classes.

    A training batch holds rays of up to `scenes_per_batch` scenes: `SceneRays`, and the targets by number of the scene.
    Evaluation goes through all scenes; cameras and batches then carry the number as "scene". What Nerfstudio wants of a
    single data set (the viewer's cameras) is that of the first scene.

    Args:
        config: of every member, but for the data.
        folders: name -> folder of each scene.
        device: of the rays.
        test_mode: as of Nerfstudio's data managers.
        world_size: number of processes.
        local_rank: of this process.
        kwargs: not used.

    Raises:
        SemfieldError: a scene cannot be read, or two disagree about a class.
    """

    includes_time = True

    def __init__(
        self,
        config: "SemanticFlowDataManagerConfig",
        folders: Mapping[str, Path],
        device: torch.device | str = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        self.config, self.device, self.test_mode = config, device, test_mode
        self.world_size, self.local_rank = world_size, local_rank
        self.folders = dict(folders)
        self.names = list(folders)
        self.classes = config.dataparser.classes or merge_classes(
            {name: read_scene(path, config.dataparser.images).label_map for name, path in folders.items()}
        )
        self.members: list[SemanticFlowDataManager] = [
            member_config(config, path, self.classes).setup(
                device=device, test_mode=test_mode, world_size=world_size, local_rank=local_rank
            )
            for path in folders.values()
        ]
        self.test_split = self.members[0].test_split
        self.train_dataset: FlowDataset = self.members[0].train_dataset
        self.eval_dataset: FlowDataset = self.members[0].eval_dataset
        self.train_dataparser_outputs = self.members[0].train_dataparser_outputs
        self.dataparser = self.members[0].dataparser
        metadata = [dict(member.train_dataset.metadata) for member in self.members]
        self.train_dataset.metadata["scenes"] = dict(zip(self.names, metadata, strict=True))
        super().__init__()

    def setup_train(self) -> None:
        """Nothing to do: the members have done it."""

    def setup_eval(self) -> None:
        """Nothing to do."""

    @property
    def fixed_indices_eval_dataloader(self) -> "EvaluationImages":
        """Every evaluated image of every scene, one scene after the other."""
        return EvaluationImages(self.members)

    def draw_on_moving(self, share: float) -> None:
        """From now on this share of the rays of a step is drawn on moving things, in each scene."""
        for member in self.members:
            member.draw_on_moving(share)

    def next_train(self, step: int) -> tuple[Any, Any]:
        """Rays and targets of some scenes; of the first alone, as one bundle, where nothing is trained (ns-export)."""
        self.train_count += 1
        if self.test_mode != "val":
            return self.members[0].next_train(step)
        chosen = torch.randperm(len(self.members))[: self.config.scenes_per_batch].sort().values.tolist()
        drawn = {scene: self.members[scene].next_train(step) for scene in chosen}
        return [(scene, rays) for scene, (rays, _) in drawn.items()], {k: batch for k, (_, batch) in drawn.items()}

    def next_eval(self, step: int) -> tuple[RayBundle, dict]:
        """Rays of the first scene's evaluated images."""
        self.eval_count += 1
        return self.members[0].next_eval(step)

    def next_eval_image(self, step: int) -> tuple[Cameras, dict]:
        """An evaluated image; the scenes take turns."""
        self.eval_count += 1
        scene = self.eval_count % len(self.members)
        return tagged(scene, *self.members[scene].next_eval_image(step))

    def get_train_rays_per_batch(self) -> int:
        """Rays of a training step, of all its scenes."""
        return self.config.train_num_rays_per_batch * min(len(self.members), self.config.scenes_per_batch)

    def get_eval_rays_per_batch(self) -> int:
        """Rays of an evaluation step."""
        return self.config.eval_num_rays_per_batch

    def get_datapath(self) -> Path:
        """Folder of the scenes, where the viewer saves camera paths."""
        return Path(self.config.data or self.config.dataparser.data)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """None: nothing is learned here."""
        return {}


class EvaluationImages:
    """(camera, batch) of every evaluated image of every scene."""

    def __init__(self, members: "list[SemanticFlowDataManager]") -> None:
        self.members = members

    def __len__(self) -> int:
        return sum(len(member.eval_dataset) for member in self.members)

    def __iter__(self) -> Iterator[tuple[Cameras, dict]]:
        for scene, member in enumerate(self.members):
            for camera, batch in member.fixed_indices_eval_dataloader:
                yield tagged(scene, camera, batch)


def tagged(scene: int, camera: Cameras, batch: dict) -> tuple[Cameras, dict]:
    """Both with the number of their scene."""
    camera.metadata = {**(camera.metadata or {}), "scene": torch.tensor([[scene]])}
    return camera, {**batch, "scene": scene}


def member_config(
    config: "SemanticFlowDataManagerConfig", folder: Path, classes: tuple[SemanticClass, ...]
) -> "SemanticFlowDataManagerConfig":
    """The configuration of one scene's own data manager."""
    member = deepcopy(config)
    member.data, member.scenes, member.encoder_basis = folder, (), "common"
    member.memory_budget = max(1, config.memory_budget // max(len(config.scene_folders()), 1))
    member.dataparser.data, member.dataparser.classes = folder, classes
    return member
