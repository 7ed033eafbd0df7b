"""The edits of a scene, and the moving objects that they refer to, which are found when they are first needed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.editing.edits import Edit, Placement, apply_edits, read_edits
from semfield_ns.editing.objects import FrameView, ObjectTracks, find_objects
from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.labels import LabelMap

SEARCH_SCALE = 0.5
"""of the training pictures, at which objects are looked for"""


class VideoScene(Protocol):
    """What editing needs of a model; a `scene_model.MovingSceneModel`."""

    training: bool
    label_map: LabelMap | None

    def time_cameras(self, scale: float = 1.0) -> list[Cameras]:
        """The camera of each time step, with pictures `scale` times the size."""

    def step_of(self, time: float) -> float:
        """The time step of a time."""

    def unedited_outputs(self, camera: Cameras) -> Mapping[str, Float[Tensor, "H W channels"]]:
        """What a camera sees without edits: "logits", "dynamic_weight", "surface", "scene_flow_forward"."""


class SceneEditor(ABC):
    """Edits, and the objects that they speak of.

    Args:
        model: whose scene is edited.
        path: a file of edits, or None.
        world: the scene's own world -> the model's world.
    """

    def __init__(self, model: VideoScene, path: Path | None, world: Float[np.ndarray, "3 4"]) -> None:
        self.model = model
        self.world = world
        self.edits: tuple[Edit, ...] = () if path is None else read_edits(path)
        self._tracks: ObjectTracks | None = None
        self._scene: Any = None

    @abstractmethod
    def build(self, edits: Sequence[Edit]) -> Any:
        """The edited scene, in the method's own form.

        Raises:
            SemfieldError: an edit names what is not there.
        """

    @abstractmethod
    def find_object(self, scene: Any, camera: Cameras, row: float, column: float) -> int:
        """Number of the object that an edited scene shows at a place, px; negative where nothing moves."""

    def change(self, edits: Sequence[Edit]) -> list[str]:
        """Other edits from now on; returns the names of the scene's objects.

        Raises:
            SemfieldError: an edit names what is not there, or the model is being trained; the edits stay as they were.
        """
        if not edits:
            self.edits, self._scene = (), None
            return [] if self._tracks is None else self._tracks.names
        if self.model.training:
            raise SemfieldError("A scene can be edited after its training: open the run with semfield view.")
        self._scene = self.build(edits)
        self.edits = tuple(edits)
        return self.tracks().names

    @torch.no_grad()
    def object_at(self, camera: Cameras, at: tuple[float, float]) -> str:
        """The name of the moving object that a picture shows, with the edits, at a place.

        Args:
            camera: one camera with a time.
            at: x right and y down, as shares of the picture's sides.

        Raises:
            SemfieldError: nothing that moves is seen there, or the model is being trained.
        """
        if self.model.training:
            raise SemfieldError("Objects can be found after training: open the run with semfield view.")
        scene = self.scene() if self.edits else self.build(())
        number = self.find_object(scene, camera, at[1] * float(camera.height), at[0] * float(camera.width))
        if number < 0:
            raise SemfieldError("Nothing that moves is seen there.")
        return self.tracks().names[number]

    def surface_of(self, name: str, time: float) -> Float[np.ndarray, "K 3"]:
        """Points on an object's surface, wherever the edits put it; none where it was removed.

        Args:
            name: of an object of `tracks`.
            time: 0 to 1.
        """
        tracks, step = self.tracks(), self.model.step_of(time)
        number = tracks.names.index(name)
        seen, centre = tracks.objects[number].points, tracks.centre(number, step)
        points = seen[min(seen, key=lambda frame: abs(frame - step))]
        classes = () if self.model.label_map is None else self.model.label_map.names
        placements = apply_edits(self.edits, tracks.centres, classes, self.world).objects[name].placements
        maps = [placement.matrix(centre) for placement in placements]
        return np.concatenate([np.zeros((0, 3)), *(points @ m[:, :3].T + m[:, 3] for m in maps)])

    def forget(self) -> None:
        """The weights have changed: objects have to be found again."""
        self._tracks = self._scene = None

    def tracks(self, watch: Callable[[Any], Iterable[Any]] = iter) -> ObjectTracks:
        """The moving objects as the model sees them; renders every training frame, small, the first time.

        Args:
            watch: goes through the list of views, as `rich.progress.track` does.
        """
        if self._tracks is None:
            self._tracks = track_objects(self.model, watch=watch)
        return self._tracks

    @property
    def knows_objects(self) -> bool:
        """Whether the moving objects have been looked for."""
        return self._tracks is not None

    @torch.no_grad()
    def edited_at(
        self, camera: Cameras, places: Sequence[tuple[float, float]], then: Sequence[Edit], now: Sequence[Edit]
    ) -> bool:
        """Whether an object is elsewhere, or gone, since somebody pointed at it.

        Args:
            camera: one camera with a time.
            places: (column, row), px, of its picture.
            then: edits at that time.
            now: edits since.
        """
        if tuple(then) == tuple(now):
            return False
        before = self.build(then)
        numbers = {self.find_object(before, camera, row, column) for column, row in places}
        classes = () if self.model.label_map is None else self.model.label_map.names
        tracks = self.tracks()
        was, is_now = (apply_edits(edits, tracks.centres, classes, self.world).objects for edits in (then, now))
        names = [tracks.names[number] for number in numbers if number >= 0]
        return any(not _same_places(was[name].placements, is_now[name].placements) for name in names)

    def scene(self) -> Any:
        """The edited scene, in the method's own form.

        Raises:
            SemfieldError: an edit names what is not there.
        """
        if self._scene is None:
            self._scene = self.build(self.edits)
        return self._scene


def _same_places(first: Sequence[Placement], second: Sequence[Placement]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.linear, b.linear) and np.array_equal(a.offset, b.offset)
        for a, b in zip(first, second, strict=True)
    )


@torch.no_grad()
def track_objects(
    model: VideoScene, scale: float = SEARCH_SCALE, watch: Callable[[Any], Iterable[Any]] = iter
) -> ObjectTracks:
    """Renders the training frames, unedited, and links the moving parts of each class.

    Args:
        model: a trained model.
        scale: of the renders, against the training pictures.
        watch: goes through the list of views, as `rich.progress.track` does.

    Raises:
        SemfieldError: the scene has no classes.
    """
    if model.label_map is None:
        raise SemfieldError("This scene has no classes: objects are found by their class, so give it labels.")
    views = []
    for camera in watch(model.time_cameras(scale)):
        raw = model.unedited_outputs(camera)
        views.append(
            FrameView(
                labels=raw["logits"].argmax(dim=-1).cpu().numpy(),
                moving=(raw["dynamic_weight"][..., 0] > 0.5).cpu().numpy(),
                surface=raw["surface"].double().cpu().numpy(),
                forward=raw["scene_flow_forward"].double().cpu().numpy(),
            )
        )
    flags = model.label_map.dynamic
    # Where no class is marked as moving: whatever moves.
    classes = np.flatnonzero(flags) if flags.any() else np.arange(len(flags))
    return ObjectTracks(find_objects(views, classes.tolist()), model.label_map.names, len(views))
