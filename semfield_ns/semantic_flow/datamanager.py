"""The data manager of semantic-flow: rays with targets, encoder features of the frames, labels carried along flow."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float16
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.per_frame import Linear, classify, fit_linear
from semfield_ns.scenes.collection import choose_scenes, one_scene
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.semantic_flow.frames import Votes
from semfield_ns.semantic_flow.pixel_sampler import MotionPixelSampler, MotionPixelSamplerConfig
from semfield_ns.semantic_flow.propagation import Carried, Flow, LabelImage, measure, merge, rehearsal_gaps, sides
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.cache import cache_root, content_key, mapped_stack, scene_features
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


BYTES_PER_PIXEL = 68
"""of a frame in memory with everything that it may have: colour, label, masks, depth, flow both ways, carried label"""
KEPT = 16
"""flows and labels of so many frames are kept while labels are carried"""
CLASSIFIER_FRAMES = 16
"""labelled frames, at most, that the first classifier is fitted on"""
REHEARSALS = 48
"""labelled frames at which carried labels are compared with the truth, at most"""
FLOW_FIELDS = ("flow_fwd_path", "flow_bwd_path")


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
    encoder_basis: Literal["own", "common"] = "own"
    """Directions of a wide encoder's features that are kept: "own", principal components of the scene; "common", the
    same fixed ones in every scene. Runs of several scenes, and what is adapted from them, take "common"."""
    propagate_labels: bool = True
    """Carry labels along the given flow to unlabelled frames, as weighted targets."""
    memory_budget: int = 4096
    """Megabytes of decoded frames in memory, whatever the length of the video: beyond it, training looks at a window of
    frames drawn at random, and image features and colours stay on disk."""
    window_steps: int = 50
    """Steps after which a window is drawn anew, where the video does not fit into the budget."""

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
        from semfield_ns.semantic_flow.many_scenes_data import ManyScenesDataManager

        return ManyScenesDataManager(self, folders, **kwargs)


class FlowDataset(SceneDataset):
    """A scene's frames, with labels carried along flow beside their own where there are any."""

    propagated: Float16[Tensor, "frames height width 2"] | None = None
    """Class id (or `IGNORE`) and confidence, 0 where nothing was carried."""

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
        dataset.metadata["world"] = outputs.dataparser_scale * outputs.dataparser_transform[:, :3].double().numpy()
        encoder = build_encoder(self.config.encoder, self.device, self.config.encoder_stride)
        files = list(dataset.image_filenames)
        dataset.metadata["source_features"] = scene_features(
            files,
            lambda index: dataset.get_image_float32(index)[..., :3],
            encoder,
            self.config.encoder_dim,
            common=self.config.encoder_basis == "common",
        )
        # Half precision: exact to an eighth of an 8-bit level, and half the memory of a 480x270 video.
        dataset.metadata["source_colors"] = mapped_stack(
            content_key(files, "colors", str(dataset.size(0))),
            (dataset.get_image_float32(index)[..., :3].half().numpy() for index in range(len(dataset))),
            len(dataset),
        )
        dataset.metadata["source_moving"] = dataset.moving()
        self._fit_budget(dataset)
        dataset.metadata["source_classifier"] = self._first_classifier(dataset)
        dataset.metadata["source_votes"] = None
        if self.config.propagate_labels:
            self._carry_labels(dataset)
        return dataset

    @staticmethod
    def _first_classifier(dataset: FlowDataset) -> Linear | None:
        """A linear classifier of image features, fitted to the visible labels; None if there are none."""
        label_map, labelled = dataset.metadata["label_map"], dataset.metadata["labelled"]
        if label_map is None or not labelled:
            return None
        some = labelled[:: -(-len(labelled) // CLASSIFIER_FRAMES)]
        labels = {index: dataset.semantics(index)[..., 0].numpy() for index in some}
        if all((image == IGNORE).all() for image in labels.values()):
            return None
        return fit_linear(dataset.metadata["source_features"], labels, len(label_map))

    def _fit_budget(self, dataset: FlowDataset) -> None:
        """Lets Nerfstudio's loaders keep as many frames as the budget allows, and the rest of a long video on disk."""
        config = self.config
        window, fits = window_size(len(dataset), dataset.size(0), config.memory_budget)
        dataset.metadata["on_disk"] = not fits
        if fits:
            return
        CONSOLE.log(
            f"{len(dataset)} frames do not fit into {config.memory_budget} MB: training looks at {window} of them at a "
            f"time, others every {config.window_steps} steps; image features stay on disk."
        )
        config.train_num_images_to_sample_from, config.train_num_times_to_repeat_images = window, config.window_steps
        config.eval_num_images_to_sample_from = min(window, 8)
        config.eval_num_times_to_repeat_images = config.window_steps

    def setup_train(self) -> None:
        """Says what the scene lacks, then sets up Nerfstudio's loaders."""
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
        """Carries visible labels along the flow of each camera's video: targets for unlabelled frames, votes for all.

        What comes out lies in files, and what goes in is read when it is asked for: memory stays as it is, however long
        the video.
        """
        shown, count = set(dataset.metadata["labelled"]), len(dataset)
        sizes = {dataset.size(index) for index in range(count)}
        if not 0 < len(shown) < count or len(sizes) > 1 or not dataset.has_flow:
            return
        films = [Film(dataset, video, shown) for video in videos(dataset.metadata["camera_ids"])]
        reliability = measure(rehearsal for film in films for rehearsal in film.rehearsals(REHEARSALS // len(films)))
        CONSOLE.log(f"Labels carried along the flow: {reliability}")
        shape, classes = sizes.pop(), len(dataset.metadata["label_map"])
        votes = Votes(
            scratch_array((count, 2, *shape), np.uint8),
            scratch_array((count, 2, *shape), np.float16),
            torch.tensor([index in shown for index in range(count)]),
        )
        targets = scratch_array((count, *shape, 2), np.float16)
        for film in films:
            for place, index in enumerate(film.video):
                both = [reliability.heard(voice, shape, classes) for voice in film.ask(place)]
                votes.labels[index] = torch.from_numpy(np.stack([said.clip(0) for said, _ in both]).astype(np.uint8))
                votes.evidence[index] = torch.from_numpy(np.stack([weight for _, weight in both]).astype(np.float16))
                if index not in shown:
                    merged = merge(both, self._one_picture(dataset, index, shape, classes))
                    pair = np.stack([merged.labels, merged.confidence], axis=-1).astype(np.float16)
                    targets[index] = torch.from_numpy(pair)
        dataset.propagated = targets
        dataset.metadata["source_votes"] = votes

    @staticmethod
    def _one_picture(dataset: FlowDataset, index: int, shape: tuple[int, int], classes: int) -> np.ndarray:
        """Log-probabilities [H, W, classes], up to a constant, by the first classifier; uniform without one."""
        if dataset.metadata["source_classifier"] is None:
            return np.zeros(classes)
        return classify(
            dataset.metadata["source_features"][index], dataset.metadata["source_classifier"], shape
        ).numpy()

    @property
    def dynamic_fraction(self) -> float:
        """Part of the rays of a step that are drawn on moving things."""
        return self.train_pixel_sampler.dynamic_fraction

    @dynamic_fraction.setter
    def dynamic_fraction(self, value: float) -> None:
        self.train_pixel_sampler.dynamic_fraction = value


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


def videos(camera_ids: Sequence[str]) -> list[list[int]]:
    """The frames of each camera, in the order of time in which a data set has them."""
    return [[i for i, other in enumerate(camera_ids) if other == camera] for camera in dict.fromkeys(camera_ids)]


class Film:
    """The frames of one camera, for carrying labels; they are numbered by their place in the video.

    Args:
        dataset: all frames.
        video: of them, those of the camera, in the order of time.
        shown: of them, those whose labels may be read.
    """

    def __init__(self, dataset: FlowDataset, video: list[int], shown: set[int]) -> None:
        self.dataset, self.video = dataset, video
        places = [place for place, index in enumerate(video) if index in shown]
        self.labels = OnDemand(places, lambda place: dataset.semantics(video[place])[..., 0].numpy())
        self.forward, self.backward = (
            OnDemand(range(len(video)), partial(self._flow_of, dataset, way)) for way in FLOW_FIELDS
        )
        self.gaps = rehearsal_gaps(places, len(video)) if places else {}

    def _flow_of(self, dataset: FlowDataset, way: str, place: int) -> Flow | None:
        return frame_flow(dataset.flow(self.video[place], way))

    def ask(self, place: int) -> list[Carried | None]:
        """What the labelled frames before and after say."""
        return sides(place, self.labels, self.forward, self.backward, self.gaps.get(place, 1))

    def rehearsals(self, count: int) -> Iterator[tuple[Carried, LabelImage]]:
        """What is carried to some labelled frames, with their own labels."""
        places = list(self.labels)
        for place in places[:: -(-len(places) // max(count, 1))] if places else ():
            for voice in self.ask(place):
                if voice is not None:
                    yield voice, self.labels[place]


class OnDemand(Mapping[int, Any]):
    """Values by number that are made when they are asked for; the last few are kept.

    Args:
        keys: there are.
        make: number -> value.
    """

    def __init__(self, keys: Iterable[int], make: Callable[[int], Any]) -> None:
        self._keys = dict.fromkeys(keys)
        self._make = lru_cache(KEPT)(make)

    def __getitem__(self, key: int) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return self._make(key)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def scratch_array(shape: tuple[int, ...], dtype: type) -> Tensor:
    """Zeros in a nameless file beside the caches, which goes when nobody has it any more."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root) as file:
        return torch.from_numpy(np.memmap(file, dtype=dtype, mode="w+", shape=shape))


def frame_flow(entry: Tensor | None) -> Flow | None:
    """A dataset's flow entry [height, width, 3]; None where no pixel is valid (the end of a clip)."""
    if entry is None or not bool((entry[..., 2] > 0.5).any()):
        return None
    return Flow(entry[..., :2].numpy(), entry[..., 2].numpy() > 0.5)
