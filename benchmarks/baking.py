"""Photos made into Gaussians: how near to held-out photos they are, beside the run of gsn that they come from.

    python benchmarks/baking.py SCENE [SCENE ...] [--seeds 3] [--unbaked 3]

For every scene: `semfield attach` with the weights of the package, then the same with `--bake`, for each seed. PSNR and
SSIM on all held-out photos; of the run without Gaussians, which takes seconds a picture, on some of them, and both are
compared there. Pictures a second are of the first held-out camera at 504 px.
"""

import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import tyro
from nerfstudio.utils.eval_utils import eval_setup
from training import machine

from semfield_ns.cli.baking import bake_photos
from semfield_ns.gsn import runs
from semfield_ns.gsn.pretrained import unpack
from semfield_ns.method_configs.gsn import gsn_tiny
from semfield_ns.metrics.images import image_quality

DRAWN = 10
"""pictures that the rate is measured on"""


def quality(model, camera, photo: torch.Tensor) -> tuple[float, float]:
    """PSNR and SSIM of a photo."""
    with torch.no_grad():
        found = image_quality(model.raw_outputs_for_camera(camera)["rgb"].clamp(0, 1).cpu(), photo.float() / 255)
    return found["psnr"], found["ssim"]


def rate(model, camera) -> float:
    """Pictures a second, of 504 px on the longer side."""
    camera = deepcopy(camera)
    camera.rescale_output_resolution(504 / max(int(camera.width), int(camera.height)))
    model.get_outputs_for_camera(camera)["rgb"]
    start = time.perf_counter()
    for _ in range(DRAWN):
        model.get_outputs_for_camera(camera)["rgb"]
    return DRAWN / (time.perf_counter() - start)


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def main(
    scenes: tuple[Path, ...],
    /,
    seeds: int = 3,
    unbaked: int = 3,
    steps: int | None = None,
    longest_side: int = 504,
    output_dir: Path = Path("outputs/baking"),
) -> None:
    """Bake and compare.

    Args:
        scenes: Folders of photos.
        seeds: Of the fitting.
        unbaked: Held-out photos that the run of gsn is compared on.
        steps: Of the fitting.
        longest_side: Of photos, in pixels.
        output_dir: Of the runs.
    """
    weights = unpack(gsn_tiny.config, output_dir)
    print(
        "| scene | photos | PSNR of gsn, some | PSNR baked, the same | baked, all held out | SSIM | pictures/s "
        "| seconds of baking | processor seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in scenes:
        config = runs.attach(weights, folder, output_dir, longest_side=longest_side)
        model = runs.open_run(config)
        scene = model.library.scenes[model.shown]
        photos = [model.library.image(model.shown, index) for index in scene.held_out]
        some = range(0, len(photos), -(-len(photos) // unbaked))
        before = [
            quality(model, scene.cameras[torch.tensor([scene.held_out[place]])], photos[place])[0] for place in some
        ]
        rows: list[tuple[float, ...]] = []
        for seed in range(seeds):
            start, used = time.perf_counter(), _processor()
            baked = bake_photos(model, config, output_dir, steps, longest_side, seed)
            seconds, processor = time.perf_counter() - start, _processor() - used
            pipeline = eval_setup(baked, test_mode="test")[1]
            cameras = pipeline.datamanager.eval_dataset.cameras
            found = [quality(pipeline.model, cameras[place : place + 1], photo) for place, photo in enumerate(photos)]
            psnr, ssim = np.mean(found, axis=0)
            same = float(np.mean([found[place][0] for place in some]))
            rows.append((same, psnr, ssim, rate(pipeline.model, cameras[0:1]), seconds, processor))
        same, psnr, ssim, drawn, seconds, processor = (list(column) for column in zip(*rows, strict=True))
        cells = [f"{np.mean(before):.2f}", spread(same, 2), spread(psnr, 2), spread(ssim, 3), spread(drawn, 1)]
        cells += [spread(seconds, 0), spread(processor, 0)]
        print(f"| {folder.name} | {len(scene.train)} + {len(photos)} | {' | '.join(cells)} |", flush=True)
    print(f"\n{machine()}")


def _processor() -> float:
    """Seconds of this process and its children."""
    import resource

    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


if __name__ == "__main__":
    tyro.cli(main)
