"""The data manager of semantic-flow-splat: whole pictures of a video, with everything that is known of their pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader
from torch import Tensor

from semfield_ns import parallel
from semfield_ns.errors import SemfieldError
from semfield_ns.labelling.evidence import Evidence
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.semantic_flow.datamanager import (
    FlowDataset,
    SemanticFlowDataManager,
    SemanticFlowDataManagerConfig,
    window_size,
)
from semfield_ns.semantic_flow_splat.baking import open_field, seen_by
from semfield_ns.semantic_flow_splat.depths import video_depths
from semfield_ns.semantic_flow_splat.start import Start, start
from semfield_ns.semantic_flow_splat.video import MadeOnDemand, VideoFrame, longest_video, read_frame

SPLAT = "splat.ply"
"""in the folder of a scene that a splat was attached as: the file itself"""


@dataclass
class SplatDataManagerConfig(SemanticFlowDataManagerConfig):
    """Whole pictures of one dynamic scene."""

    _target: type = field(default_factory=lambda: SplatDataManager)
    dataparser: SemfieldDataParserConfig = field(default_factory=SemfieldDataParserConfig)
    """The scene. Gaussians are seen through pinholes, so pictures are undistorted as they are read."""
    load_field: Path | None = None
    """folder or config.yml of a run of semantic-flow on the same scene, to start with its depth, motion and flow"""

    def setup(self, **kwargs: Any) -> Any:
        """The data manager.

        Raises:
            SemfieldError: `data` is a folder of several scenes.
        """
        folders = self.scene_folders()
        if folders:
            raise SemfieldError(
                f"{self.data} holds {len(folders)} scenes, and semantic-flow-splat learns one a run: give one of them, "
                f"such as {next(iter(folders.values()))}, or use semantic-flow."
            )
        with parallel.first_before_others(kwargs.get("device", "cpu")):  # flow and features are kept in caches
            return self._target(self, **kwargs)


class SplatDataManager(SemanticFlowDataManager):
    """Gives one camera and its whole picture a step; to each of several processes, another one."""

    config: SplatDataManagerConfig

    def create_train_dataset(self) -> FlowDataset:
        """The training frames.

        Raises:
            SemfieldError: a camera has lens distortion that is not undone, or a field is to be loaded and it is.
        """
        cameras = self.train_dataparser_outputs.cameras
        if cameras.distortion_params is not None:
            distorted = torch.nonzero(cameras.distortion_params.abs().amax(dim=-1) > 1e-8)[:, 0]
            if len(distorted):
                path = self.train_dataparser_outputs.image_filenames[int(distorted[0])]
                raise SemfieldError(
                    f"{path}: its camera has lens distortion, and Gaussians are seen through pinholes: leave "
                    "--pipeline.datamanager.dataparser.undistort at True, or use semantic-flow."
                )
        bent = next((frame for frame in self.train_dataparser_outputs.metadata["frames"] if frame.lens), None)
        if bent is not None and self.config.load_field is not None:
            raise SemfieldError(
                f"{bent.image_path}: its camera has lens distortion, and what a field sees through it does not fit "
                "the undistorted picture: train without --pipeline.datamanager.load-field."
            )
        dataset = super().create_train_dataset()
        file = Path(self.config.dataparser.data) / SPLAT
        dataset.metadata["splat_file"] = file if file.is_file() else None
        return dataset

    def _add_what_training_needs(self, dataset: FlowDataset, gather: Callable[[], Evidence]) -> None:
        """What labels tell of all frames, the pictures, and `metadata["start"]`, which makes Gaussians of them.

        Nothing where a trained run is opened: its checkpoint has all that renders need.
        """
        if self.test_mode != "val":
            return
        dataset.propagated = gather().targets
        dataset.metadata["images"] = Images(dataset)
        dataset.metadata["known_labels"] = KnownLabels(dataset)
        dataset.metadata["start"] = partial(
            start_of, dataset, load_field=self.config.load_field, budget=self.config.memory_budget * 10**6
        )

    def setup_train(self) -> None:
        """Says what the scene lacks."""
        rank = parallel.rank(self.local_rank)
        if rank == 0:
            self._say_what_is_absent()
        self._order = islice(self._drawn(), rank, None, self.world_size)
        self._kept: dict[int, dict[str, Any]] = {}

    def setup_eval(self) -> None:
        """Nothing is read before it is asked for."""
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(
            input_dataset=self.eval_dataset, device=self.device
        )
        self._eval_views: Iterator[tuple[Cameras, dict[str, Any]]] = iter(())

    def _drawn(self) -> Iterator[int]:
        """Frames in random order, each once before any comes again; of a long video, window by window.

        Several processes have the same order, and take their frames of a step from it in turn. So that no two take the
        same one, each time the last frames are left out that are too few for all processes.
        """
        # Nerfstudio gives each process a seed of its own. They meet here, in the first step: while their data
        # managers are set up, the first process is ahead of the others.
        seed = parallel.of_first(lambda: int(torch.randint(2**62, ())), self.device)
        generator = torch.Generator().manual_seed(seed)
        count = len(self.train_dataset)
        window, fits = window_size(count, self.train_dataset.size(0), self.config.memory_budget)
        while True:
            chosen = torch.randperm(count, generator=generator)[:window]
            self._kept = {}
            left = self.config.window_steps * self.world_size
            while fits or left > 0:
                order = chosen[torch.randperm(window, generator=generator)].tolist()
                order = order[: window - window % self.world_size] or order
                yield from order if fits else order[:left]
                left -= len(order)

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """A camera of shape [1], and everything about the pixels of its frame [H, W, ...]."""
        index = next(self._order)
        if index not in self._kept:
            self._kept[index] = self.train_dataset[index]
        camera = self.train_dataset.cameras[index : index + 1]
        camera.metadata = {"frame": torch.tensor([[index]])}
        batch = {
            name: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in self._kept[index].items()
        }
        stored = self.train_dataset.frames[index].stored_size
        return camera, batch if stored is None else batch | {"stored_size": stored}

    def next_eval(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """A held-out camera and its picture."""
        return self.next_eval_image(step)

    def next_eval_image(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """A held-out camera and its picture; one after the other."""
        found = next(self._eval_views, None)
        if found is None:
            self._eval_views = iter(self.fixed_indices_eval_dataloader)
            found = next(self._eval_views)
        return found

    def get_train_rays_per_batch(self) -> int:
        """Pixels of a step."""
        height, width = self.train_dataset.size(0)
        return height * width


class Images(Sequence[Float[Tensor, "H W 3"]]):
    """The pictures of the frames, in [0, 1]; read when they are asked for.

    Args:
        dataset: training frames.
    """

    def __init__(self, dataset: FlowDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Float[Tensor, "H W 3"]:
        return self.dataset.get_image_float32(index)[..., :3]


class KnownLabels(Sequence[tuple[Int[Tensor, "H W"], Float[Tensor, "H W"]]]):
    """What is known of the classes of each frame before training: ids (negative for none), and how far to trust them.

    Args:
        dataset: training frames.
    """

    def __init__(self, dataset: FlowDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> tuple[Int[Tensor, "H W"], Float[Tensor, "H W"]]:
        labels = self.dataset.semantics(index)[..., 0]
        if self.dataset.propagated is None or bool((labels >= 0).any()):
            return labels, torch.ones(labels.shape)
        ids, trust = self.dataset.propagated[index].float().unbind(dim=-1)
        return torch.where(trust > 0, ids.long(), -1), trust


def start_of(
    dataset: FlowDataset,
    near: float,
    far: float,
    max_gaussians: int,
    load_field: Path | None = None,
    budget: int = 2**32,
) -> Start:
    """Gaussians to begin with, from the frames of the camera that has most; of photos of one moment, from all.

    Args:
        dataset: training frames.
        near: depth of the nearest content, world units.
        far: depth of the furthest content.
        max_gaussians: the most of them.
        load_field: folder or config.yml of a trained field that says how deep things are, and how they move.
        budget: bytes of decoded frames in memory, unless a field renders them.
    """
    times = dataset.cameras.times
    assert times is not None, "cameras of a video have times"
    known, steps = torch.unique(times[:, 0], return_inverse=True)
    video = list(range(len(dataset))) if len(known) == 1 else longest_video(dataset.metadata["camera_ids"])
    frames: Sequence[VideoFrame] = MadeOnDemand(
        len(video),
        lambda place: read_frame(dataset, video[place], int(steps[video[place]])),
        lambda frame: frame.num_bytes,
        budget * 9 // 10,
    )
    kind = dataset.metadata["depth_kind"]
    if load_field is not None:
        frames, kind = seen_by(open_field(load_field), frames), "metric"
    depths = video_depths(frames, kind, near, far, budget // 10)
    sharp = [place for place, index in enumerate(video) if dataset.frames[index].stored_size is None]
    return start(frames, depths, len(known), max_gaussians, sharp=sharp)
