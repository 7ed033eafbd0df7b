"""Exact views of a synthetic scene, as exports want them."""

import numpy as np

from semfield_ns.export.views import Label, LabelledView
from semfield_ns.scenes.synthetic import AnalyticScene
from semfield_ns.segmentation.cameras import ViewCamera


def labels_of(scene: AnalyticScene) -> list[Label]:
    names = [entry.name for entry in scene.classes]
    return [
        Label(entry.instance, entry.name, (40 * entry.instance % 256, 90, 200), names.index(entry.class_name) + 1, 1)
        for entry in scene.instances
    ]


def view_of(scene: AnalyticScene, c2w: np.ndarray, name: str, time: float | None = None) -> LabelledView:
    size = scene.intrinsics
    truth = scene.render(c2w, time=time or 0.0, samples_per_axis=1)
    camera = ViewCamera(
        tuple(c2w[:3].reshape(-1).tolist()), size.fx, size.fy, size.cx, size.cy, size.width, size.height, time
    )
    return LabelledView(
        name, camera, (truth["rgb"] * 255).round().astype(np.uint8), truth["instances"], truth["position"]
    )
