"""The presets of GSN: one set of classes, three configurations."""

from functools import partial

from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.types import MethodSpecification

from semfield_ns.gsn.datamanager import GSNDataManagerConfig
from semfield_ns.gsn.dataparser import ManyScenesDataParserConfig
from semfield_ns.gsn.model import GSNModelConfig
from semfield_ns.gsn.network import OFFICIAL, NetworkConfig
from semfield_ns.gsn.rendering import RaySettings
from semfield_ns.gsn.schedule import TwoStageSchedulerConfig
from semfield_ns.method_configs.viewer import local_viewer
from semfield_ns.pipeline import SemfieldPipelineConfig
from semfield_ns.semantic_flow_splat.optimizers import FusedAdamConfig

RATES = {"encoder": 1e-3, "trunk": 5e-4, "head": 1e-3}

_trainer = partial(TrainerConfig, steps_per_eval_all_images=1_000_000, mixed_precision=False, vis="viewer")


def _optimizers(
    stage_one_steps: int, halve_every: int, rates: dict[str, float], stage_two: float = 0.1, warmup: int = 0
) -> dict:
    """Encoder and trunk learn at `stage_two` times their rate once features are distilled; the head starts then."""
    return {
        group: {
            "optimizer": FusedAdamConfig(lr=rate, eps=1e-8),
            "scheduler": TwoStageSchedulerConfig(
                stage_one_steps=stage_one_steps,
                stage_two_factor=1.0 if group == "head" else stage_two,
                halve_every=halve_every,
                warmup=warmup,
            ),
        }
        for group, rate in rates.items()
    }


gsn = MethodSpecification(
    config=_trainer(
        method_name="gsn",
        steps_per_eval_batch=1000,
        steps_per_eval_image=5000,
        steps_per_save=5000,
        max_num_iterations=150_000,
        pipeline=SemfieldPipelineConfig(
            datamanager=GSNDataManagerConfig(train_num_rays_per_batch=1024, max_targets=8, eval_num_rays_per_batch=512),
            model=GSNModelConfig(
                network=NetworkConfig(dropout=0.1),
                rays=RaySettings(mode="guided", samples=64, fine_samples=24, rays_in_memory=512),
                stage_one_steps=100_000,
                mirror_probability=0.5,
                precision="bfloat16",
                eval_num_rays_per_chunk=4096,
            ),
        ),
        optimizers=_optimizers(100_000, 50_000, RATES),
        viewer=local_viewer(4096),
    ),
    description="GSN: colour, depth and features of scenes never seen before, from a few posed images (GPU).",
)

gsn_paper = MethodSpecification(
    config=_trainer(
        method_name="gsn-paper",
        steps_per_eval_batch=1000,
        steps_per_eval_image=10_000,
        steps_per_save=10_000,
        max_num_iterations=600_000,
        pipeline=SemfieldPipelineConfig(
            datamanager=GSNDataManagerConfig(train_num_rays_per_batch=512, eval_num_rays_per_batch=512),
            model=GSNModelConfig(
                network=NetworkConfig(dropout=0.1, **OFFICIAL),
                rays=RaySettings(mode="uniform", samples=192, rays_in_memory=128),
                teacher="dino",
                bounds="scene",
                projection="scene",
                eval_num_rays_per_chunk=512,
            ),
        ),
        optimizers=_optimizers(300_000, 50_000, RATES),
        viewer=local_viewer(512),
    ),
    description="GSN with the network, samples, losses and schedule of the paper (slow); takes official weights.",
)

gsn_tiny = MethodSpecification(
    config=_trainer(
        method_name="gsn-tiny",
        machine=MachineConfig(device_type="cpu"),
        steps_per_eval_batch=500,
        steps_per_eval_image=1_000_000,
        steps_per_save=500,
        max_num_iterations=4000,
        pipeline=SemfieldPipelineConfig(
            datamanager=GSNDataManagerConfig(
                dataparser=ManyScenesDataParserConfig(longest_side=200),
                train_num_rays_per_batch=256,
                eval_num_rays_per_batch=256,
                num_source_views=5,
                image_budget=512,
            ),
            model=GSNModelConfig(
                network=NetworkConfig(
                    dim=32, blocks=2, feature_dim=32, image_dim=24, encoder_width=32, encoder_blocks=(2, 2, 2)
                ),
                rays=RaySettings(mode="guided", samples=32, fine_samples=12),
                num_source_views=5,
                frame="view",
                teacher="lite",
                stage_one_steps=3000,
                stage_two_rgb=1.0,
                token_budget=256,
                map_budget=256,
                eval_num_rays_per_chunk=512,
            ),
        ),
        optimizers=_optimizers(3000, 1500, {"encoder": 2e-3, "trunk": 2e-3, "head": 2e-3}, stage_two=0.5, warmup=100),
        viewer=local_viewer(512),
    ),
    description="GSN for 2 CPU cores: small pictures, minutes of training.",
)
