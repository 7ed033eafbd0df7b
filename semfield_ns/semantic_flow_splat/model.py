"""Semantic Flow on Gaussians: each moves along a trajectory, and what the frames show along it becomes its class.

Read `get_outputs` and `raw_outputs_for_camera` first.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.harmonics import colours
from semfield_ns.gaussians.rasterize import Rendering, render
from semfield_ns.gaussians.values import Gaussians
from semfield_ns.rendering.projection import project
from semfield_ns.scene_model import MovingSceneModel
from semfield_ns.semantic_flow.frames import SourceFrames
from semfield_ns.semantic_flow_splat import losses
from semfield_ns.semantic_flow_splat.config import SemanticFlowSplatModelConfig
from semfield_ns.semantic_flow_splat.moving import MovingGaussians


@dataclass(frozen=True)
class View:
    """One pinhole camera at one time."""

    pose: Float[Tensor, "3 4"]
    intrinsics: Float[Tensor, "4"]
    width: int
    height: int
    step: float
    """time step, a fraction between two"""


class SemanticFlowSplatModel(MovingSceneModel):
    """A thin Nerfstudio model around `MovingGaussians`."""

    config: SemanticFlowSplatModelConfig

    def populate_modules(self) -> None:
        """Builds the Gaussians; in training from the scene, otherwise they come with the checkpoint."""
        super().populate_modules()
        config, metadata = self.config, self.kwargs["metadata"]
        self.label_map = metadata.get("label_map")
        self.metric_depth = metadata.get("depth_kind") == "metric"
        self.collider = None
        self.frames = SourceFrames(
            metadata["cameras"],
            metadata["source_features"],
            None,
            metadata["source_moving"],
            None,
            None,
            metadata.get("camera_ids"),
            metadata.get("on_disk", False),
        )
        num_classes = 0 if self.label_map is None else len(self.label_map.classes)
        self.gaussians = MovingGaussians(len(self.frames), num_classes, config.harmonics_degree)
        self.register_buffer("background", torch.full((3,), 0.5))
        start = metadata.get("start")
        if start is not None:
            near = config.default_near if metadata["near"] is None else metadata["near"]
            far = config.default_far if metadata["far"] is None else metadata["far"]
            self.gaussians.begin(start(near, far, config.max_gaussians))
            CONSOLE.log(
                f"{len(self.gaussians):,} Gaussians, {len(self.gaussians) - self.gaussians.num_still:,} of them moving."
            )

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """A group for each kind of value of the Gaussians."""
        return {name: [getattr(self.gaussians, name)] for name in MovingGaussians.NAMES}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        return []

    # ---------------------------------------------------------------------------------------------- rendering

    def view(self, camera: Cameras) -> View:
        """What one camera of shape [1] looks through."""
        camera = self.timed(camera.to(self.device))
        assert camera.times is not None
        intrinsics = torch.stack([v.reshape(-1)[0] for v in (camera.fx, camera.fy, camera.cx, camera.cy)])
        return View(
            camera.camera_to_worlds.reshape(-1, 3, 4)[0],
            intrinsics,
            int(camera.width.reshape(-1)[0]),
            int(camera.height.reshape(-1)[0]),
            float(self.frames.to_frames(camera.times.reshape(1, 1))),
        )

    def picture(self, view: View, channels: list[Tensor], means: Tensor, background: Tensor | None = None) -> Rendering:
        """Composites channels of all Gaussians, with depth."""
        values = Gaussians(
            means,
            self.gaussians.quaternions,
            self.gaussians.scales.exp(),
            self.gaussians.opacities_at(view.step),
            torch.cat(channels, dim=-1),
        )
        return render(
            values,
            view.pose,
            view.intrinsics.tolist(),
            view.width,
            view.height,
            background=background,
            depth=True,
            backend=self.config.backend,
        )

    def moving_channel(self) -> Float[Tensor, "N 1"]:
        """1 of Gaussians that move."""
        flags = self.gaussians.opacities.new_zeros(len(self.gaussians), 1)
        flags[self.gaussians.num_still :] = 1
        return flags

    def get_outputs(self, ray_bundle: Any) -> dict[str, Any]:
        """What the losses need of a camera, in training; otherwise what people see."""
        if not isinstance(ray_bundle, Cameras):
            raise SemfieldError("semantic-flow-splat renders whole pictures: give a camera and not rays.")
        if not self.training:
            return self.get_outputs_for_camera(ray_bundle)
        view = self.view(ray_bundle)
        means = self.gaussians.means_at(view.step)
        color = colours(self.gaussians.coefficients(), means, view.pose, self.config.harmonics_degree)
        channels = [color, self.moving_channel(), self.gaussians.logits]
        background = torch.cat([self.background, self.background.new_zeros(1 + self.gaussians.num_classes)])
        found = self.picture(view, channels, means, background)
        return {
            "rgb": found.channels[..., :3],
            "moving": found.channels[..., 3],
            "logits": found.channels[..., 4:],
            "depth": found.depth[..., 0],
            "accumulation": found.accumulation[..., 0],
        }

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Every loss, times its weight, by the name of its field in `SplatLossWeights`."""
        weights = asdict(self.config.loss_weights)
        truth = batch["image"][..., :3].to(outputs["rgb"])
        if "moving" not in outputs:
            return {"rgb": weights["rgb"] * (outputs["rgb"] - truth).abs().mean()}
        values = {
            "rgb": (outputs["rgb"] - truth).abs().mean(),
            "ssim": losses.similarity_loss(outputs["rgb"], truth) if weights["ssim"] else truth.new_zeros(()),
            "accumulation": 1 - outputs["accumulation"].mean(),
            "acceleration": losses.acceleration_loss(self.gaussians.tracks),
            "presence": losses.change_loss(self.gaussians.presence),
        }
        if "depth" in batch and self.metric_depth:
            values["depth"] = losses.relative_depth_loss(outputs["depth"], batch["depth"][..., 0])
        if "dynamic_mask" in batch:
            values["mask"] = losses.mask_loss(outputs["moving"], batch["dynamic_mask"][..., 0])
        if "semantics" in batch:
            values["semantics"] = losses.label_loss(outputs["logits"], batch["semantics"][..., 0])
            if "propagated_label" in batch:
                values["semantics_carried"] = losses.carried_label_loss(outputs["logits"], batch["propagated_label"])
        return {name: weights[name] * value for name, value in values.items() if weights[name] != 0}

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the picture of a step."""
        error = (outputs["rgb"] - batch["image"][..., :3].to(outputs["rgb"])).square().mean()
        return {"psnr": -10 * torch.log10(error.clamp(min=1e-10))}
