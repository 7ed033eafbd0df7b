"""Time from the last click of a stroke to the new mask, and from a new camera to a first coarse one.

    python benchmarks/segmentation_latency.py [--load-config outputs/RUN/config.yml] [--device cuda]

1. Strokes: a picture of a synthetic scene, 504x378, described by 64 features (the classical teacher's, mixed), is
   prepared; then 20 simulated strokes, by turns on an object and beside it, are added. Each is timed from the call of
   the tool to the ids, and to the overlay, both on the CPU.
2. Cameras (with --load-config): 504x378 cameras between the training cameras of a run, not seen before; timed from the
   call to the first coarse mask, with a stroke in a training view.

Prints medians and the slowest.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from nerfstudio.cameras.cameras import Cameras

from semfield_ns.io import read_image
from semfield_ns.scenes.dataset import read_depth
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.simulation import simulate_strokes
from semfield_ns.segmentation.views import FeatureView
from semfield_ns.sessions.masks import open_run, scene_views
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from semfield_ns.sessions.views import ModelViews
from semfield_ns.teachers.classical import ClassicalTeacher

WIDTH, HEIGHT, FEATURES, STROKES = 504, 378, 64, 20


class OneView:
    """A provider that knows one view, of a scene where nothing moves."""

    def __init__(self, view: FeatureView) -> None:
        self.view = view

    def version(self) -> None:
        return None

    def render_view(self, camera: ViewCamera) -> FeatureView:
        return self.view

    def view_of(self, raw: dict[str, torch.Tensor], cameras: Cameras) -> FeatureView:
        return self.view

    def photo_of(self, view: FeatureView) -> FeatureView:
        return view

    def pictures(self) -> None:
        return None

    def cloud(self) -> None:
        return None

    def trace(self, points: torch.Tensor, time: float | None, to: float | None) -> torch.Tensor:
        return points

    def text_features(self, texts: list[str]) -> torch.Tensor:
        raise NotImplementedError


def picture(folder: Path, device: str) -> tuple[FeatureView, np.ndarray]:
    """A view of a synthetic scene with mixed classical features, and its instances."""
    scene = read_scene(write_scene("static", folder, num_frames=4, width=WIDTH, height=HEIGHT, samples_per_axis=1))
    frame = scene.train[0]
    image = torch.from_numpy(np.array(read_image(frame.image_path).convert("RGB"))).float() / 255
    pose = torch.from_numpy(frame.c2w[:3]).float()
    camera = ViewCamera(
        tuple(pose.flatten().tolist()), frame.fx, frame.fy, frame.cx, frame.cy, frame.width, frame.height
    )
    bundle = camera.cameras().generate_rays(camera_indices=0, keep_shape=True)
    depth = torch.from_numpy(read_depth(frame)).float()[..., None] * bundle.metadata["directions_norm"]
    points = bundle.origins + bundle.directions * depth
    found = ClassicalTeacher(stride=2).encode(image[None])
    found = (found - found.mean(dim=(0, 1, 2))) / found.std(dim=(0, 1, 2))
    found = F.interpolate(found.permute(0, 3, 1, 2), (HEIGHT, WIDTH), mode="bilinear")[0].permute(1, 2, 0)
    mixing = torch.randn(found.shape[-1], FEATURES, generator=torch.Generator().manual_seed(0))
    features = F.normalize(found @ mixing, dim=-1)
    assert frame.instance_path is not None
    view = FeatureView(camera, image.to(device), features.to(device), points.to(device))
    return view, np.array(read_image(frame.instance_path))


def stroke_seconds(device: str) -> tuple[float, list[float], list[float], int]:
    """Seconds to prepare the view, to each new mask, to each overlay; and the number of superpixels."""
    with tempfile.TemporaryDirectory() as folder:
        view, instances = picture(Path(folder), device)
    start = time.perf_counter()
    segmenter = Segmenter(Session(), OneView(view))
    segmenter.view(view.camera)
    prepared = time.perf_counter() - start
    ids, counts = np.unique(instances[instances > 0], return_counts=True)
    target = instances == ids[counts.argmax()]
    number = segmenter.session.add_object("target")
    masks, overlays = [], []
    for seed in range(STROKES):
        stroke = simulate_strokes(target, view.camera, seed)[seed % 2]
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        segmenter.session.add_prompt(number, stroke)
        found = segmenter.segment(view.camera)
        found.ids.cpu()
        masks.append(time.perf_counter() - start)
        found.overlay.cpu()
        overlays.append(time.perf_counter() - start)
    hit = found.masks[0].cpu().numpy()
    print(f"IoU after {STROKES} strokes: {(hit & target).sum() / (hit | target).sum():.3f}")
    return prepared, masks, overlays, len(view.regions.size)


def new_cameras(segmenter: Segmenter, cameras: list[ViewCamera], count: int) -> Iterator[float]:
    """Seconds to the first coarse mask from cameras half-way between neighbours."""
    for index in np.linspace(0, len(cameras) - 2, count).round().astype(int):
        first, second = (np.array(cameras[i].camera_to_world) for i in (index, index + 1))
        pose = first.reshape(3, 4).copy()
        pose[:, 3] = (pose[:, 3] + second.reshape(3, 4)[:, 3]) / 2
        camera = replace(cameras[index], camera_to_world=tuple(np.float32(pose).flatten().tolist()))
        camera = camera.scaled(WIDTH / camera.width)
        start = time.perf_counter()
        next(segmenter.segment_coarse_first(camera)).ids.cpu()
        yield time.perf_counter() - start


def report(what: str, seconds: list[float]) -> None:
    """One line."""
    print(
        f"{what}: median {1000 * np.median(seconds):.0f} ms, slowest {1000 * max(seconds):.0f} ms, n = {len(seconds)}"
    )


def main(load_config: Path | None = None, device: str = "cpu", cameras: int = 10) -> None:
    """Measure.

    Args:
        load_config: config.yml of a run of gsn-tiny, for new cameras.
        device: of the strokes.
        cameras: number of new cameras.
    """
    name = torch.cuda.get_device_name() if device != "cpu" else f"{torch.get_num_threads()} threads"
    prepared, masks, overlays, regions = stroke_seconds(device)
    print(f"{WIDTH}x{HEIGHT} pixels, {FEATURES} features, {regions} superpixels, {name}")
    print(f"preparing the view, once: {1000 * prepared:.0f} ms")
    report("stroke to mask", masks)
    report("stroke to overlay", overlays)
    if load_config is not None:
        _, pipeline = open_run(load_config)
        views = scene_views(pipeline, "train")
        segmenter = Segmenter(Session(), ModelViews(pipeline.model))
        number = segmenter.session.add_object("target")
        drawn = views[0].camera
        middle = (drawn.width / 2, drawn.height / 2)
        segmenter.session.add_stroke(number, drawn, [middle, (middle[0] + 5, middle[1] + 5)])
        segmenter.segment(drawn)
        report("new camera to coarse mask", list(new_cameras(segmenter, [view.camera for view in views], cameras)))


if __name__ == "__main__":
    tyro.cli(main)
