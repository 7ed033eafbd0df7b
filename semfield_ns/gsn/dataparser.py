"""A scene, or a folder of many, as Nerfstudio's commands want it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.library import PosedScene, load_scene
from semfield_ns.scenes.collection import find_scenes
from semfield_ns.scenes.dataparser import make_cameras


@dataclass
class ManyScenesDataParserConfig(DataParserConfig):
    """Scenes in coordinates that generalisable weights stay valid in: LLFF, IBRNet collections, transforms.json."""

    _target: type = field(default_factory=lambda: ManyScenesDataParser)
    """target class to instantiate"""
    data: Path = Path()
    """a scene, or a folder with scenes one or two levels below it"""
    images: str | None = None
    """image folder of LLFF scenes, such as images_4; the smallest by default"""
    longest_side: int | None = None
    """shrink pictures so that no side is longer than this many pixels"""
    shown_scene: str | None = None
    """which of many scenes the viewer and videos show; the first by default"""
    hold_out: bool = True
    """keep every 8th image for evaluation, in scenes that hold none out themselves"""


@dataclass
class ManyScenesDataParser(DataParser):
    """Reads all scenes of a folder.

    train: the training images of the shown scene (what the viewer draws; training itself draws from all scenes).
    val, test: the held-out images of all scenes. Their cameras say in `metadata["scene"]` which one they belong to.

    metadata of the outputs: scenes (all, `PosedScene`), shown (index), images (scene and image of each entry), and
    what `SceneDataset` reads.
    """

    config: ManyScenesDataParserConfig
    includes_time: bool = False

    def __post_init__(self) -> None:
        self._scenes: list[PosedScene] | None = None

    @property
    def scenes(self) -> list[PosedScene]:
        """All scenes, read at the first use."""
        if self._scenes is None:
            config = self.config
            self._scenes = [
                load_scene(path, name, config.images, config.longest_side, config.hold_out)
                for name, path in find_scenes(config.data).items()
            ]
        return self._scenes

    @property
    def shown(self) -> int:
        """Index of the scene to show."""
        names = [scene.name for scene in self.scenes]
        if self.config.shown_scene is None:
            return 0
        if self.config.shown_scene not in names:
            raise SemfieldError(f"There is no scene {self.config.shown_scene}: choose one of {', '.join(names)}.")
        return names.index(self.config.shown_scene)

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        scenes, shown = self.scenes, self.shown
        if split == "train":
            images = [(shown, index) for index in scenes[shown].train]
        else:
            images = [(number, index) for number, scene in enumerate(scenes) for index in scene.held_out]
            # A scene may be too small to spare an image: its first one is looked at then.
            images = images or [(shown, scenes[shown].train[0])]
        frames = [scenes[scene].frames[index] for scene, index in images]
        poses = np.stack([scenes[scene].cameras.camera_to_worlds[index].numpy() for scene, index in images])
        cameras = make_cameras(frames, poses, np.zeros(len(frames), dtype=np.float32))
        cameras.times = None
        cameras.metadata = {"scene": torch.tensor([[scene] for scene, _ in images])}
        return DataparserOutputs(
            image_filenames=[frame.image_path for frame in frames],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])),
            dataparser_transform=scenes[shown].transform,
            dataparser_scale=scenes[shown].scale,
            metadata={
                "scenes": scenes,
                "shown": shown,
                "images": images,
                "frames": frames,
                "label_map": None,
                "depth_kind": None,
                "depth_scale": 1.0,
            },
        )
