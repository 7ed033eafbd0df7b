"""What Gaussians begin with, by a trained field: its depth, what moves in it, and its flow, in place of the scene's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import run_config
from semfield_ns.scene_model import MovingSceneModel, require_moving
from semfield_ns.semantic_flow_splat.video import VideoFrame

SAME_POSE = 1e-3
"""difference of camera poses, world units, up to which two runs see the same world"""


def open_field(load_config: Path) -> MovingSceneModel:
    """The model of a trained run.

    Raises:
        SemfieldError: there is no such run, or it is no run of a video.
    """
    from nerfstudio.utils.eval_utils import eval_setup

    config, pipeline, _, _ = eval_setup(run_config(load_config), test_mode="inference")
    return require_moving(pipeline.model, config.method_name, "Gaussians begin with what is learned")


@torch.no_grad()
def seen_by(model: MovingSceneModel, frames: Sequence[VideoFrame]) -> list[VideoFrame]:
    """The frames with metric depth, motion masks and flow as a model renders them.

    Args:
        model: of the same scene.
        frames: of one camera, in the order of time.

    Raises:
        SemfieldError: the model's cameras are elsewhere.
    """
    cameras = model.time_cameras()
    result = []
    for frame in frames:
        if frame.step >= len(cameras) or not _same(cameras[frame.step], frame):
            raise SemfieldError(
                "The run of --pipeline.datamanager.load-field is of another scene, or of other settings of its data "
                f"parser: its camera at time step {frame.step} is not that of the training frame."
            )
        camera = cameras[frame.step]
        raw = model.unedited_outputs(camera)
        along = camera.generate_rays(camera_indices=0, keep_shape=True).metadata["directions_norm"]
        result.append(
            replace(
                frame,
                depth=(raw["depth"].cpu() / along.cpu())[..., 0],
                moving=raw["dynamic_weight"][..., 0].cpu() > 0.5,
                forward=_valid(model.induced_flow(camera, 1)),
                backward=_valid(model.induced_flow(camera, -1)),
            )
        )
    return result


def _same(camera: Cameras, frame: VideoFrame) -> bool:
    size = int(camera.height.reshape(-1)[0]), int(camera.width.reshape(-1)[0])
    pose = camera.camera_to_worlds.reshape(-1, 3, 4)[0].cpu()
    return size == frame.size and bool((pose - frame.pose).abs().max() < SAME_POSE)


def _valid(flow: Float[Tensor, "H W 2"] | None) -> Float[Tensor, "H W 3"] | None:
    return None if flow is None else torch.cat([flow, torch.ones_like(flow[..., :1])], dim=-1).cpu()
