"""What both representations of Semantic Flow have in common: the video, the outputs that people see, and evaluation."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.metrics.confusion import ConfusionMatrix, image_miou
from semfield_ns.rendering.features import FixedPCA
from semfield_ns.rendering.flow_color import flow_to_color
from semfield_ns.rendering.lazy import LazyOutputs
from semfield_ns.rendering.palette import colorize_labels, faint, instance_colors
from semfield_ns.rendering.projection import screen_flow
from semfield_ns.scene_model import MovingSceneModel
from semfield_ns.semantic_flow.frames import SourceFrames

EMPTY = 0.5
"""accumulation below which a pixel shows the background"""
UNIT = ("rgb", "rgb_static", "rgb_dynamic", "accumulation", "dynamic_weight")
"""outputs that are shown as they are, within [0, 1]"""


class VideoModel(MovingSceneModel):
    """A model of a video. Whoever inherits it sets `frames`, `label_map` and `feature_colors`, and renders."""

    frames: SourceFrames
    feature_colors: FixedPCA
    palette: Tensor
    confusion_matrix: ConfusionMatrix | None = None

    def render_key(self) -> tuple[Any, ...]:
        """The edits."""
        return tuple(self.editor.edits)

    # ------------------------------------------------------------------------------------------------- time

    def timed(self, camera: Cameras) -> Cameras:
        """The camera; one without a time gets that of the nearest point of the training path."""
        if camera.times is None:
            near = self.frames.time_near(camera.camera_to_worlds.reshape(-1, 3, 4)[0])
            camera.times = near.reshape(1, 1).to(camera.device)
        return camera

    def time_cameras(self, scale: float = 1.0) -> list[Cameras]:
        """The camera of each time step, in order."""
        return list(self.frames.cameras(scale))

    def time_frames(self) -> list[int]:
        """The training frame of each time step, in order."""
        return self.frames.source.tolist()

    def step_of(self, time: float) -> float:
        """The time step, a fraction between two, of a time in [0, 1]."""
        return self.frames.to_frame(time)

    @torch.no_grad()
    def induced_flow(self, camera: Cameras, step: int) -> Float[Tensor, "height width 2"] | None:
        """Optical flow in pixels from a camera's picture to that of the next (+1) or previous (-1) training frame.

        None where there is no such frame. Flow of what is not in front of both cameras is 0.
        """
        raw = self.raw_outputs_for_camera(camera)
        assert camera.times is not None, "cameras of training frames have times"
        now = self.step_of(float(camera.times))
        target = round(now) + step
        if not 0 <= target < len(self.frames):
            return None
        moved = raw["surface"] + abs(target - now) * raw["scene_flow_forward" if step > 0 else "scene_flow_backward"]
        pixels, depth = self.frames.project(moved, torch.full(moved.shape[:-1], target, device=moved.device))
        flow = pixels - camera.get_image_coords().to(pixels).flip(-1)
        return torch.where(depth[..., None] > 0, flow, torch.zeros_like(flow))

    # ---------------------------------------------------------------------------------------------- outputs

    def present(self, raw: Mapping[str, Tensor], camera: Cameras | None = None) -> LazyOutputs:
        """The outputs that people see: float32, 1 or 3 channels, in [0, 1] if 3; each made when it is asked for.

        Args:
            raw: of `raw_outputs_for_camera`, any leading shape.
            camera: the camera that looked; optical flow is shown as this camera, standing still, would see it. Without
                it (point cloud export) there are no flow outputs.
        """
        makers: dict[str, Callable[[], Tensor]] = {name: partial(_within_unit, raw, name) for name in UNIT}
        makers["depth"] = lambda: raw["depth"]
        makers["features_pca"] = lambda: self.feature_colors(raw["features"])
        if "logits" in raw:
            makers["semantics"] = lambda: raw["logits"].argmax(dim=-1, keepdim=True).float()
            makers["semantics_colormap"] = lambda: self._class_colors(raw)
            makers["semantics_confidence"] = lambda: raw["logits"].softmax(dim=-1).amax(dim=-1, keepdim=True)
        if "instances" in raw:
            makers["instances"] = lambda: instance_colors(raw["instances"][..., 0].long(), raw["rgb"].clamp(0, 1))
        if camera is not None:
            makers["flow_forward"] = partial(self._flow_colors, raw, "forward", camera)
            makers["flow_backward"] = partial(self._flow_colors, raw, "backward", camera)
        return LazyOutputs(makers)

    def _class_colors(self, raw: Mapping[str, Tensor]) -> Float[Tensor, "*image 3"]:
        labels = raw["logits"].argmax(dim=-1)
        visible = self.visible_classes().to(labels.device)[labels][..., None]
        rgb = raw["rgb"].clamp(0, 1)
        # A hidden class is pale, so that one still sees where it is; nothing is of no class.
        colors = torch.where(visible, colorize_labels(labels, self.palette), faint(rgb))
        return torch.where(raw["accumulation"] < EMPTY, rgb, colors)

    def _flow_colors(self, raw: Mapping[str, Tensor], way: str, camera: Cameras) -> Float[Tensor, "*image 3"]:
        flow = screen_flow(raw["surface"], raw[f"scene_flow_{way}"], camera)
        return flow_to_color(flow, max_magnitude=0.04 * float(camera.width.reshape(-1)[0]))

    def get_rgba_image(self, outputs: Mapping[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colour and accumulation [..., 4], as `ns-export pointcloud` asks for them, of any 3-channel output."""
        return torch.cat([outputs[output_name], outputs["accumulation"]], dim=-1)

    # ------------------------------------------------------------------------------------------- evaluation

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of what was rendered in a training step."""
        error = (outputs["rgb"] - batch["image"][..., :3].to(outputs["rgb"])).square().mean()
        return {"psnr": -10 * torch.log10(error.clamp(min=1e-10))}

    def begin_evaluation(self) -> None:
        """Starts counting over a set of images."""
        self.confusion_matrix = None if self.label_map is None else ConfusionMatrix(len(self.label_map.classes))

    def end_evaluation(self, output_path: Path | None) -> dict[str, float]:
        """Metrics of the whole set: dataset mIoU, accuracies, IoU of every class that occurs.

        Where there is an `output_path`, the confusion matrix is written into it.
        """
        matrix = self.confusion_matrix
        if matrix is None or matrix.total == 0 or self.label_map is None:
            return {}
        if output_path is not None:
            matrix.save(output_path / "confusion_matrix.json", self.label_map.names)
        result = matrix.summary()
        for name, value in zip(self.label_map.names, matrix.per_class_iou, strict=True):
            if value == value:
                result[f"iou_{name}"] = float(value)
        return result

    def get_image_metrics_and_images(
        self, outputs: Mapping[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, SSIM, LPIPS (where its weights are at hand) and the image's own mIoU; pictures beside their truth."""
        from semfield_ns.metrics.images import image_quality

        truth = batch["image"][..., :3].to(outputs["rgb"])
        metrics = image_quality(outputs["rgb"], truth)
        images = {"img": torch.cat([truth, outputs["rgb"]], dim=1)}
        if "semantics" in batch and self.label_map is not None:
            labels = batch["semantics"][..., 0].to(self.device)
            predicted = outputs["semantics"][..., 0].long()
            if bool((labels >= 0).any()):
                metrics["miou_image"] = float(image_miou(predicted, labels, len(self.label_map.classes)))
                if self.confusion_matrix is not None:
                    self.confusion_matrix.update(predicted, labels)
            given = colorize_labels(labels, self.palette)
            images["semantics"] = torch.cat([given, outputs["semantics_colormap"]], dim=1)
        return metrics, images


def _within_unit(raw: Mapping[str, Tensor], name: str) -> Tensor:
    return raw[name].clamp(0, 1)
