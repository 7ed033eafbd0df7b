"""Simulated strokes on scenes that a run of gsn was not trained on, against the truth in their held-out views.

    python benchmarks/strokes.py outputs/RUN/config.yml SCENE [SCENE ...] [--seeds 5] [--output-dir FOLDER]

Attaches the run to every scene, draws a positive and a negative stroke into a training view (another one for every
seed), and prints a Markdown table a scene; see `semfield_ns.evaluation.strokes` for its rows. Pictures of the predicted
masks go to the output folder, and every rendered view, so that a run that was cut goes on.
"""

import hashlib
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from semfield_ns.evaluation.strokes import PictureFeatures, evaluate_strokes
from semfield_ns.gsn.runs import attach, newest_checkpoint
from semfield_ns.gsn.tokens import TokenStore, matching_tokens
from semfield_ns.io import read_npz, write_json, write_npz, write_png
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.views import FeatureView, surface_points
from semfield_ns.sessions.views import ModelViews

TEACHERS = ("classical", "lite", "lite-fine", "lite-fine+classical")
"""of which the relative rule is judged"""


def describe(model: Any) -> dict[str, PictureFeatures]:
    """The features of pictures by each teacher that needs no hub, balanced as for matching."""

    def features(store: TokenStore) -> PictureFeatures:
        frames = model.library.scenes[model.shown].frames
        numbers = {frame.image_path: number for number, frame in enumerate(frames)}
        return lambda path, size: store.upright(model.shown, numbers[path], size)

    return {name: features(matching_tokens(model.library, name, 4, 1 << 30, "cpu")) for name in TEACHERS}


class StoredViews(ModelViews):
    """Renders every view once, into a folder.

    Args:
        model: of a run.
        folder: of these weights and this scene alone.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        super().__init__(model)
        self.folder = folder

    def render_view(self, camera: ViewCamera) -> FeatureView:
        """See `ViewProvider`."""
        cameras = camera.cameras()
        path = self.folder / f"{hashlib.sha256(repr(camera).encode()).hexdigest()[:16]}.npz"
        if path.is_file():
            return self.view_of({name: torch.from_numpy(value) for name, value in read_npz(path).items()}, cameras)
        raw = self.model.raw_outputs_for_camera(cameras)
        kept = {"rgb": raw["rgb"], "features": raw["features"], "surface": surface_points(raw, cameras)}
        write_npz(path, **{name: value.cpu().numpy() for name, value in kept.items()})
        return self.view_of(kept, cameras)


def main(
    load_config: tyro.conf.Positional[Path],
    scenes: tyro.conf.Positional[list[Path]],
    seeds: int = 5,
    max_views: int = 100,
    output_dir: Path = Path("outputs/strokes"),
) -> None:
    """Attach the run to every scene and measure.

    Args:
        load_config: config.yml of a trained run of gsn.
        scenes: with object masks or instance images.
        seeds: number of stroke seeds.
        max_views: held-out views of a scene, at most.
        output_dir: for attached runs, pictures and every single figure.
    """
    for scene in scenes:
        start = time.perf_counter()
        config = attach(load_config, scene, output_dir)
        folder = output_dir / scene.name
        weights = hashlib.sha256(newest_checkpoint(config).read_bytes()).hexdigest()[:16]
        found = evaluate_strokes(
            config, range(seeds), max_views, partial(StoredViews, folder=folder / weights), describe
        )
        write_json(folder / "strokes.json", [asdict(sample) for sample in found.samples])
        for name, picture in found.pictures.items():
            write_png(folder / "pictures" / f"{name}.png", (picture * 255).byte().numpy())
        print(f"\n{scene.name}, {len(found.samples)} samples, {time.perf_counter() - start:.0f} s\n\n{found.table()}")


if __name__ == "__main__":
    tyro.cli(main)
