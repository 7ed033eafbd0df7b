"""How well a trained run of gsn renders scenes that it has never seen, against copying and averaging of pictures.

    python benchmarks/gsn_zero_shot.py outputs/RUN/config.yml UNSEEN_SCENES [--max-images 3] [--pictures FOLDER]
    python benchmarks/gsn_zero_shot.py outputs/RUN/config.yml UNSEEN_SCENES --turn 180    # the same scenes, turned

For every held-out image of every scene, all from the same nearest training images:

- gsn: the model's colours, features and depth;
- nearest: the nearest training image, pixel for pixel, and its teacher features;
- average: pictures of all source views warped by one plane and averaged (no depth is known; the plane, out of 16, that
  the views agree on best for the whole picture).

Prints one Markdown table: PSNR, cosine to the held-out image's own teacher features, and Spearman's correlation of
depth with the truth where the scene has depth maps.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from scipy.stats import spearmanr

from semfield_ns.gsn.grids import sample_grid
from semfield_ns.gsn.model import GSNModel
from semfield_ns.gsn.projection import SourceViews, observe_tokens, project
from semfield_ns.gsn.runs import attach, open_run
from semfield_ns.io import write_png
from semfield_ns.metrics.images import psnr
from semfield_ns.scenes.dataset import read_depth
from semfield_ns.scenes.formats import read_scene

PLANES = 16


@dataclass
class Row:
    """Figures of one image."""

    scene: str
    psnr: float
    psnr_nearest: float
    psnr_average: float
    cosine: float
    cosine_nearest: float
    cosine_average: float
    spearman: float
    seconds: float


def plane_average(
    origins: torch.Tensor, directions: torch.Tensor, views: SourceViews, near: float, far: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours [N,3] and features [N,F] averaged over the views at the plane on which their colours agree best.

    directions: of length such that depths along the optical axis multiply them.
    """
    best = (torch.inf, torch.empty(0), torch.empty(0))
    for share in torch.linspace(0, 1, PLANES):
        depth = 1 / (1 / near * (1 - share) + 1 / far * share)
        pixels, visible = project(origins + depth * directions, views)
        weight = visible.float()[..., None]
        total = weight.sum(dim=0)
        colors = sample_grid(views.images, pixels, "border")
        # Where no view sees a pixel of the plane, all of them count, at their borders.
        weight = torch.where(total > 0, weight, 1.0)
        total = weight.sum(dim=0)
        mean = (weight * colors).sum(dim=0) / total
        spread = ((weight * (colors - mean).square()).sum(dim=0) / total).mean()
        if float(spread) < best[0]:
            tokens = mean
            if views.tokens:
                grid = observe_tokens(pixels, views)
                tokens = F.normalize((weight * grid).sum(dim=0) / total, dim=-1)
            best = (float(spread), mean, tokens)
    return best[1], best[2]


