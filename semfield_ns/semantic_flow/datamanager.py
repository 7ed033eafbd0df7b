"""The data manager of semantic-flow: rays with targets, encoder features of the frames, labels carried along flow."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.utils.misc import get_dict_to_torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.labelling.evidence import Evidence, gather_evidence
from semfield_ns.rendering.rays import PinholeRays, sent
from semfield_ns.scenes.collection import choose_scenes, one_scene
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.semantic_flow.pixel_sampler import MotionPixelSampler, MotionPixelSamplerConfig
from semfield_ns.semantic_flow.windows import stays_on_disk, windows
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.cache import content_key, mapped_stack, scene_features
from semfield_ns.teachers.registry import build_teacher

AUTO = ("resnet18", "lite", "classical")
"""frame encoders that "auto" tries in turn; the last one needs no weights"""


def build_encoder(name: str, device: torch.device | str, stride: int) -> Teacher:
    """The frame encoder: a teacher, or "auto": the first one of `AUTO` whose weights are at hand.

    Raises:
        SemfieldError: there is no such teacher, or its weights are not at hand.
    """
    if name != "auto":
        return build_teacher(name, stride, device)
    for wanted, instead in pairwise(AUTO):
        try:
            return build_teacher(wanted, stride, device)
        except SemfieldError as error:
            CONSOLE.log(f"Frame encoder: {instead}, because {str(error)[0].lower()}{str(error)[1:]}")
    return build_teacher(AUTO[-1], stride, device)


EVIDENCE_DIM = 48
"""principal components of a pretrained network's features, at most, that the classifier of labels may use"""
LOADERS = 4
"""threads that read the frames of a window"""
BYTES_PER_PIXEL = 68
"""of a frame in memory with everything that it may have: colour, label, masks, depth, flow both ways, carried label"""


@dataclass
class SemanticFlowDataManagerConfig(VanillaDataManagerConfig):
    """Nerfstudio's data manager over a dynamic scene, or over several where `data` is a folder of scenes."""

    _target: type = field(default_factory=lambda: SemanticFlowDataManager)
    dataparser: SemfieldDataParserConfig = field(default_factory=SemfieldDataParserConfig)
    """The scene."""
    scenes: tuple[str, ...] = ()
    """Which of the scenes below `data` to learn together; all of them by default."""
    scenes_per_batch: int = 4
    """Upper limit of the scenes in one batch; each contributes `train_num_rays_per_batch` rays."""
    pixel_sampler: PixelSamplerConfig = field(default_factory=MotionPixelSamplerConfig)
    """Draws half of the rays on moving things."""
    encoder: str = "auto"
    """Frame encoder whose features are gathered along flows: auto, or a teacher such as classical, lite, dinov2."""
    encoder_stride: int = 2
    """Pixels per cell of the classical encoder."""
    encoder_dim: int = 48
    """Upper limit of the channels of a feature; more are reduced by principal components of the scene's own frames."""
    encoder_basis: Literal["own", "common"] = "own"
    """Directions of a wide encoder's features that are kept: "own", principal components of the scene; "common", the
    same fixed ones in every scene. Runs of several scenes, and what is adapted from them, take "common"."""
    evidence_encoders: tuple[str, ...] = ("lite", "lite-fine")
    """What labels are predicted from beside colours, by a classifier that labelled frames choose: pretrained teachers;
    none for colours alone. Where the frame encoder is a pretrained one, it is taken instead."""
    propagate_labels: bool = True
    """Carry labels along the given flow to unlabelled frames, as weighted targets."""
    memory_budget: int = 4096
    """Megabytes of decoded frames in memory, whatever the length of the video: beyond it, training looks at a window of
    frames drawn at random. Image features and colours then stay on disk, unless a GPU has room for them."""
    window_steps: int = 50
    """Steps after which a new window is drawn, if the video does not fit into the budget."""

    def scene_folders(self) -> dict[str, Path]:
        """Name -> folder of the scenes to learn together; empty for a single scene.

        Raises:
            SemfieldError: as `choose_scenes` does.
        """
        root = Path(self.data or self.dataparser.data)
        return {} if one_scene(root) and not self.scenes else choose_scenes(root, self.scenes)

    def setup(self, **kwargs: Any) -> Any:
        """The data manager; that of several scenes where there are several."""
        folders = self.scene_folders()
        if not folders:
            return super().setup(**kwargs)
        from semfield_ns.semantic_flow.many_scenes.data import ManyScenesDataManager

        return ManyScenesDataManager(self, folders, **kwargs)


