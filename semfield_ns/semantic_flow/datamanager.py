"""The data manager of semantic-flow: rays with targets, encoder features of the frames, labels carried along flow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.collection import choose_scenes, is_scene
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.semantic_flow.frames import Votes
from semfield_ns.semantic_flow.pixel_sampler import MotionPixelSampler, MotionPixelSamplerConfig
from semfield_ns.semantic_flow.propagation import Flow, measure, merge, rehearsal_gaps, sides
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.cache import scene_features
from semfield_ns.teachers.registry import build_teacher


def build_encoder(name: str, device: torch.device | str, stride: int) -> Teacher:
    """The frame encoder: a teacher, or "auto": ResNet-18 where its weights are at hand, else the classical descriptor.

    Raises:
        SemfieldError: there is no such teacher, or its weights cannot be had.
    """
    if name != "auto":
        return build_teacher(name, stride, device)
    try:
        return build_teacher("resnet18", stride, device)
    except SemfieldError as error:
        CONSOLE.log(f"Frame encoder: classical descriptor, because {str(error)[0].lower()}{str(error)[1:]}")
        return build_teacher("classical", stride, device)


@dataclass
class SemanticFlowDataManagerConfig(VanillaDataManagerConfig):
    """Nerfstudio's data manager over a dynamic scene, or over several where `data` is a folder of scenes."""

    _target: type = field(default_factory=lambda: SemanticFlowDataManager)
    dataparser: SemfieldDataParserConfig = field(default_factory=SemfieldDataParserConfig)
    """The scene."""
    scenes: tuple[str, ...] = ()
    """Which of the scenes below `data` to learn together; all of them by default."""
    scenes_per_batch: int = 4
    """The most scenes in one batch; each of them gives `train_num_rays_per_batch` rays."""
    pixel_sampler: PixelSamplerConfig = field(default_factory=MotionPixelSamplerConfig)
    """Draws half of the rays on moving things."""
    encoder: str = "auto"
    """Frame encoder whose features are gathered along flows: auto, or a teacher such as classical, resnet18, dinov2."""
    encoder_stride: int = 2
    """Pixels per cell of the classical encoder."""
    encoder_dim: int = 48
    """The most channels of a feature; more are reduced by principal components of the scene's own frames."""
    propagate_labels: bool = True
    """Carry labels along the given flow to unlabelled frames, as weighted targets."""

    def scene_folders(self) -> dict[str, Path]:
        """Name -> folder of the scenes to learn together; empty for a single scene.

        Raises:
            SemfieldError: as `choose_scenes` does.
        """
        root = Path(self.data or self.dataparser.data)
        return {} if is_scene(root) and not self.scenes else choose_scenes(root, self.scenes)

    def setup(self, **kwargs: Any) -> Any:
        """The data manager; that of several scenes where there are several."""
        folders = self.scene_folders()
        if not folders:
            return super().setup(**kwargs)
        from semfield_ns.semantic_flow.many_scenes_data import ManyScenesDataManager

        return ManyScenesDataManager(self, folders, **kwargs)


class FlowDataset(SceneDataset):
    """A scene's frames, with labels carried along flow beside their own where there are any."""

    propagated: dict[int, Tensor] | None = None
    """Frame -> [height, width, 2]: class id (or `IGNORE`) and confidence."""

    def get_metadata(self, data: dict) -> dict:
        """Adds "propagated_label" to the entries of the scene."""
        metadata = super().get_metadata(data)
        if self.propagated is not None:
            height, width = data["image"].shape[:2]
            nothing = torch.zeros(height, width, 2)
            metadata["propagated_label"] = self.propagated.get(data["image_idx"], nothing)
        return metadata


