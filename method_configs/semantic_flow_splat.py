"""The presets of Semantic Flow on Gaussians: one set of classes, two configurations."""

from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.types import MethodSpecification

from semfield_ns.method_configs.viewer import local_viewer
from semfield_ns.pipeline import SemfieldPipelineConfig
from semfield_ns.semantic_flow_splat.config import SemanticFlowSplatModelConfig, SplatLossWeights
from semfield_ns.semantic_flow_splat.datamanager import SplatDataManagerConfig
from semfield_ns.semantic_flow_splat.optimizers import FusedAdamConfig

RATES = {
    "still": 2e-3,
    "tracks": 4e-3,
    "presence": 3e-2,
    "opacities": 3e-2,
    "scales": 3e-2,
    "quaternions": 1.2e-2,
    "colors": 3e-2,
    "details": 2e-3,
    "shades": 1e-2,
    "logits": 5e-2,
    "semantics": 3e-3,
}


def _optimizers(steps: int, decay: float, factor: float = 1.0) -> dict:
    return {
        group: {
            "optimizer": FusedAdamConfig(lr=rate * factor, eps=1e-15),
            "scheduler": ExponentialDecaySchedulerConfig(lr_final=rate * factor * decay, max_steps=steps),
        }
        for group, rate in RATES.items()
    }


semantic_flow_splat = MethodSpecification(
    config=TrainerConfig(
        method_name="semantic-flow-splat",
        steps_per_eval_batch=1_000_000,
        steps_per_eval_image=1000,
        steps_per_eval_all_images=1_000_000,
        steps_per_save=2000,
        max_num_iterations=15_000,
        mixed_precision=False,
        pipeline=SemfieldPipelineConfig(
            datamanager=SplatDataManagerConfig(),
            model=SemanticFlowSplatModelConfig(gather_every=2000, network_batch=1 << 16, token_dim=64),
        ),
        optimizers=_optimizers(15_000, 0.05, 0.5),
        viewer=local_viewer(1 << 15),
        vis="viewer",
    ),
    description="Semantic Flow on moving Gaussians (GPU).",
)

semantic_flow_splat_tiny = MethodSpecification(
    config=TrainerConfig(
        method_name="semantic-flow-splat-tiny",
        machine=MachineConfig(device_type="cpu"),
        steps_per_eval_batch=1_000_000,
        steps_per_eval_image=1_000_000,
        steps_per_eval_all_images=1_000_000,
        steps_per_save=400,
        max_num_iterations=800,
        mixed_precision=False,
        pipeline=SemfieldPipelineConfig(
            datamanager=SplatDataManagerConfig(encoder="classical"),
            model=SemanticFlowSplatModelConfig(
                max_gaussians=40_000,
                start_gaussians=30_000,
                grow_every=150,
                grow_until=550,
                harmonics_degree=0,
                num_tokens=6,
                network_batch=1024,
                loss_weights=SplatLossWeights(rgb_squared=1.0, ssim=0.0),
            ),
        ),
        optimizers=_optimizers(800, 0.1),
        viewer=local_viewer(1 << 13),
        vis="viewer",
    ),
    description="Semantic Flow on moving Gaussians for 2 CPU cores: minutes.",
)