class FlowDataset(SceneDataset):
    """A scene's frames, with labels carried along flow beside their own where there are any."""

    propagated: Float[Tensor, "frames height width 2"] | None = None
    """Class id and confidence of frames without a label; 0 of others."""
    # Whole frames stay where they were read; rays of them are sent to the device.
    exclude_batch_keys_from_device: list[str] = [  # noqa: RUF012, as Nerfstudio declares it
        *SceneDataset.exclude_batch_keys_from_device,
        "image_idx",
        "propagated_label",
    ]

    def get_metadata(self, data: dict) -> dict:
        """Adds "propagated_label" to the entries of the scene."""
        metadata = super().get_metadata(data)
        if self.propagated is not None:
            metadata["propagated_label"] = self.propagated[data["image_idx"]].float()
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
        dataset.metadata["world"] = outputs.dataparser_scale * outputs.dataparser_transform.double().numpy()
        encoder = build_encoder(self.config.encoder, self.device, self.config.encoder_stride)
        dataset.metadata["source_features"] = self._describe(dataset, encoder, self.config.encoder_dim)
        dataset.metadata["source_moving"] = dataset.moving()
        self._fit_budget(dataset)
        self._add_what_training_needs(dataset, partial(self._evidence, dataset, encoder))
        return dataset

    def _describe(self, dataset: FlowDataset, encoder: Teacher, dim: int, white: bool = True) -> Tensor:
        """Features of all frames, at most `dim` channels of them."""
        return scene_features(
            list(dataset.image_filenames),
            lambda index: dataset.get_image_float32(index)[..., :3],
            encoder,
            dim,
            common=white and self.config.encoder_basis == "common",
            variants=["" if frame.lens is None else repr(frame.lens) for frame in dataset.frames],
            white=white,
        )

    def _evidence(self, dataset: FlowDataset, encoder: Teacher) -> Evidence:
        """What labels tell of all frames."""

        def sources() -> dict[str, Tensor]:
            config = self.config
            colors = build_teacher("classical", config.encoder_stride)
            pretrained = [encoder]
            if encoder.name == colors.name:
                try:
                    pretrained = [build_teacher(name, device=self.device) for name in config.evidence_encoders]
                except SemfieldError as error:
                    CONSOLE.log(f"Labels are predicted from colours alone: {error}")
                    pretrained = []
            found = {"colours": self._describe(dataset, colors, config.encoder_dim)}
            for teacher in pretrained:
                found[teacher.name.split("-")[0]] = self._describe(dataset, teacher, EVIDENCE_DIM, white=False)
            return found

        return gather_evidence(dataset, sources, self.config.propagate_labels)

    def _add_what_training_needs(self, dataset: FlowDataset, gather: Callable[[], Evidence]) -> None:
        """Colours that fields look up, and what labels tell of all frames.

        Renders need that in some settings: whoever opens a run gets `metadata["source_evidence"]`, which finds it out.
        """
        # Half precision: exact to an eighth of an 8-bit level, and half the memory of a 480x270 video.
        dataset.metadata["source_colors"] = mapped_stack(
            content_key(list(dataset.image_filenames), "colors", str(dataset.size(0))),
            (dataset.get_image_float32(index)[..., :3].half().numpy() for index in range(len(dataset))),
            len(dataset),
        )
        evidence = dataset.metadata["source_evidence"] = functools.cache(gather)
        if self.test_mode == "val":  # of the training; nothing else asks for targets
            dataset.propagated = evidence().targets

    def _fit_budget(self, dataset: FlowDataset) -> None:
        """Lets Nerfstudio's loaders keep as many frames as the budget allows, and the rest of a long video on disk."""
        window, fits = window_size(len(dataset), dataset.size(0), self.config.memory_budget)
        height, width = dataset.size(0)
        features: Tensor = dataset.metadata["source_features"]
        colors = len(dataset) * height * width * 3 * torch.half.itemsize
        on_disk = stays_on_disk(features.numel() * features.element_size() + colors, self.device, fits)
        dataset.metadata["on_disk"] = on_disk
        if fits:
            return
        # A copy: what is worked out here must not become a setting of the run's config.yml.
        config = self.config = copy(self.config)
        CONSOLE.log(
            f"{len(dataset)} frames do not fit into {config.memory_budget} MB: training looks at {window} of them at a "
            f"time, others every {config.window_steps} steps" + ("; image features stay on disk." if on_disk else ".")
        )
        config.train_num_images_to_sample_from, config.train_num_times_to_repeat_images = window, config.window_steps
        config.eval_num_images_to_sample_from = min(window, 8)
        config.eval_num_times_to_repeat_images = config.window_steps

    def setup_train(self) -> None:
        """Says what the scene lacks, then sets up Nerfstudio's loaders."""
        self._say_what_is_absent()
        super().setup_train()
        loader = self.train_image_dataloader
        if not loader.cache_all_images:
            self.iter_train_image_dataloader = windows(
                self._load,
                len(self.train_dataset),
                loader.num_images_to_sample_from,
                loader.num_times_to_repeat_images,
                self.device,
            )
        cameras = self.train_ray_generator.cameras
        if cameras.distortion_params is None or not cameras.distortion_params.any():
            self.train_ray_generator = PinholeRays(cameras)  # type: ignore[assignment]

    def _load(self, frames: Sequence[int]) -> dict[str, Any]:
        """Frames as one batch, as Nerfstudio's loader gives them."""
        with ThreadPoolExecutor(LOADERS) as pool:
            batch = self.config.collate_fn(list(pool.map(self.train_dataset.__getitem__, frames)))
        return get_dict_to_torch(batch, device=self.device, exclude=self.exclude_batch_keys_from_device)

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays and their targets, on the device."""
        bundle, batch = super().next_train(step)
        return bundle, {k: sent(v, self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _say_what_is_absent(self) -> None:
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

    def draw_on_moving(self, share: float) -> None:
        """From now on this share of the rays of a step is drawn on moving things."""
        self.train_pixel_sampler.dynamic_fraction = share


def window_size(frames: int, size: tuple[int, int], megabytes: int) -> tuple[int, bool]:
    """How many frames may be in memory, and whether that is all of them.

    Args:
        frames: of the video.
        size: height and width, px.
        megabytes: the budget.
    """
    # While a window is exchanged there are three: the old one, the new frames, and these stacked.
    affordable = max(2, int(megabytes * 2**20 / (3 * BYTES_PER_PIXEL * size[0] * size[1])))
    return min(frames, affordable), frames <= affordable