@torch.no_grad()
def judge(model: GSNModel, index: int, truth_depth: np.ndarray | None, pictures: Path | None) -> Row:
    """Figures of one held-out image of the shown scene."""
    scene = model.library.scenes[model.shown]
    frame = scene.frames[index]
    camera = scene.cameras[torch.tensor([index])]
    start = time.perf_counter()
    raw = model.raw_outputs_for_camera(camera)
    seconds = time.perf_counter() - start
    truth = model.library.image(model.shown, index).float() / 255
    bundle = camera.generate_rays(camera_indices=0, keep_shape=True)
    sources = model.sources_for(model.shown, scene.centres[index])
    views = model.evaluation_views(model.shown, sources)
    norm = bundle.metadata["directions_norm"]
    origins, directions = bundle.origins.reshape(-1, 3), (bundle.directions * norm).reshape(-1, 3)
    average, average_features = plane_average(origins, directions, views, scene.near, scene.far)
    average = average.view_as(truth)
    nearest = views.images[0].permute(1, 2, 0)
    cosines = [float("nan")] * 3
    if "features" in raw and model.tokens is not None:
        size = (frame.height, frame.width)

        def upright(grid: torch.Tensor) -> torch.Tensor:
            return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)

        teacher = upright(model.tokens.stack(model.shown, [index]))
        candidates = (raw["features"], upright(views.tokens[0][:1]), average_features.view(*size, -1))
        cosines = [float(F.cosine_similarity(candidate, teacher, dim=-1).mean()) for candidate in candidates]
        if pictures is not None:
            row = torch.cat([model.feature_colors(x) for x in (teacher, *candidates)], dim=1)
            write_png(pictures / f"{scene.name}_{index:03d}_features.png", (row * 255).byte().numpy())
    if pictures is not None:
        row = torch.cat([truth, raw["rgb"].clamp(0, 1), nearest, average], dim=1)
        write_png(pictures / f"{scene.name}_{index:03d}_rgb.png", (row * 255).byte().numpy())
        depth = (raw["depth"] / norm)[..., 0]
        shade = (1 / depth - 1 / scene.far) / (1 / scene.near - 1 / scene.far)
        write_png(pictures / f"{scene.name}_{index:03d}_depth.png", (shade.clamp(0, 1) * 255).byte().numpy())
    correlation = float("nan")
    if truth_depth is not None:
        depth = (raw["depth"] / norm)[..., 0].numpy()
        known = truth_depth > 0
        correlation = float(spearmanr(depth[known], truth_depth[known]).statistic)
    return Row(
        scene.name,
        float(psnr(raw["rgb"].clamp(0, 1), truth)),
        float(psnr(nearest.clamp(0, 1), truth)),
        float(psnr(average.clamp(0, 1), truth)),
        *cosines,
        correlation,
        seconds,
    )


def truth_depths(path: Path) -> dict[str, np.ndarray]:
    """Depth maps of a scene's frames by the name of the image."""
    scene = read_scene(path)
    return {f.image_path.name: read_depth(f) for f in (*scene.train, *scene.test) if f.depth_path is not None}


def turned(poses: torch.Tensor, degrees: float) -> torch.Tensor:
    """Poses [N,3,4] of the same cameras in a world that is turned around its vertical axis."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]) @ poses


def main(
    load_config: tyro.conf.Positional[Path],
    scenes: tyro.conf.Positional[list[Path]],
    max_images: int = 100,
    output_dir: Path = Path("outputs/zero_shot"),
    pictures: Path | None = None,
    turn: float = 0.0,
) -> None:
    """Attach the run to every scene and measure.

    Args:
        load_config: config.yml of a trained run of gsn.
        scenes: scenes that it was not trained on.
        max_images: held-out images of each, at most.
        output_dir: for the attached runs.
        pictures: folder for comparison pictures: truth, gsn, nearest, average.
        turn: degrees by which the scenes are turned, which should change nothing.
    """
    rows: list[Row] = []
    for path in scenes:
        depths = truth_depths(path)
        model = open_run(attach(load_config, path, output_dir))
        scene = model.library.scenes[model.shown]
        if turn:
            scene.cameras.camera_to_worlds = turned(scene.cameras.camera_to_worlds, turn)
        for index in scene.held_out[:max_images]:
            frame = scene.frames[index]
            depth = depths.get(frame.image_path.name)
            if depth is not None and depth.shape != frame.size:
                depth = None
            rows.append(judge(model, index, depth, pictures))
    names = list(dict.fromkeys(row.scene for row in rows))
    print("| scene | images | PSNR gsn | nearest | average | cosine gsn | nearest | average | Spearman | s/image |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in [*names, "mean"]:
        some = [row for row in rows if name in (row.scene, "mean")]
        figures = [
            np.mean([getattr(row, key) for row in some])
            for key in (
                *("psnr", "psnr_nearest", "psnr_average", "cosine", "cosine_nearest", "cosine_average"),
                *("spearman", "seconds"),
            )
        ]
        texts = [f"{x:.2f}" for x in figures[:3]] + [f"{x:.3f}" for x in figures[3:7]] + [f"{figures[7]:.1f}"]
        print(f"| {name} | {len(some)} | {' | '.join(texts)} |")


if __name__ == "__main__":
    tyro.cli(main)
