"""Where everything of a run lies, and what finished steps left there.

All is below one folder: the scene (transforms.json, images, flow, masks, depth, labels), the report, and `.process`
with what one step hands to the next.
"""

import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_image, read_json
from semfield_ns.process.depth import DEPTH_MODEL
from semfield_ns.process.frames import Picked, frame_name, image_files
from semfield_ns.process.models import Choice
from semfield_ns.process.names import FrameNames, Meaning, PickedFrames
from semfield_ns.process.registration import Registration
from semfield_ns.process.segments import SAM_MODEL
from semfield_ns.process.structure import LensModel, Rig
from semfield_ns.scenes.flow import Mask


@dataclass(frozen=True)
class Settings:
    """What a user may choose; see `semfield process --help`."""

    source: Path
    output_dir: Path
    num_frames: int = 60
    start: float = 0.0
    end: float | None = None
    longest: int = 960
    models: Choice = "auto"
    static: bool = False
    focal: float | None = None
    lens: LensModel = "radial"
    poses: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    follow_labels: bool = False
    frame_names: Meaning = "auto"
    depth_model: str = DEPTH_MODEL
    sam_model: str = SAM_MODEL
    threads: int = 1
    device: str = "cpu"

    @property
    def rig(self) -> Rig:
        return Rig(self.focal, self.lens)


@dataclass
class Workspace:
    """The output folder of one run."""

    settings: Settings

    # --- places ---

    def __post_init__(self) -> None:
        self.root = self.settings.output_dir
        self.hidden = self.root / ".process"
        self.images = self.root / "images"
        self.flow = self.root / "flow"
        self.structure = self.hidden / "colmap"
        self.registration_file = self.hidden / "poses.npz"
        self.refined_file = self.hidden / "refined.npz"
        self.turning_file = self.hidden / "turning.npz"
        self.scene_file = self.root / "transforms.json"
        self.report_file = self.root / "report" / "index.html"

    def record(self, step: str) -> Path:
        """What a step writes last."""
        return self.hidden / f"{step}.json"

    def rough_mask_file(self, number: int) -> Path:
        """What moves, as far as two frames tell."""
        return self.hidden / "rough_masks" / f"{frame_name(number)}.png"

    def motion_file(self, number: int) -> Path:
        """What moves, seen over posed frames."""
        return self.hidden / "motion" / f"{frame_name(number)}.png"

    def mask_file(self, number: int) -> Path:
        """What moves, with what labels and learned models say: the mask of the scene."""
        return self.root / "masks" / f"{frame_name(number)}.png"

    def depth_file(self, number: int) -> Path:
        return self.root / "depth" / f"{frame_name(number)}.npy"

    def label_file(self, number: int) -> Path:
        return self.root / "labels" / f"{frame_name(number)}.png"

    # --- what earlier steps left ---

    @cached_property
    def picked(self) -> Picked:
        return Picked.from_json(read_json(self.record("frames")))

    @cached_property
    def names(self) -> PickedFrames:
        """What others may call the frames. A video that does not say how many it has may have any number of them."""
        frames = tuple(FrameNames(n, frame.index, frame.name) for n, frame in enumerate(self.picked.frames))
        source = self.settings.source
        originals = tuple(file.name for file in image_files(source)) if source.is_dir() else ()
        total = read_json(self.record("frames"))["source"]["count"]
        return PickedFrames(frames, originals, total or sys.maxsize, self.settings.frame_names)

    @property
    def registration(self) -> Registration:
        """The best poses so far."""
        return self._refined if self.refined_file.is_file() else self._registered

    @cached_property
    def _registered(self) -> Registration:
        return Registration.load(self.registration_file)

    @cached_property
    def _refined(self) -> Registration:
        return Registration.load(self.refined_file)

    @property
    def kept(self) -> list[int]:
        """Numbers of the frames that have a pose."""
        return sorted(self.registration.poses)

    def mask(self, number: int) -> Mask:
        return read_mask(self.mask_file(number))

    # --- keeping order ---

    def claim(self) -> None:
        """Take the output folder, or refuse one that holds something else."""
        if self.root.is_dir() and any(self.root.iterdir()) and not self.hidden.is_dir():
            raise SemfieldError(f"{self.root} is not empty and was not made by this command: choose another folder.")

    def begin(self, *outdated: Path) -> None:
        """From now until the last step the scene is not whole; what an earlier run left of this step goes."""
        self.scene_file.unlink(missing_ok=True)
        for path in outdated:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def read_mask(path: Path) -> Mask:
    """A mask that a step wrote."""
    return np.array(read_image(path)) > 0
