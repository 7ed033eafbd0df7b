"""What a trained scene offers to whoever asks it.

Sessions, the viewer, exports, evaluation and commands know models by this module alone. A method implements
`SceneModel`, and `MovingSceneModel` if its scenes move. What a method does not have is inherited and raises an error.
"""

from abc import abstractmethod
from collections.abc import Callable, Generator, Hashable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.base_model import Model
from torch import Tensor

from semfield_ns.editing.editor import SceneEditor
from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.splats import Splats
from semfield_ns.scenes.labels import LabelMap
from semfield_ns.segmentation.clouds import Cloud
from semfield_ns.segmentation.views import Pictures

Outputs = Mapping[str, Tensor]
"""name -> [H, W, channels]; each may be made when it is asked for, so ask for what is needed only"""
Parts = Generator[None, None, Outputs]
"""A render that is made part by part, each of a fraction of a second, and returns its outputs. Between two parts it may
wait as long as the model stays the same, and go on in another thread."""


def finished(parts: Parts) -> Outputs:
    """The outputs of a render, made at one go."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value


class Annotator(Protocol):
    """Adds the masks of a session to what a model renders; a `sessions.segmenter.Segmenter`."""

    def raw_outputs(self, cameras: Cameras, render: Callable[[Cameras], Outputs]) -> Outputs:
        """What `render` gives for a camera, kept while a session needs it."""

    def annotate(self, cameras: Cameras, raw: Outputs) -> dict[str, Tensor]:
        """Outputs of the session's objects in that render; empty where there are none."""


class SceneModel(Model):
    """A Nerfstudio model that can be asked."""

    label_map: LabelMap | None = None
    """Classes, in the order of the channels of "logits"; None without labels."""
    class_switches: Callable[[], Bool[Tensor, "C"]] | None = None
    """Which classes are shown, on the CPU; set by the viewer. Without it all are."""
    scene_names: Sequence[str] = ()
    """The scenes to choose from, where the model knows several."""
    shown: int = 0
    """Number of the scene that cameras look at that name none."""
    annotator: Annotator | None = None
    """Set by the pipeline."""
    can_be_segmented: bool = True
    """Whether strokes of a session mean one and the same scene."""

    @property
    def knows_words(self) -> bool:
        """Whether objects can be found by words."""
        return False

    @abstractmethod
    def raw_outputs_for_camera(self, camera: Cameras) -> Outputs:
        """Everything that one camera sees, as it is rendered.

        Args:
            camera: of shape [1]; without a time it gets one (see `timed`).

        Returns:
            "rgb"; "depth" (along the ray) or "surface" (world points); "features" or "logits" once they are known;
            "dynamic_weight" where something moves.
        """

    def raw_outputs_in_parts(self, camera: Cameras) -> Parts:
        """`raw_outputs_for_camera`, bit for bit, for callers that may be interrupted; here in one part."""
        yield
        return self.raw_outputs_for_camera(camera)

    @abstractmethod
    def present(self, raw: Outputs, camera: Cameras | None = None) -> MutableMapping[str, Tensor]:
        """The outputs that people see: float32 with 1 or 3 channels, in [0, 1] if 3.

        Args:
            raw: of `raw_outputs_for_camera`, any leading shape.
            camera: that looked; without it, what depends on it is left out.
        """

    def timed(self, camera: Cameras) -> Cameras:
        """The camera, with a time if scenes of the method have any."""
        return camera

    def render_key(self) -> Hashable:
        """What renders depend on besides weights and camera."""
        return None

    def version(self) -> Hashable:
        """Changes whenever the same camera would see something else."""
        # torch counts the changes in place of every tensor: what optimizers and loaded checkpoints do.
        return sum(tensor._version for tensor in (*self.parameters(), *self.buffers())), self.render_key()

    def visible_classes(self) -> Bool[Tensor, "C"]:
        """Which classes are shown, on the CPU."""
        if self.class_switches is not None:
            return self.class_switches()
        return torch.ones(0 if self.label_map is None else len(self.label_map.classes), dtype=torch.bool)

    def show(self, scene: int) -> None:
        """Another scene is looked at from now on."""
        self.shown = scene

    def image_outputs(self, camera: Cameras) -> Mapping[str, Float[Tensor, "H W channels"]]:
        """Of the training image that this very camera took: "rgb" and "features", as far as they are known."""
        return {}

    def surface_outputs(
        self, points: Float[Tensor, "H W 3"], camera: Cameras
    ) -> Mapping[str, Float[Tensor, "H W channels"]]:
        """The "features" that the pictures have where they show these points of a camera's view, where they are known.

        Strokes are compared by these, in the place of rendered features.
        """
        return {}

    def picture_outputs(self, path: Path, size: tuple[int, int]) -> Mapping[str, Float[Tensor, "H W channels"]]:
        """The "rgb" and "features" of any picture of the shown scene, held out or not, as far as they are known.

        Args:
            path: of the image file.
            size: height and width, px.
        """
        return {}

    def pictures(self) -> Pictures | None:
        """The pictures of the scene, where their features are known and nothing moves."""
        return None

    def cloud(self) -> Cloud | None:
        """The Gaussians of a static scene that strokes select among; None of a model without."""
        return None

    def splat_file(self) -> Path | None:
        """The file whose rows, in their order, are the Gaussians of the model; None where they are its own."""
        return None

    def trace_points(self, points: Float[Tensor, "N 3"], time: float, to: float) -> Float[Tensor, "N 3"]:
        """Where world points of one time in [0, 1] are at another one."""
        return points

    def text_features(self, texts: list[str]) -> Float[Tensor, "N F"]:
        """Words in the space of "features", of unit norm.

        Raises:
            SemfieldError: the features are not of a teacher that supports text queries.
        """
        raise SemfieldError("This model does not support text queries: they need a run of gsn with a CLIP teacher.")

    @torch.no_grad()
    def get_outputs_for_camera(
        self, camera: Cameras, obb_box: OrientedBox | None = None
    ) -> MutableMapping[str, Tensor]:
        """The outputs of the contract for one camera (see `present`), and where there is a session, its masks."""
        camera = self.timed(camera)
        if self.annotator is None:
            return self.present(self.raw_outputs_for_camera(camera), camera.to(self.device))
        raw = self.annotator.raw_outputs(camera, self.raw_outputs_for_camera)
        outputs = self.present(raw, camera.to(self.device))
        outputs.update(self.annotator.annotate(camera, raw))
        return outputs


