"""The data manager of gsn: a scene, target images, the source views they share and some rays at every step."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import DataManager, VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.dataparser import ManyScenesDataParser, ManyScenesDataParserConfig
from semfield_ns.gsn.library import SceneLibrary
from semfield_ns.gsn.sources import draw_sources, draw_targets
from semfield_ns.rendering.rays import sent, sent_rays
from semfield_ns.scenes.dataset import SceneDataset

MEGABYTE = 1 << 20
_READERS = 4
_PIXELS_A_RAY = 900
"""encoding so many pixels of source views takes about as many operations as a ray of the preset gsn"""


@dataclass
class GSNDataManagerConfig(VanillaDataManagerConfig):
    """Rays of many scenes."""

    _target: type = field(default_factory=lambda: GSNDataManager)
    dataparser: ManyScenesDataParserConfig = field(default_factory=ManyScenesDataParserConfig)
    """The scenes."""
    train_num_rays_per_batch: int = 512
    """Rays of a training step; times its targets, where there are several."""
    max_targets: int = 1
    """Images, at most, that the rays of a step come from. They share their source views, which are encoded once: the
    larger the pictures, the more targets it takes until rays are most of the work."""
    num_source_views: int = 10
    """Source views of a training step, give or take a fifth."""
    scene_weight: Literal["scenes", "images"] = "scenes"
    """Draw every scene as often as any other, or in proportion to its number of images."""
    scene_weights: tuple[str, ...] = ()
    """NAME=WEIGHT for scenes to be drawn more or less often than that, such as fern=8."""
    image_budget: int = 2048
    """Megabytes of decoded pictures kept in memory, whatever the number of scenes."""
    seed: int = 0
    """Of the draws; processes with different ranks draw differently."""


class Draw(NamedTuple):
    """One training step."""

    scene: int
    sources: list[int]
    indices: Int[Tensor, "R 3"]
    """image, row and column, one image after the other"""


@dataclass
class RayCount:
    """Stands where Nerfstudio's tools look for a sampler of pixels: to say how many rays they want at once."""

    num_rays_per_batch: int


