"""Semantic Flow (ICLR 2024): the semantic field of a dynamic scene, learned from flows.

Read `get_outputs` and `render` first: rays are sampled, both branches evaluated and blended, the few samples that
matter are traced to the neighbouring frames, and what the frames show there becomes logits.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components.losses import distortion_loss, interlevel_loss
from nerfstudio.model_components.ray_samplers import ProposalNetworkSampler
from nerfstudio.model_components.renderers import SemanticRenderer
from torch import Tensor, nn
from torch.nn import Parameter

from semfield_ns.metrics.confusion import ConfusionMatrix
from semfield_ns.rendering.collider import DepthRangeCollider
from semfield_ns.rendering.features import FixedPCA
from semfield_ns.rendering.rays import DisparitySampler
from semfield_ns.scene_model import Parts, finished
from semfield_ns.semantic_flow import losses
from semfield_ns.semantic_flow.builders import build_branches, build_frames, build_heads
from semfield_ns.semantic_flow.config import SemanticFlowModelConfig
from semfield_ns.semantic_flow.encodings import PlanesEncoding
from semfield_ns.semantic_flow.fields.branches import SamplingDensity
from semfield_ns.semantic_flow.fields.radiance import Radiance
from semfield_ns.semantic_flow.fields.warp import build_warp
from semfield_ns.semantic_flow.flow_attention.tracing import Trajectory, per_frame, trace, trace_neighbours
from semfield_ns.semantic_flow.layered_edits.editor import FieldEditor
from semfield_ns.semantic_flow.training import objectives
from semfield_ns.semantic_flow.training.warped import random_step, render_warped
from semfield_ns.semantic_flow.video_model import VideoModel


class SemanticFlowModel(VideoModel):
    """A thin Nerfstudio model around the fields of this package."""

    config: SemanticFlowModelConfig
    collider: Any
    """A `DepthRangeCollider`; as Nerfstudio declares it, it could only be None."""
    palette: Tensor

    def populate_modules(self) -> None:
        """Builds fields, sampler, renderers and semantic heads from the config and the scene's metadata."""
        super().populate_modules()
        config, metadata = self.config, self.kwargs["metadata"]
        self.label_map = metadata.get("label_map")
        self.metric_depth = metadata.get("depth_kind") == "metric"
        self.collider = DepthRangeCollider(
            config.default_near if metadata["near"] is None else metadata["near"],
            config.default_far if metadata["far"] is None else metadata["far"],
        )
        self.frames = build_frames(config, metadata)
        warp = build_warp(config.warp, metadata["cameras"], self.collider.near)
        self.branches = build_branches(config, warp, self.frames)
        self.heads = None
        if self.label_map is not None:
            self.heads = build_heads(config, len(self.label_map.classes), self.branches, self.frames)
            self.register_buffer("palette", torch.as_tensor(self.label_map.colors), persistent=False)
        self.initial_sampler = DisparitySampler()
        self.proposals = nn.ModuleList(
            SamplingDensity(warp, config.proposal_encoding, len(self.frames)) for _ in config.num_proposal_samples
        )
        if self.proposals:
            self.proposal_sampler = ProposalNetworkSampler(
                num_proposal_samples_per_ray=config.num_proposal_samples,
                num_nerf_samples_per_ray=config.num_samples,
                num_proposal_network_iterations=len(self.proposals),
                initial_sampler=self.initial_sampler,
            )
        self.render_sum = SemanticRenderer()
        self.feature_colors = FixedPCA(self.frames.feature_dim).fit(self.frames.features, seed=0)
        self.editor = FieldEditor(self, config.edits, metadata["world"])
        self.stage = 2
        self.confusion_matrix: ConfusionMatrix | None = None

    def checkpoint_info(self) -> dict[str, str]:
        """What a checkpoint of this model fits; compared, entry by entry, when it is loaded."""
        classes = [] if self.label_map is None else list(self.label_map.names)
        corrects = {"evidence": "corrected"} if self.config.evidence else {}
        return corrects | {
            "method": "semantic-flow",
            "version": "1",
            "classes": ", ".join(classes),
            "feature dimension": str(self.frames.feature_dim),
            "field backend": self.config.implementation,
        }

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Groups "static", "flow", "dynamic", and where the model has them "semantics" and "proposals"."""
        parts = {name: getattr(self.branches, name) for name in ("static", "flow", "dynamic")}
        parts |= {"semantics": self.heads, "proposals": self.proposals}
        groups = {name: [] if part is None else list(part.parameters()) for name, part in parts.items()}
        return {name: parameters for name, parameters in groups.items() if parameters}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Before each step: which stage it belongs to, and how concentrated samples are."""
        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.set_step)]

    def set_step(self, step: int) -> None:
        """Puts the model into the stage of a training step."""
        stage_one = step < self.config.stage_one_steps
        self.stage = 1 if stage_one else 2
        self.editor.forget()
        since = step if stage_one else step - self.config.stage_one_steps
        frozen = not stage_one and self.config.freeze_static
        self.branches.static.requires_grad_(not frozen)
        if self.heads is not None:
            self.heads.static.requires_grad_(not frozen)
        if self.proposals:
            self.proposal_sampler.set_anneal(min(1.0, (since + 1) / max(self.config.proposal_anneal_steps, 1)))
            self.proposal_sampler.step_cb(step)

    def dynamic_fraction(self, step: int) -> float:
        """Part of a training step's rays that should be dynamic: none in stage 1, half in stage 2."""
        return 0.0 if step < self.config.stage_one_steps else 0.5

    # ---------------------------------------------------------------------------------------------- rendering

    def sample(self, bundle: RayBundle, time: Tensor) -> tuple[Any, list[Tensor], list[Any]]:
        """Samples along rays, with the weights and samples of the proposal levels."""
        if not self.proposals:
            return self.initial_sampler(bundle, num_samples=self.config.num_samples), [], []
        return self.proposal_sampler(bundle, density_fns=[partial(net, time=time) for net in self.proposals])

    def radiance(self, bundle: RayBundle, with_dynamic: bool) -> tuple[Radiance, list[Tensor], list[Any]]:
        """Both branches along rays, and what the proposal losses need: weights and samples of every level."""
        assert bundle.times is not None, "cameras of a video have times"
        time = self.frames.to_frames(bundle.times)
        samples, weights, levels = self.sample(bundle, time)
        radiance = self.branches(samples, time, self.frames, with_dynamic)
        return radiance, [*weights, radiance.weights.total], [*levels, samples]

    def logits(self, kept: Radiance, trajectory: Trajectory | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rendered logits [rays, classes]: blended, static branch alone, dynamic branch alone."""
        assert self.heads is not None
        hold = (lambda w: w) if self.config.semantic_gradient else torch.Tensor.detach
        if trajectory is None:
            step = self.frames.nearest(kept.time)[:, 0]
            static = self.heads.static_logits(kept.points, step, kept.static.feature, self.frames)
            alone_static = (hold(kept.static_weights) * static).sum(dim=-2)
            return alone_static, alone_static, torch.zeros_like(alone_static)
        assert kept.dynamic is not None, "what is traced has a dynamic branch"
        static, dynamic = self.heads.logits(
            kept.points, trajectory, kept.static.feature, kept.dynamic.feature, self.frames
        )
        alone_static = (hold(kept.static_weights) * static).sum(dim=-2)
        blended = (hold(kept.weights.static) * static + hold(kept.weights.dynamic) * dynamic).sum(dim=-2)
        return blended, alone_static, (hold(kept.dynamic_weights) * dynamic).sum(dim=-2)

    def _traced(self, kept: Radiance, at_frames: bool = False) -> Trajectory:
        assert kept.dynamic is not None, "what is traced has a dynamic branch"
        velocity = self.branches.flow.velocity
        return trace_neighbours(kept.points, kept.time, velocity, len(self.frames), kept.dynamic.velocity, at_frames)

    def get_outputs(self, ray_bundle: RayBundle) -> Any:
        """Training: what the losses need. Otherwise: the outputs that need no camera (see `present`)."""
        if not self.training:
            return self.present(self.render(ray_bundle))
        radiance, weights, levels = self.radiance(ray_bundle, with_dynamic=self.stage == 2)
        kept = radiance.top(self.config.num_flow_samples)
        trajectory = None
        if self.stage == 2:
            trajectory = self._traced(kept, at_frames=True)
        blended, static, dynamic = self.logits(kept, trajectory) if self.heads is not None else (None, None, None)
        rgb = (radiance.weights.static * radiance.static.color).sum(dim=-2)
        if radiance.dynamic is not None:
            rgb = rgb + (radiance.weights.dynamic * radiance.dynamic.color).sum(dim=-2)
        evidence = None
        if self.heads is not None and self.heads.corrects_evidence and self.frames.has_classifier:
            steps = self.frames.nearest(kept.time).expand(kept.points.shape[:-1])
            evidence = self.frames.evidence(kept.points, steps)
        outputs = {
            "rgb": rgb,
            "render": objectives.TrainingRender(radiance, kept, rgb, blended, static, dynamic, evidence, trajectory),
            "weights_list": weights,
            "ray_samples_list": levels,
            "directions_norm": ray_bundle.metadata["directions_norm"],
        }
        # Here and not among the losses: several processes agree on gradients of what is used in `forward` only.
        trained = self if self.stage == 2 else nn.ModuleList([self.branches.static, self.proposals])
        planes = [m for m in trained.modules() if isinstance(m, PlanesEncoding)]
        if planes and self.config.loss_weights.plane_variation:
            outputs["plane_variation"] = torch.stack([encoding.variation() for encoding in planes]).sum()
        return outputs

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Every loss, times its weight, by the name of its field in `LossWeights`."""
        config, render = self.config, outputs.get("render")
        if render is None:
            # Rays of evaluation, during training: only what their outputs show can be compared.
            rgb = batch["image"][..., :3].to(outputs["rgb"])
            return {"rgb": config.loss_weights.rgb * (outputs["rgb"] - rgb).square().mean()}
        targets = objectives.Targets.from_batch(batch, outputs["directions_norm"], self.metric_depth, self.device)
        weights = config.loss_weights
        values = objectives.radiance_losses(render, targets, weights, self.metric_depth, config.depth_thickness)
        values |= objectives.semantic_losses(render, targets)
        limit = config.flow_error_limit * self.frames.width
        values |= objectives.induced_flow_loss(render.kept, render.trajectory, targets, self.frames, limit)
        if render.trajectory is not None:
            values |= objectives.scene_flow_losses(render.kept, render.trajectory, targets)
            steps = (1, -1) if config.warp_directions == "both" else (random_step(),)
            for step in steps:
                for name, loss in self._warped_losses(render, targets, step).items():
                    values[name] = [*values.get(name, ()), *loss]
        if "plane_variation" in outputs:
            values["plane_variation"] = [outputs["plane_variation"]]
        if self.proposals:
            values["interlevel"] = [interlevel_loss(outputs["weights_list"], outputs["ray_samples_list"])]
            values["distortion"] = [distortion_loss(outputs["weights_list"], outputs["ray_samples_list"])]
        return losses.weighted(values, asdict(weights))

    def _warped_losses(self, render: objectives.TrainingRender, targets: objectives.Targets, step: int) -> dict:
        first = slice(targets.num_dynamic)
        if targets.num_dynamic == 0:
            return {}
        assert render.trajectory is not None, "stage 2 traces every sample"
        origin = render.kept.rays(first)
        trajectory = render.trajectory.rays(first)
        # Of rays without that neighbour no loss sees what is rendered: to leave them out, the host would have to wait.
        target = self.frames.nearest(origin.time) + step
        rays = (targets.dynamic[first] & (target >= 0) & (target < len(self.frames)))[:, 0]
        warped = render_warped(
            origin, trajectory, step, self.branches, self.heads, self.frames, not self.config.semantic_gradient
        )
        return objectives.warped_losses(warped, origin.points, targets, rays, self.heads is not None)

    def render(self, bundle: RayBundle, edited: bool = True) -> dict[str, Tensor]:
        """Everything about rays of one time, raw: float32 [rays, channels]; with the edits, if there are any.

        rgb, rgb_static, rgb_dynamic in [0, 1]; depth (along the ray) and surface in world units; scene_flow_forward and
        scene_flow_backward in world units a frame, 0 at the end of the video; accumulation, dynamic_weight; features
        (the frame's encoder features, rendered); logits.
        """
        if edited and self.editor.edits:
            radiance = self.editor.scene().radiance(bundle)
        else:
            radiance, *_ = self.radiance(bundle, with_dynamic=True)
        dynamic, weights = radiance.dynamic, radiance.weights
        assert dynamic is not None
        total = weights.total
        depth = (total * radiance.distance).sum(dim=-2) / (total.sum(dim=-2) + 1e-10)
        rgb = (weights.static * radiance.static.color + weights.dynamic * dynamic.color).sum(dim=-2)
        outputs = {
            "rgb": rgb,
            "depth": depth,
            "accumulation": total.sum(dim=-2),
            "dynamic_weight": weights.dynamic.sum(dim=-2),
            "rgb_static": self.render_sum(radiance.static.color, radiance.static_weights),
            "rgb_dynamic": self.render_sum(dynamic.color, radiance.dynamic_weights),
        }
        kept = radiance.top(self.config.num_flow_samples)
        trajectory = self._traced(kept)
        kept_total = kept.weights.total
        normaliser = kept_total.sum(dim=-2).clamp(min=1e-4)
        shown = kept.placed(kept.points)
        outputs["surface"] = self.render_sum(shown, kept_total) / normaliser
        for name, traced, column in (("forward", trajectory.after, 1), ("backward", trajectory.before, 0)):
            moved = per_frame(kept.placed(traced) - shown, trajectory.durations[:, None, column, None])
            outputs[f"scene_flow_{name}"] = self.render_sum(moved, kept.weights.dynamic) / normaliser
        now = trajectory.steps[:, None, 2].expand(kept.points.shape[:-1])
        features, visible = self.frames.gather(trajectory.now, now)
        outputs["features"] = self.render_sum(features * visible, kept_total) / normaliser
        if self.heads is not None:
            outputs["logits"] = self.logits(kept, trajectory)[0]
        return outputs

    def raw_outputs_for_camera(self, camera: Cameras, edited: bool = True) -> Mapping[str, Tensor]:
        """`render` for every pixel of one camera: logits, features, scene flow and the rest, unclamped.

        A camera without a time gets that of the nearest point of the training path.
        """
        return finished(self.raw_outputs_in_parts(camera, edited))

    @torch.no_grad()
    def raw_outputs_in_parts(self, camera: Cameras, edited: bool = True) -> Parts:
        """The same, a chunk of rays at a time."""
        camera = self.timed(camera.to(self.device))
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True)
        height, width = bundle.origins.shape[:2]
        bundle = self.collider(bundle)
        chunks: dict[str, list[Tensor]] = {}
        size = self.config.eval_num_rays_per_chunk
        for start in range(0, len(bundle), size):
            for name, value in self.render(bundle.get_row_major_sliced_ray_bundle(start, start + size), edited).items():
                chunks.setdefault(name, []).append(value)
            yield
        return {name: torch.cat(parts).reshape(height, width, -1) for name, parts in chunks.items()}

    def unedited_outputs(self, camera: Cameras) -> Mapping[str, Tensor]:
        """What one camera sees without edits."""
        return self.raw_outputs_for_camera(camera, edited=False)

    @torch.no_grad()
    def trace_points(self, points: Float[Tensor, "N 3"], time: float, to: float) -> Float[Tensor, "N 3"]:
        """Where world points of one time in [0, 1] are at another one, frame by frame along the velocity field."""
        now, end = self.step_of(time), self.step_of(to)
        points = points.to(self.device)
        while now != end:
            step = min(1.0, end - now) if end > now else max(-1.0, end - now)
            points = trace(points, points.new_full((1, 1), now), step, self.branches.flow.velocity)
            now = end if abs(end - now) <= 1 else now + step
        return points
