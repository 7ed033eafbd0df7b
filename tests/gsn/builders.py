"""Small static scenes on disk, and the model of a preset over them."""

from copy import deepcopy
from pathlib import Path

import torch

from semfield_ns.method_configs.gsn import gsn_tiny
from semfield_ns.scenes.synthetic import write_scene


def write_scenes(folder: Path, count: int = 2, num_frames: int = 8, width: int = 48, height: int = 36) -> Path:
    for seed in range(count):
        write_scene(
            "static",
            folder / f"scene_{seed}",
            seed,
            num_frames=num_frames,
            width=width,
            height=height,
            samples_per_axis=1,
        )
    return folder


def small_config(data: Path, **model):
    """The tiny preset, smaller still; its second stage starts at step 4."""
    config = deepcopy(gsn_tiny.config)
    config.pipeline.datamanager.data = data
    config.pipeline.datamanager.train_num_rays_per_batch = 32
    config.pipeline.datamanager.eval_num_rays_per_batch = 32
    config.pipeline.datamanager.num_source_views = 3
    settings = config.pipeline.model
    settings.network.dim, settings.network.encoder_width, settings.network.feature_dim = 16, 8, 8
    settings.rays.samples, settings.rays.fine_samples = 8, 4
    settings.teacher = "classical"  # a few channels, at once
    settings.num_source_views, settings.stage_one_steps, settings.projection_images = 3, 4, 3
    for name, value in model.items():
        setattr(settings, name, value)
    return config


def small_pipeline(data: Path, **model):
    torch.manual_seed(0)
    return small_config(data, **model).pipeline.setup(device="cpu")