class SemanticFlowDataManager(VanillaDataManager[FlowDataset]):
    """Rays of a video. Everything the model reads about frames goes through `train_dataset.metadata`."""

    config: SemanticFlowDataManagerConfig
    train_pixel_sampler: MotionPixelSampler

    def create_train_dataset(self) -> FlowDataset:
        """The training frames, with their cameras and encoder features in `metadata`."""
        dataset = super().create_train_dataset()
        dataset.metadata["cameras"] = dataset.cameras
        outputs = self.train_dataparser_outputs
        dataset.metadata["world"] = outputs.dataparser_scale * outputs.dataparser_transform[:, :3].double().numpy()
        encoder = build_encoder(self.config.encoder, self.device, self.config.encoder_stride)
        dataset.metadata["source_features"] = scene_features(
            list(dataset.image_filenames),
            lambda index: dataset.get_image_float32(index)[..., :3],
            encoder,
            self.config.encoder_dim,
        )
        # Half precision: exact to an eighth of an 8-bit level, and half the memory of a 480x270 video.
        dataset.metadata["source_colors"] = torch.stack(
            [dataset.get_image_float32(index)[..., :3].half() for index in range(len(dataset))]
        )
        dataset.metadata["source_moving"] = dataset.moving()
        dataset.metadata["source_votes"] = None
        if self.config.propagate_labels:
            self._carry_labels(dataset)
        return dataset

    def setup_train(self) -> None:
        """Says what the scene lacks, carries labels, then sets up Nerfstudio's loaders."""
        sample = self.train_dataset[0]
        absent = {
            "flow_forward": "no optical flow: flow losses are off",
            "depth": "no depth: depth losses are off",
            "dynamic_mask": "no motion masks: every ray trains both branches, mask losses are off",
            "semantics": "no labels: semantic losses are off",
        }
        for key, message in absent.items():
            if key not in sample:
                CONSOLE.log(f"This scene has {message}.")
        super().setup_train()

    def _carry_labels(self, dataset: FlowDataset) -> None:
        """Carries visible labels along the flow: targets for unlabelled frames, and votes for all."""
        labelled, count = dataset.metadata["labelled"], len(dataset)
        sizes = {dataset.size(index) for index in range(count)}
        if not 0 < len(labelled) < count or len(sizes) > 1 or "flow_forward" not in dataset[0]:
            return
        labels = {index: dataset.semantics(index)[..., 0].numpy() for index in labelled}
        flows: dict[str, list[Flow | None]] = {"flow_forward": [], "flow_backward": []}
        for index in range(count):
            entry = dataset[index]
            for key, found in flows.items():
                found.append(_flow(entry.get(key)))
        gaps = rehearsal_gaps(labelled, count)
        voices = [sides(f, labels, flows["flow_forward"], flows["flow_backward"], gaps.get(f, 1)) for f in range(count)]
        reliability = measure((v, labels[f]) for f in labelled for v in voices[f] if v is not None)
        CONSOLE.log(f"Labels carried along the flow: {reliability}")
        shape, classes = sizes.pop(), len(dataset.metadata["label_map"])
        silent = np.full(shape, IGNORE), np.zeros(shape, np.float32)
        heard = [
            [silent if v is None else (v.labels, reliability.evidence(v, classes)) for v in both] for both in voices
        ]
        dataset.propagated = {}
        for frame in set(range(count)) - set(labels):
            merged = merge(heard[frame], classes)
            dataset.propagated[frame] = torch.from_numpy(
                np.stack([merged.labels, merged.confidence], axis=-1).astype(np.float32)
            )
        dataset.metadata["source_votes"] = Votes(
            torch.from_numpy(np.array([[said.clip(0) for said, _ in both] for both in heard], dtype=np.uint8)),
            torch.from_numpy(np.array([[weight for _, weight in both] for both in heard], dtype=np.float16)),
            torch.tensor([frame in labels for frame in range(count)]),
        )

    @property
    def dynamic_fraction(self) -> float:
        """Part of the rays of a step that are drawn on moving things."""
        return self.train_pixel_sampler.dynamic_fraction

    @dynamic_fraction.setter
    def dynamic_fraction(self, value: float) -> None:
        self.train_pixel_sampler.dynamic_fraction = value


def _flow(entry: Tensor | None) -> Flow | None:
    """A dataset's flow entry [height, width, 3]; None where no pixel is valid (the end of a clip)."""
    if entry is None or not bool((entry[..., 2] > 0.5).any()):
        return None
    return Flow(entry[..., :2].numpy(), entry[..., 2].numpy() > 0.5)
