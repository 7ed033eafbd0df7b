"""A method as small as Nerfstudio allows: one colour, learned on four images of eight by eight pixels.

Tests register it through NERFSTUDIO_METHOD_CONFIGS where the real methods would only be slow.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.plugins.types import MethodSpecification
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.pipeline import SemfieldPipelineConfig

SIZE = 8
NUM_IMAGES = 4


@dataclass
class TinyModelConfig(ModelConfig):
    _target: type = field(default_factory=lambda: TinyModel)
    num_classes: int = 2
    backend: str = "torch"
    describe: bool = True


class TinyModel(Model):
    """One colour everywhere. TINY_FAIL names the place where it raises a SemfieldError."""

    def populate_modules(self):
        super().populate_modules()
        fail_at("model")
        name = "weights" if self.config.backend == "torch" else "params"
        self.head = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.zeros(self.config.num_classes))})
        self.color = torch.nn.Parameter(torch.zeros(3))
        self.evaluations = []

    def checkpoint_info(self):
        if not self.config.describe:
            return {}
        return {"backend": self.config.backend, "classes": ", ".join("ab"[: self.config.num_classes])}

    def get_param_groups(self):
        return {"fields": list(self.parameters())}

    def get_outputs(self, ray_bundle):
        fail_at("outputs")
        ones = torch.ones_like(ray_bundle.origins[..., :1])
        return {"rgb": torch.sigmoid(self.color) * ones, "depth": ones, "accumulation": ones}

    def get_loss_dict(self, outputs, batch, metrics_dict=None):
        fail_at("training")
        target = batch["image"][..., :3].to(self.device)
        return {"rgb": torch.nn.functional.mse_loss(outputs["rgb"], target) + sum(p.sum() for p in self.head.values())}

    def begin_evaluation(self):
        self.evaluations = []

    def end_evaluation(self, output_path):
        return {"num_evaluated": float(len(self.evaluations))}

    def get_image_metrics_and_images(self, outputs, batch):
        error = float((outputs["rgb"] - batch["image"][..., :3].to(self.device)).abs().mean())
        self.evaluations.append(error)
        metrics = {"error": error, "sometimes": error if len(self.evaluations) % 2 else float("nan")}
        return metrics, {"img": outputs["rgb"]}


def fail_at(place: str) -> None:
    if os.environ.get("TINY_FAIL") == place:
        raise SemfieldError(f"The {place} of the tiny method failed: unset TINY_FAIL.")


def write_tiny_scene(folder: Path, num_images: int = NUM_IMAGES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    frames = []
    for index in range(num_images):
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        pose = np.eye(4)
        pose[:3, 3] = random.normal(size=3)
        frames.append({"file_path": f"{index}.png", "transform_matrix": pose.tolist()})
    intrinsics = {"fl_x": 8.0, "fl_y": 8.0, "cx": 4.0, "cy": 4.0, "w": SIZE, "h": SIZE}
    (folder / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))
    return folder


def tiny_config(**model: object) -> TrainerConfig:
    return TrainerConfig(
        method_name="tiny-test",
        max_num_iterations=4,
        steps_per_save=2,
        steps_per_eval_batch=100,
        steps_per_eval_image=100,
        steps_per_eval_all_images=100,
        machine=MachineConfig(device_type="cpu"),
        vis="tensorboard",
        viewer=ViewerConfig(websocket_host="127.0.0.1", quit_on_train_completion=True),
        pipeline=SemfieldPipelineConfig(
            datamanager=VanillaDataManagerConfig(
                dataparser=NerfstudioDataParserConfig(eval_mode="all", auto_scale_poses=False),
                train_num_rays_per_batch=16,
                eval_num_rays_per_batch=16,
            ),
            model=TinyModelConfig(**model),
        ),
        optimizers={
            "fields": {
                "optimizer": AdamOptimizerConfig(lr=1e-2),
                "scheduler": ExponentialDecaySchedulerConfig(lr_final=1e-3, max_steps=4),
            }
        },
    )


tiny_test = MethodSpecification(config=tiny_config(), description="One colour.")
