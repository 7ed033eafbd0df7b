"""The presets of Semantic Flow: one set of classes, three configurations."""

from functools import partial

from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from semfield_ns.method_configs.viewer import local_viewer
from semfield_ns.semantic_flow.config import SemanticFlowModelConfig
from semfield_ns.semantic_flow.datamanager import SemanticFlowDataManagerConfig
from semfield_ns.semantic_flow.encodings import EncodingConfig
from semfield_ns.semantic_flow.losses import LossWeights
from semfield_ns.semantic_flow.pipeline import SemanticFlowPipelineConfig
from semfield_ns.semantic_flow.trainer import SemanticFlowTrainerConfig
from semfield_ns.semantic_flow_splat.optimizers import FusedAdamConfig

GROUPS = ("static", "flow", "dynamic", "semantics", "proposals")

_trainer = partial(SemanticFlowTrainerConfig, steps_per_eval_all_images=1_000_000, mixed_precision=False, vis="viewer")


def _optimizers(rates: dict[str, float], steps: int, decay: float, max_norm: float | None = None) -> dict:
    return {
        group: {
            "optimizer": FusedAdamConfig(lr=rates[group], eps=1e-12, max_norm=max_norm),
            "scheduler": ExponentialDecaySchedulerConfig(lr_final=rates[group] * decay, max_steps=steps),
        }
        for group in GROUPS
    }


semantic_flow = MethodSpecification(
    config=_trainer(
        method_name="semantic-flow",
        steps_per_eval_batch=500,
        steps_per_eval_image=2000,
        steps_per_save=2000,
        max_num_iterations=30000,
        pipeline=SemanticFlowPipelineConfig(
            datamanager=SemanticFlowDataManagerConfig(train_num_rays_per_batch=4096, eval_num_rays_per_batch=4096),
            model=SemanticFlowModelConfig(
                num_samples=48,
                num_proposal_samples=(128, 64),
                num_flow_samples=12,
                static_encoding=EncodingConfig(kind="hash", resolutions=(16, 2048)),
                flow_encoding=EncodingConfig(kind="planes", channels=16, resolutions=(32, 64), frames_per_cell=2.0),
                dynamic_encoding=EncodingConfig(kind="planes", channels=16, resolutions=(64, 128, 256)),
                static_width=64,
                static_blocks=1,
                flow_width=64,
                flow_blocks=1,
                dynamic_width=64,
                dynamic_blocks=1,
                pixel_features="semantics",
                latent_dim=16,
                stage_one_steps=5000,
                freeze_static=False,
                warp_directions="random",
                loss_weights=LossWeights(),
                eval_num_rays_per_chunk=1 << 15,
            ),
        ),
        optimizers=_optimizers(
            {"static": 1e-2, "flow": 2e-3, "dynamic": 1e-2, "semantics": 2e-3, "proposals": 1e-2}, 30000, 0.05
        ),
        viewer=local_viewer(1 << 15),
    ),
    description="Semantic Flow: the semantic field of a dynamic scene from one moving camera (fast fields, GPU).",
)

semantic_flow_paper = MethodSpecification(
    config=_trainer(
        method_name="semantic-flow-paper",
        steps_per_eval_batch=500,
        steps_per_eval_image=5000,
        steps_per_save=5000,
        max_num_iterations=140_000,
        pipeline=SemanticFlowPipelineConfig(
            datamanager=SemanticFlowDataManagerConfig(
                train_num_rays_per_batch=1024,
                eval_num_rays_per_batch=1024,
                encoder_dim=256,
                propagate_labels=False,
            ),
            model=SemanticFlowModelConfig(loss_weights=LossWeights(interlevel=0.0, distortion=0.0)),
        ),
        optimizers=_optimizers(dict.fromkeys(GROUPS[:4], 5e-4) | {"proposals": 5e-4}, 140_000, 0.1, max_norm=10.0),
        viewer=local_viewer(1 << 12),
    ),
    description="Semantic Flow with the MLPs, losses and schedule of the paper (slow).",
)

semantic_flow_tiny = MethodSpecification(
    config=_trainer(
        method_name="semantic-flow-tiny",
        machine=MachineConfig(device_type="cpu"),
        steps_per_eval_batch=200,
        steps_per_eval_image=1_000_000,
        steps_per_save=250,
        max_num_iterations=1600,
        pipeline=SemanticFlowPipelineConfig(
            datamanager=SemanticFlowDataManagerConfig(
                train_num_rays_per_batch=768, eval_num_rays_per_batch=512, encoder="classical"
            ),
            model=SemanticFlowModelConfig(
                num_samples=16,
                num_proposal_samples=(32,),
                num_flow_samples=4,
                static_encoding=EncodingConfig(kind="planes", channels=16, resolutions=(64, 160)),
                flow_encoding=EncodingConfig(kind="planes", channels=8, resolutions=(24,), frames_per_cell=2.0),
                dynamic_encoding=EncodingConfig(kind="planes", channels=12, resolutions=(48, 96)),
                static_width=48,
                static_blocks=1,
                flow_width=32,
                flow_blocks=1,
                dynamic_width=48,
                dynamic_blocks=1,
                pixel_features="semantics",
                latent_dim=4,
                token_dim=32,
                stage_one_steps=800,
                freeze_static=False,
                semantic_gradient=False,
                source_color=True,
                warp_directions="random",
                proposal_anneal_steps=150,
                loss_weights=LossWeights(rgb_static=3.0, mask=1.0, depth=0.1, depth_dynamic=0.5, plane_variation=0.02),
                eval_num_rays_per_chunk=8192,
            ),
        ),
        optimizers=_optimizers(
            {"static": 2e-2, "flow": 5e-3, "dynamic": 2e-2, "semantics": 3e-3, "proposals": 1e-2}, 1600, 0.1
        ),
        viewer=local_viewer(1 << 13),
    ),
    description="Semantic Flow for 2 CPU cores: minutes instead of quality.",
)
