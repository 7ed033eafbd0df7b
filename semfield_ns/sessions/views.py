"""Views of a model, for segmentation."""

from collections.abc import Hashable

from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.scene_model import SceneModel
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.views import FeatureView, Pictures, view_of_outputs


class ModelViews:
    """A `ViewProvider` of a model's renders.

    Args:
        model: that renders.
    """

    def __init__(self, model: SceneModel) -> None:
        self.model = model
        self._pictures: tuple[Hashable, Pictures | None] | None = None

    def version(self) -> Hashable:
        """Changes whenever the same camera would see something else."""
        return self.model.version()

    def render_view(self, camera: ViewCamera) -> FeatureView:
        """What a camera sees."""
        cameras = camera.cameras()
        training = self.model.training
        self.model.eval()
        try:
            raw = self.model.raw_outputs_for_camera(cameras)
        finally:
            self.model.train(training)
        return self.view_of(raw, cameras)

    def view_of(self, raw: dict[str, Tensor], cameras: Cameras) -> FeatureView:
        """The same, of a render. Where the camera is that of a training image, the image and its features are used."""
        return view_of_outputs({**raw, **self.model.image_outputs(cameras)}, cameras)

    def pictures(self) -> Pictures | None:
        """The pictures of the scene; kept until weights change."""
        version = self.version()
        if self._pictures is None or self._pictures[0] != version:
            self._pictures = version, self.model.pictures()
        return self._pictures[1]

    def trace(self, points: Tensor, time: float | None, to: float | None) -> Tensor:
        """Where surface points of one time are at another time."""
        if time is None or to is None or time == to:
            return points
        return self.model.trace_points(points, time, to)

    def text_features(self, texts: list[str]) -> Tensor:
        """Words in the space of the features."""
        return self.model.text_features(texts)
