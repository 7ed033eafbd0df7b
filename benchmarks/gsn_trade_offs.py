"""What the feature dimension costs and gives, and what colours cost features: short trainings from one trunk.

    python benchmarks/gsn_trade_offs.py cost                                        # seconds; random weights
    python benchmarks/gsn_trade_offs.py quality outputs/RUN/config.yml TRAIN TEST   # minutes; resumes

cost: the full network (V = 10, S = 64) and the tokens of a 504x378 image with a cell every 8 pixels, by the number of
channels.

quality: every row starts from the run's encoder and trunk with a new head, trains --steps steps of the second stage on
the scenes of TRAIN, all with the same seed, and renders held-out images of the scenes of TEST, which it has not seen. A
row that was measured is kept in --output-dir. PSNR; the cosine to the teacher's projected features, which is what the
loss sees; and the cosine to all of the teacher's (standardised) channels, which features of any dimension can be
compared by.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from semfield_ns.gsn.model import GSNModel
from semfield_ns.gsn.network import GSNNetwork, NetworkConfig
from semfield_ns.gsn.runs import newest_checkpoint, read_run
from semfield_ns.io import write_json

_NEW = ("_model.network.dino.", "_model.projection.", "_model.feature_colors.")


@torch.no_grad()
def cost(dims: tuple[int, ...] = (0, 16, 32, 64, 128, 256, 384), rays: int = 32, rounds: int = 3) -> None:
    """Print what a number of channels costs.

    Args:
        dims: numbers of channels; 0: no features at all.
        rays: of a measurement.
        rounds: the fastest of so many counts.
    """
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.gsn.scenes import random_rays, random_views

    print("| channels | parameters of the head | MB of tokens an image | rays a processor second |\n|---|---|---|---|")
    for dim in dims:
        torch.manual_seed(0)
        network = GSNNetwork(replace(NetworkConfig(), feature_dim=dim)).eval()
        views = network.encode(random_views(10, 96, 128, feature_dim=dim or 4))
        some, folded, seconds = random_rays(rays, 64), network.fold(), []
        for _ in range(rounds + 1):
            start = time.process_time()
            for ray in range(0, rays, 16):
                network.render(*(x[ray : ray + 16] for x in some), views, dim > 0, folded)
            seconds.append(time.process_time() - start)
        parameters = sum(p.numel() for head in network.feature_heads.values() for p in head.parameters())
        tokens = 48 * 63 * dim * 2 / 2**20
        print(f"| {dim} | {parameters} | {tokens:.2f} | {rays / min(seconds[1:]):.0f} |", flush=True)


def quality(
    load_config: Annotated[Path, tyro.conf.Positional],
    train: Annotated[Path, tyro.conf.Positional],
    test: Annotated[Path, tyro.conf.Positional],
    dims: tuple[int, ...] = (8, 16, 32),
    weights: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0, 10.0),
    steps: int = 200,
    images: int = 1,
    output_dir: Path = Path("outputs/gsn_trade_offs"),
) -> None:
    """Print the tables of feature dimensions and of loss weights.

    Args:
        load_config: config.yml of a run of gsn.
        train: scenes to train on.
        test: scenes to judge by.
        dims: numbers of channels; more than the teacher has give nothing.
        weights: of the colour loss beside a feature loss of weight 1.
        steps: of each training.
        images: held-out images of each scene of TEST.
        output_dir: for the figures of rows.
    """
    plain = read_run(load_config).pipeline.model
    dim, weight = plain.network.feature_dim, plain.stage_two_rgb  # type: ignore[attr-defined]
    print("| channels | weight of colours | PSNR, dB | cosine | cosine, all channels |\n|---|---|---|---|---|")
    for wanted in [*((d, weight) for d in dims), *((dim, w) for w in weights if w != weight or dim not in dims)]:
        path = output_dir / f"{wanted[0]}_{wanted[1]:g}_{steps}.json"
        if not path.is_file():
            write_json(path, short_run(load_config, train, test, *wanted, steps, images))
        figures = json.loads(path.read_text())
        row = f"{figures['psnr']:.2f} | {figures['cosine']:.4f} | {figures['whole']:.4f}"
        print(f"| {wanted[0]} | {wanted[1]:g} | {row} |", flush=True)


def short_run(
    load_config: Path, train: Path, test: Path, dim: int, weight: float, steps: int, images: int
) -> dict[str, float]:
    """Trains a new head, and the rest with it; returns figures on scenes that it has not seen."""
    torch.manual_seed(0)
    state = torch.load(newest_checkpoint(load_config), map_location="cpu", weights_only=True)["pipeline"]
    trunk = {key: value for key, value in state.items() if key.startswith("_model.") and not key.startswith(_NEW)}
    config = read_run(load_config).pipeline
    settings = config.model
    settings.network.feature_dim, settings.stage_two_rgb, settings.stage_one_steps = dim, weight, 0  # type: ignore
    config.datamanager.data, config.datamanager.scene_weights = train, ()  # type: ignore[attr-defined]
    pipeline = config.setup(device="cpu")
    pipeline.load_state_dict(trunk, strict=False)
    pipeline.train()
    groups = pipeline.get_param_groups()
    rates = {"encoder": 5e-4, "trunk": 5e-4, "head": 2e-3}
    optimizer = torch.optim.Adam([{"params": groups[name], "lr": rate} for name, rate in rates.items()])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for step in range(steps):
        pipeline.model.set_step(step)
        optimizer.zero_grad()
        sum(pipeline.get_train_loss_dict(step)[1].values()).backward()
        optimizer.step()
        schedule.step()
    config.datamanager.data = test
    shown = config.setup(device="cpu")
    shown.load_state_dict(pipeline.state_dict(), strict=False)
    shown.eval()
    rows = [
        judge(shown.model, scene, image)
        for scene, posed in enumerate(shown.model.library.scenes)
        for image in posed.held_out[:images]
    ]
    return dict(zip(("psnr", "cosine", "whole"), np.mean(rows, axis=0).tolist(), strict=True))


@torch.no_grad()
def judge(model: GSNModel, scene: int, image: int) -> tuple[float, float, float]:
    """PSNR and both cosines of a held-out image."""
    model.show(scene)
    raw = model.raw_outputs_for_camera(model.library.scenes[scene].cameras[torch.tensor([image])])
    truth = model.library.image(scene, image).float() / 255
    error = (raw["rgb"].clamp(0, 1) - truth).square().mean()
    first, size = model.distilled[0], (truth.shape[0], truth.shape[1])
    cosine = F.cosine_similarity(raw["features"], first.upright(scene, image, size), dim=-1).mean()
    projection = first.projection
    whole = ((first.tokens.describe(scene, image) - projection.mean) / projection.std).permute(2, 0, 1)[None]
    whole = F.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    decoded = raw["features"] @ projection.basis.T
    return (
        float(-10 * torch.log10(error)),
        float(cosine),
        float(F.cosine_similarity(decoded, whole, dim=-1).mean()),
    )


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"cost": cost, "quality": quality})