class GSNDataManager(VanillaDataManager[SceneDataset]):
    """Draws rays; what they are rendered from is named in their metadata, and read by the model from the library.

    Rays carry `metadata["scene"]` [R,1] and, in training, `metadata["sources"]` [R,V], the same for all rays of a
    bundle; also what they should show, `metadata["colors"]` [R,3], and of which pixels they are, `metadata["indices"]`
    [R,3], since losses are computed with what is rendered. A run that is opened (ns-export) draws from the shown scene
    alone.
    """

    config: GSNDataManagerConfig
    train_dataset: SceneDataset
    eval_dataset: SceneDataset

    def __init__(
        self,
        config: GSNDataManagerConfig,
        device: torch.device | str = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        self.config, self.device, self.test_mode = config, device, test_mode
        self.world_size, self.local_rank = world_size, local_rank
        self.test_split = "test" if test_mode in ("test", "inference") else "val"
        if config.data is not None:
            config.dataparser.data = Path(config.data)
        self.dataparser: ManyScenesDataParser = config.dataparser.setup()
        self.train_dataparser_outputs = self.dataparser.get_dataparser_outputs(split="train")
        self.library = SceneLibrary(self.dataparser.scenes, config.image_budget * MEGABYTE)
        self.train_dataset = SceneDataset(self.train_dataparser_outputs)
        self.train_dataset.metadata["library"] = self.library
        self.eval_dataset = SceneDataset(self.dataparser.get_dataparser_outputs(split=self.test_split))
        self.train_dataset.metadata["eval_images"] = self.eval_dataset.metadata["images"]
        self.weights = scene_weights(
            {scene.name: len(scene.train) for scene in self.library.scenes},
            config.scene_weight == "images",
            config.scene_weights,
        )
        self.generator = torch.Generator().manual_seed(config.seed + 7919 * local_rank)
        self.train_pixel_sampler = RayCount(config.train_num_rays_per_batch)  # type: ignore[assignment]
        self.rays_drawn = config.train_num_rays_per_batch
        self._next: Future[Draw] | None = None
        # Not that of VanillaDataManager, which would make data sets and samplers of its own.
        DataManager.__init__(self)

    def setup_train(self) -> None:
        """Nothing to do: pictures are read when they are drawn."""

    def setup_eval(self) -> None:
        """Nothing to do."""

    @cached_property
    def fixed_indices_eval_dataloader(self) -> FixedIndicesEvalDataloader:
        """All held-out images, one after the other."""
        return FixedIndicesEvalDataloader(self.eval_dataset, device=self.device, num_workers=0)

    @cached_property
    def eval_dataloader(self) -> RandIndicesEvalDataloader:
        """Held-out images at random."""
        return RandIndicesEvalDataloader(self.eval_dataset, device=self.device, num_workers=0)

    # ------------------------------------------------------------------------------------------------ training

    @property
    def own_scenes(self) -> list[int]:
        """The scenes that this process draws from: its share of them, or all where there are fewer than processes."""
        if self.test_mode != "val":
            return [self.dataparser.shown]
        every = list(range(len(self.library.scenes)))
        return every[self.local_rank :: self.world_size] if len(every) >= self.world_size else every

    def draw(self) -> Draw:
        """The next training step; its pictures are read."""
        scenes = self.own_scenes
        weights = torch.tensor([self.weights[scene] for scene in scenes])
        scene = scenes[int(torch.multinomial(weights, 1, generator=self.generator))]
        posed = self.library.scenes[scene]
        target = posed.train[int(torch.randint(len(posed.train), (1,), generator=self.generator))]
        sources: list[int] = []  # what is opened renders from the nearest views
        if self.test_mode == "val":
            sources = draw_sources(target, posed.centres, posed.train, self.config.num_source_views, self.generator)
        assert self.train_pixel_sampler is not None
        rays = self.train_pixel_sampler.num_rays_per_batch
        frame = posed.frames[target]
        wanted = targets_worth(len(sources) * frame.height * frame.width, rays, self.config.max_targets)
        targets = draw_targets(target, sources, posed.centres, posed.train, wanted)
        rays = rays * wanted // len(targets)  # of each: as many in all, where there are fewer targets than wanted
        indices = [
            torch.stack(
                [
                    torch.full((rays,), index),
                    torch.randint(frame.height, (rays,), generator=self.generator),
                    torch.randint(frame.width, (rays,), generator=self.generator),
                ],
                dim=-1,
            )
            for index in targets
        ]
        list(self.readers.map(partial(self.library.image, scene), (*targets, *sources)))
        return Draw(scene, sources, torch.cat(indices))

    @cached_property
    def executor(self) -> ThreadPoolExecutor:
        """Draws ahead: one thread, so that draws come in their order."""
        return ThreadPoolExecutor(1, thread_name_prefix="gsn-prefetch")

    @cached_property
    def readers(self) -> ThreadPoolExecutor:
        """Read the pictures of a draw side by side: a step needs up to twenty."""
        return ThreadPoolExecutor(_READERS, thread_name_prefix="gsn-reader")

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays of images of one scene, and their colours.

        The batch has "image" [R,3], "indices" [R,3] (image, row, column) and "scene".
        """
        self.train_count += 1
        ahead = self._next if self._next is not None else self.executor.submit(self.draw)
        drawn = ahead.result()
        self._next = self.executor.submit(self.draw)
        self.rays_drawn = len(drawn.indices)
        return self.rays_of(drawn)

    def get_train_rays_per_batch(self) -> int:
        """Rays of the step that was drawn last."""
        return self.rays_drawn

    def rays_of(self, drawn: Draw) -> tuple[RayBundle, dict[str, Any]]:
        """The rays and colours of a draw."""
        posed, indices = self.library.scenes[drawn.scene], drawn.indices
        bundle = posed.cameras.generate_rays(camera_indices=indices[:, :1], coords=indices[:, 1:] + 0.5)
        rays = len(indices)
        bundle = sent_rays(bundle, self.device)
        # These are asked for by the host: it would have to wait for what is on the device.
        bundle.metadata["scene"] = torch.full((rays, 1), drawn.scene)
        bundle.metadata["indices"] = indices
        if drawn.sources:
            bundle.metadata["sources"] = torch.tensor(drawn.sources).expand(rays, -1)
        counts = indices[:, 0].unique_consecutive(return_counts=True)[1].tolist()
        shown = [
            self.library.image(drawn.scene, int(part[0, 0]))[part[:, 1], part[:, 2]] for part in indices.split(counts)
        ]
        colors = sent(torch.cat(shown).float() / 255, self.device)
        bundle.metadata["colors"] = colors
        return bundle, {"image": colors, "indices": indices, "scene": drawn.scene}

    # ---------------------------------------------------------------------------------------------- evaluation

    def next_eval(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays of a held-out image."""
        self.eval_count += 1
        images = self.eval_dataset.metadata["images"]
        scene, target = images[self.eval_count % len(images)]
        frame = self.library.scenes[scene].frames[target]
        rays = min(self.config.eval_num_rays_per_batch, frame.height * frame.width)
        generator = torch.Generator().manual_seed(self.eval_count)
        chosen = torch.randperm(frame.height * frame.width, generator=generator)[:rays]
        indices = [torch.full_like(chosen, target), chosen // frame.width, chosen % frame.width]
        return self.rays_of(Draw(scene, [], torch.stack(indices, dim=-1)))

    def next_eval_image(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """A held-out image."""
        self.eval_count += 1
        return self.eval_dataloader.get_camera(self.eval_count % len(self.eval_dataset))

    def get_datapath(self) -> Path:
        """Folder of the shown scene, where the viewer saves camera paths."""
        data = Path(self.config.dataparser.data)
        return data.parent if data.is_file() else data


def targets_worth(pixels: int, rays: int, most: int) -> int:
    """Targets of `rays` rays each whose rays take about as many operations as encoding so many pixels for them."""
    return max(1, min(round(pixels / (_PIXELS_A_RAY * rays)), most))


def scene_weights(images: Mapping[str, int], by_images: bool, factors: Sequence[str]) -> list[float]:
    """How often each scene is drawn, relative to the others.

    Args:
        images: number of training images by name of the scene.
        by_images: in proportion to it.
        factors: NAME=WEIGHT, for some of the scenes.

    Raises:
        SemfieldError: a factor that cannot be read, or of no scene.
    """
    weights = {name: float(count) if by_images else 1.0 for name, count in images.items()}
    for text in factors:
        name, _, value = text.partition("=")
        try:
            factor = float(value)
        except ValueError:
            factor = -1.0
        if name not in weights or not 0 < factor < float("inf"):
            raise SemfieldError(
                f"scene-weights: {text!r} is not NAME=WEIGHT with a weight above 0 and one of {', '.join(weights)}."
            )
        weights[name] *= factor
    return list(weights.values())
