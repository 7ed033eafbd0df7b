"""Photos of an attached run made into Gaussians, by a training whose length is bounded."""

import shutil
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from semfield_ns.cli.progress import shown
from semfield_ns.cli.steps import run_child, tool

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from nerfstudio.cameras.cameras import Cameras
    from torch import Tensor

    from semfield_ns.gsn.model import GSNModel
    from semfield_ns.scene_model import SceneModel

TIMESTAMP = "baked"
LONGEST_SIDE = 504
"""px: larger photos are reduced"""
STEPS_A_PHOTO, LEAST_STEPS, MOST_STEPS = 10, 400, 1000
"""of the training, where none are asked for"""
OPTIONS = {
    # Photos are of one moment: no brightness over time, and no features along trajectories.
    "pipeline.model.num-shades": 0,
    "pipeline.model.flow-attention": False,
    "pipeline.model.harmonics-degree": 1,
    # Depth by plane sweeping is where to begin; from then on photos know better.
    "pipeline.model.loss-weights.depth": 0.05,
    "pipeline.model.loss-weights.rgb-squared": 10.0,
    "pipeline.model.loss-weights.ssim": 0.4,
    "pipeline.model.grow-every": 50,
}
RATE_FACTOR, LAST_SHARE = 1.5, 0.1
"""by which rates are higher than those of a video's longer training, and the share of them where that would end"""
COMPARED, COMPARED_SIDE = 2, 200
"""held-out photos that the unbaked model is compared on, and their longer side, px: it takes seconds for each"""


def bake_photos(
    model: "GSNModel",
    config: Path,
    output_dir: Path,
    steps: int | None = None,
    longest_side: int | None = None,
    seed: int = 42,
) -> Path:
    """Fits Gaussians to the photos of an attached run, and says what that gains.

    Args:
        model: of the attached run.
        config: its config.yml.
        output_dir: the run goes to OUTPUT_DIR/SCENE/METHOD/baked; an earlier one there is replaced, but for sessions.
        steps: of the training; by default some for each photo.
        longest_side: photos are shrunk to so many pixels; `LONGEST_SIDE` by default.
        seed: of the training.

    Returns:
        The config.yml of the new run.

    Raises:
        SemfieldError: the training fails.
    """
    import torch
    from nerfstudio.utils.eval_utils import eval_setup

    from semfield_ns.gsn.baking import write_posed_scene
    from semfield_ns.gsn.runs import scene_of
    from semfield_ns.method_configs.semantic_flow_splat import RATES

    start, cuda = time.perf_counter(), torch.cuda.is_available()
    scene = scene_of(config, longest_side or LONGEST_SIDE)
    if steps is None:
        steps = min(max(STEPS_A_PHOTO * len(scene.train), LEAST_STEPS), MOST_STEPS)
    method = "semantic-flow-splat" if cuda else "semantic-flow-splat-tiny"
    folder = Path(output_dir).resolve() / scene.name / method / TIMESTAMP
    for old in ("scene", "nerfstudio_models"):  # what people saved beside them stays
        shutil.rmtree(folder / old, ignore_errors=True)
    with shown("Finding depth") as progress:

        def watch(numbers: Sequence[int]) -> Iterable[int]:
            for done, number in enumerate(numbers, start=1):
                yield number
                progress(done / len(numbers))

        posed = write_posed_scene(scene, folder / "scene", watch)
    found = time.perf_counter()
    command = [tool("ns-train"), method, "--output-dir", str(folder.parents[2]), "--timestamp", TIMESTAMP]
    command += ["--experiment-name", scene.name, "--machine.device-type", "cuda" if cuda else "cpu"]
    command += ["--machine.seed", str(seed)]
    command += ["--vis", "tensorboard", "--viewer.quit-on-train-completion", "True", "--max-num-iterations", str(steps)]
    command += ["--logging.local-writer.max-log-size", "0", "--data", str(posed.parent)]
    options = OPTIONS | {"pipeline.datamanager.encoder": model.stroke_teacher}
    for group, rate in RATES.items():
        options[f"optimizers.{group}.optimizer.lr"] = RATE_FACTOR * rate
        options[f"optimizers.{group}.scheduler.lr-final"] = LAST_SHARE * RATE_FACTOR * rate
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with shown("Fitting Gaussians") as progress:
        run_child(command, folder / "baking.log", progress, "The fitting of Gaussians", bars=False)
    fitted = time.perf_counter()
    baked = folder / "config.yml"
    print(f"Baked: {baked}")
    if scene.held_out:
        pipeline = eval_setup(baked, test_mode="test")[1]
        chosen = range(0, len(scene.held_out), -(-len(scene.held_out) // COMPARED))
        photos = [model.library.image(model.shown, scene.held_out[place]) for place in chosen]
        before = _psnr(model, [scene.cameras[scene.held_out[place]] for place in chosen], photos, COMPARED_SIDE)
        held_out = pipeline.datamanager.eval_dataset
        assert held_out is not None, "the scene holds photos out"
        after = _psnr(pipeline.model, [held_out.cameras[place] for place in chosen], photos, None)
        print(f"Held-out photos: {after:.1f} dB, {after - before:+.1f} dB against the run without Gaussians")
    print(f"Seconds: {found - start:.1f} for depth, {fitted - found:.1f} for Gaussians")
    return baked


def _psnr(
    model: "SceneModel", cameras: "Sequence[Cameras]", photos: "Sequence[UInt8[Tensor, 'H W 3']]", side: int | None
) -> float:
    """Mean over photos, in dB, of pictures of so many pixels (None: all), compared at a reduced size."""
    import cv2
    import torch

    from semfield_ns.metrics.images import psnr

    total = 0.0
    for camera, photo in zip(cameras, photos, strict=True):
        seen = deepcopy(camera.reshape((1,)))
        longest = max(int(seen.width), int(seen.height))
        if side is not None:
            seen.rescale_output_resolution(min(side, longest) / longest)
        with torch.no_grad():
            found = model.raw_outputs_for_camera(seen)["rgb"].clamp(0, 1).cpu()
        factor = min(COMPARED_SIDE, longest, max(photo.shape[:2])) / max(photo.shape[:2])
        size = round(photo.shape[1] * factor), round(photo.shape[0] * factor)
        first, second = (
            torch.from_numpy(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
            for image in (found.numpy(), photo.numpy().astype("float32") / 255)
        )
        total += float(psnr(first, second))
    return total / len(photos)