class MovingSceneModel(SceneModel):
    """A model of a video: it has time steps, motion, objects that move, and edits."""

    editor: SceneEditor
    """Its edits and its moving objects."""
    background: Tensor
    """[3], in [0, 1]: what is seen where Gaussians let light through; of models that have any."""

    @abstractmethod
    def time_cameras(self, scale: float = 1.0) -> list[Cameras]:
        """The camera of each time step, in order, with pictures `scale` times the size."""

    @abstractmethod
    def time_frames(self) -> list[int]:
        """The training frame of each time step, in order: the first of those that several cameras took."""

    @abstractmethod
    def step_of(self, time: float) -> float:
        """The time step, a fraction between two, of a time in [0, 1]."""

    @abstractmethod
    def unedited_outputs(self, camera: Cameras) -> Outputs:
        """What `raw_outputs_for_camera` gives without edits; "scene_flow_forward" and "scene_flow_backward" too."""

    def induced_flow(self, camera: Cameras, step: int) -> Float[Tensor, "H W 2"] | None:
        """Optical flow, px, from a camera's picture to that of the next (+1) or previous (-1) training frame.

        None where there is no such frame.
        """
        return None

    def splats(self, step: float) -> Splats | None:
        """The Gaussians at a time step, edited; None of a model that has none."""
        return None


def require_moving(model: Any, method: str | None, what: str) -> MovingSceneModel:
    """The model, as one of a video.

    Args:
        model: of a run.
        method: the run's method, for the message.
        what: what only such models can do: "objects are followed", ...

    Raises:
        SemfieldError: it is not.
    """
    if not isinstance(model, MovingSceneModel):
        raise SemfieldError(f"This is a run of {method}: {what} in runs of semantic-flow only.")
    return model
