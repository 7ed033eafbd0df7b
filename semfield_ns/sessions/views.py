"""Views of a model, for segmentation."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

import torch.nn.functional as F
from cachetools import LRUCache
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.rendering.lazy import size_of
from semfield_ns.scene_model import SceneModel
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.clouds import Cloud
from semfield_ns.segmentation.views import FeatureView, Pictures, surface_points, view_of_outputs


@dataclass(frozen=True, eq=False)
class Render:
    """What is known of a camera's picture."""

    raw: Mapping[str, Tensor] = field(default_factory=dict)
    """of the model; empty if that is not kept"""
    view: FeatureView | None = None
    """with superpixels; None if nobody asked for it"""

    @property
    def size(self) -> int:
        """Bytes of pixels."""
        own = {} if self.view is None else {"rgb": self.view.rgb, "features": self.view.features}
        return size_of(self.raw) + size_of(own)


class Renders:
    """The renders that were used last, all of one version of the model. Threads may share them.

    Args:
        budget: bytes; one render is kept even if it alone has more.
    """

    def __init__(self, budget: int) -> None:
        self._kept: LRUCache[tuple[ViewCamera, Hashable], Render] = LRUCache(budget, lambda r: min(r.size, budget))
        self._lock = Lock()

    def find(self, camera: ViewCamera, version: Hashable) -> Render:
        """What is kept of a camera's picture; an empty render if nothing is."""
        with self._lock:
            return self._kept.get((camera, version), Render())

    def keep(self, camera: ViewCamera, version: Hashable, found: Render) -> None:
        """Adds to what is kept of a camera's picture, and forgets other versions."""
        with self._lock:
            for old in [key for key in self._kept if key[1] != version]:
                del self._kept[old]
            known = self._kept.pop((camera, version), Render())
            self._kept[camera, version] = Render(found.raw or known.raw, found.view or known.view)

    def cameras(self, version: Hashable) -> list[ViewCamera]:
        """Whose pictures are kept."""
        with self._lock:
            return [camera for camera, of in self._kept if of == version]

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()


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

    def view_of(self, raw: Mapping[str, Tensor], cameras: Cameras) -> FeatureView:
        """The same, of a render. Where the camera is that of a training image, the image and its features are used.

        But not where strokes select among Gaussians: what is compared with their features is rendered of these.
        """
        if self.cloud() is not None:
            return view_of_outputs(raw, cameras)
        taken = self.model.image_outputs(cameras)
        known = taken or self.model.surface_outputs(surface_points(raw, cameras), cameras)
        return replace(view_of_outputs({**raw, **known}, cameras), photo=bool(taken))

    def photo_of(self, view: FeatureView) -> FeatureView:
        """A view with the features of the photo that its camera took; the view itself where none did."""
        taken = self.model.image_outputs(view.camera.cameras())
        if "features" not in taken:
            return view
        return replace(view, features=F.normalize(taken["features"].float(), dim=-1), photo=True)

    def pictures(self) -> Pictures | None:
        """The pictures of the scene; kept until weights change."""
        version = self.version()
        if self._pictures is None or self._pictures[0] != version:
            self._pictures = version, self.model.pictures()
        return self._pictures[1]

    def cloud(self) -> Cloud | None:
        """The Gaussians that strokes select among."""
        return self.model.cloud()

    def trace(self, points: Tensor, time: float | None, to: float | None) -> Tensor:
        """Where surface points of one time are at another time."""
        if time is None or to is None or time == to:
            return points
        return self.model.trace_points(points, time, to)

    def text_features(self, texts: list[str]) -> Tensor:
        """Words in the space of the features."""
        return self.model.text_features(texts)
