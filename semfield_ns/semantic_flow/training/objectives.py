"""Which loss sees which rays: from a render and a batch to a dict named as the fields of `LossWeights`."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.rendering.rays import sent
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.semantic_flow import losses
from semfield_ns.semantic_flow.fields.blending import blend
from semfield_ns.semantic_flow.fields.radiance import Radiance
from semfield_ns.semantic_flow.flow_attention.tracing import Trajectory
from semfield_ns.semantic_flow.frames import SourceFrames
from semfield_ns.semantic_flow.losses import Loss, LossWeights, RayMean
from semfield_ns.semantic_flow.training.warped import WarpedRender


@dataclass
class Targets:
    """What a batch of training rays should show, on the model's device."""

    rgb: Float[Tensor, "rays 3"]
    pixels: Float[Tensor, "rays 2"]
    """Of the rays, x right and y down, centres at +0.5."""
    camera: Int[Tensor, "rays"]
    dynamic: Bool[Tensor, "rays 1"]
    static: Bool[Tensor, "rays 1"]
    """Both all true where the scene has no motion masks: then every ray may be either."""
    masked: bool
    """Whether the scene has motion masks."""
    depth: Float[Tensor, "rays 1"] | None
    """Distance along the ray in world units ("metric"), or raw disparity; 0 where unknown."""
    labels: Int[Tensor, "rays"] | None
    propagated: Int[Tensor, "rays"] | None
    confidence: Float[Tensor, "rays"] | None
    flow: dict[int, Float[Tensor, "rays 3"]]
    """Step (+1 or -1) -> (dx, dy, valid)."""
    num_dynamic: int
    """Only so many rays, the first ones, can be dynamic."""

    @staticmethod
    def from_batch(batch: dict[str, Any], directions_norm: Tensor, metric: bool, device: torch.device) -> "Targets":
        """Reads a batch of the data manager.

        Args:
            batch: per-ray values gathered by the pixel sampler.
            directions_norm: [rays, 1], distance along the ray per unit of depth along the optical axis.
            metric: whether "depth" is depth (else disparity).
            device: where the model is.
        """
        value = {key: sent(entry, device) for key, entry in batch.items() if isinstance(entry, Tensor)}
        rgb = value["image"][..., :3]
        everywhere = torch.ones_like(rgb[:, :1], dtype=torch.bool)
        mask = value.get("dynamic_mask")
        depth = value.get("depth")
        if depth is not None and metric:
            depth = depth * directions_norm
        propagated = value.get("propagated_label")
        return Targets(
            rgb=rgb,
            pixels=value["indices"][:, 1:].flip(-1).float() + 0.5,
            camera=value["indices"][:, 0],
            dynamic=everywhere if mask is None else mask > 0.5,
            static=everywhere if mask is None else (mask >= 0) & (mask <= 0.5),
            masked=mask is not None,
            depth=depth,
            labels=value["semantics"][:, 0] if "semantics" in value else None,
            propagated=None if propagated is None else propagated[:, 0].long(),
            confidence=None if propagated is None else propagated[:, 1],
            flow={s: value[k] for s, k in ((1, "flow_forward"), (-1, "flow_backward")) if k in value},
            num_dynamic=batch.get("num_dynamic", len(rgb)),
        )


@dataclass
class TrainingRender:
    """What a training step renders; the flow part is None in stage 1."""

    radiance: Radiance
    """All samples."""
    kept: Radiance
    """The samples that flows and semantics are computed at."""
    rgb: Float[Tensor, "rays 3"]
    logits: Float[Tensor, "rays classes"] | None
    logits_static: Float[Tensor, "rays classes"] | None
    logits_dynamic: Float[Tensor, "rays classes"] | None
    evidence: Float[Tensor, "rays samples classes"] | None
    """What the heads only correct at the kept samples, if they do."""
    trajectory: Trajectory | None


def radiance_losses(
    render: TrainingRender, targets: Targets, weights: LossWeights, metric: bool, thickness: float
) -> dict[str, Loss]:
    """Colour, depth and blending."""
    full = render.radiance
    dynamic = full.dynamic
    everywhere = torch.ones_like(targets.static) if dynamic is not None else targets.static
    result: dict[str, Loss] = {"rgb": [losses.color(render.rgb, targets.rgb, everywhere)]}
    if targets.depth is not None:
        result |= (_depth_losses if metric else _disparity_losses)(full, targets, targets.depth)
    if dynamic is None:
        return result
    rgb_dynamic = (full.dynamic_weights * dynamic.color).sum(dim=-2)
    result["rgb_dynamic"] = [losses.color(rgb_dynamic, targets.rgb, targets.dynamic)]
    if targets.depth is not None and metric:
        moving = (targets.depth > 0) & targets.dynamic
        away = losses.depth_blending(dynamic.blending, full.distance, targets.depth, moving, thickness)
        result["depth_blending"] = [away]
    result["entropy"] = losses.entropy(full.weights.dynamic, dynamic.blending)
    if targets.masked:
        if weights.rgb_static:
            rgb_static = (full.static_weights * full.static.color).sum(dim=-2)
            result["rgb_static"] = [losses.color(rgb_static, targets.rgb, targets.static)]
        rendered = full.weights.dynamic.sum(dim=-2)
        result["mask"] = losses.blending_mask(dynamic.blending, rendered, targets.dynamic, targets.static)
        front, back = _disparity(full.dynamic_weights, full), _disparity(full.static_weights, full)
        result["depth_order"] = [losses.depth_order(front, back, targets.static)]
    return result


def _depth_losses(full: Radiance, targets: Targets, depth: Float[Tensor, "rays 1"]) -> dict[str, Loss]:
    """Against depth."""
    known = depth > 0
    if full.dynamic is None:
        (error,) = losses.surface_depth(full.weights.total, full.distance, depth).unbind(dim=-1)
        return {"depth": [RayMean(error, known & targets.static)]}
    # The static branch is held where things move: it would learn to stand in for them.
    held = full.weights
    if full.static.alpha.requires_grad:
        held = blend(full.static.alpha.detach(), full.dynamic.alpha, full.dynamic.blending)
    weights = torch.cat([full.weights.total, full.dynamic_weights, held.total], dim=-1)
    blended, alone, with_held = losses.surface_depth(weights, full.distance, depth).unbind(dim=-1)
    moving = known & targets.dynamic
    return {
        "depth": [RayMean(blended, known & targets.static)],
        "depth_dynamic": [RayMean(alone, moving), RayMean(with_held, moving)],
    }


def _disparity_losses(full: Radiance, targets: Targets, disparity: Float[Tensor, "rays 1"]) -> dict[str, Loss]:
    """Against disparity up to a scale and shift of the rays that are compared: together, to order the branches."""

    def loss(weights: Tensor, mask: Tensor) -> Loss:
        return [losses.normalised_disparity(_disparity(weights, full), disparity, targets.camera, mask)]

    known = disparity > 0
    if full.dynamic is None:
        return {"depth": loss(full.weights.total, known & targets.static)}
    return {
        "depth": loss(full.weights.total, known),
        "depth_dynamic": loss(full.dynamic_weights, known & targets.dynamic),
    }


def _disparity(weights: Tensor, radiance: Radiance) -> Float[Tensor, "rays 1"]:
    return (weights / radiance.distance.clamp(min=1e-6)).sum(dim=-2)


def semantic_losses(render: TrainingRender, targets: Targets) -> dict[str, Loss]:
    """Cross-entropies against given labels, and on rays without one against carried labels or evidence."""
    if targets.labels is None or render.logits is None:
        return {}
    assert render.logits_static is not None and render.logits_dynamic is not None, "logits come together"
    static, dynamic = targets.static[:, 0], targets.dynamic[:, 0]
    kept, evidence = render.kept, render.evidence
    unlabelled = targets.labels == IGNORE
    # A ray that no motion mask speaks of may be of either branch.
    held_static, held_dynamic = unlabelled & (static | ~dynamic), unlabelled & (dynamic | ~static)
    if kept.dynamic is None:
        result: dict[str, Loss] = {
            "semantics_static": losses.cross_entropies([render.logits_static], targets.labels, [static])
        }
        if evidence is not None:
            correction = _correction(render.logits_static, evidence, kept.static_weights, held_static)
            result["semantics_evidence"] = [correction]
        return result
    logits = [render.logits, render.logits_static, render.logits_dynamic]
    rays = [torch.ones_like(static), static, dynamic]
    found = losses.cross_entropies(logits, targets.labels, rays)
    result = {
        name: [loss] for name, loss in zip(("semantics", "semantics_static", "semantics_dynamic"), found, strict=True)
    }
    if evidence is not None:
        result["semantics_evidence"] = [
            _correction(render.logits, evidence, kept.weights.total, unlabelled),
            _correction(render.logits_static, evidence, kept.static_weights, held_static, 0.5),
            _correction(render.logits_dynamic, evidence, kept.dynamic_weights, held_dynamic, 0.5),
        ]
    elif targets.propagated is not None and targets.confidence is not None:
        trust = [unlabelled * targets.confidence * some for some in rays]
        carried = losses.cross_entropies(logits, targets.propagated, trust)
        result["semantics_propagated"] = [
            replace(loss, factor=factor) for loss, factor in zip(carried, (1.0, 0.5, 0.5), strict=True)
        ]
    return result


def _correction(
    logits: Float[Tensor, "rays classes"],
    evidence: Float[Tensor, "rays samples classes"],
    weights: Float[Tensor, "rays samples 1"],
    rays: Bool[Tensor, "rays"],
    factor: float = 1.0,
) -> RayMean:
    """How far rendered logits are from those of the evidence alone, rendered with the same weights."""
    target = (weights * evidence).sum(dim=-2).detach().softmax(dim=-1)
    return replace(losses.divergence(logits, target, rays), factor=factor)


def induced_flow_loss(
    kept: Radiance, trajectory: Trajectory | None, targets: Targets, frames: SourceFrames, limit: float
) -> dict[str, Loss]:
    """Where the surface goes, projected into the neighbouring frames, against the given optical flow.

    The surface point of a ray is the weighted mean of its samples, the dynamic ones where they are traced to. In stage
    1 nothing is traced: on static rays the flow of the camera alone supervises depth.
    """
    if not targets.flow:
        return {}
    steps = list(targets.flow)
    flow = torch.stack(list(targets.flow.values()))
    # Flow goes to the next picture of the ray's own camera.
    target = torch.stack([frames.neighbour(targets.camera, step) for step in steps])
    mask = (flow[..., 2] > 0.5) & (target >= 0)
    moved = kept.points
    if trajectory is not None:
        traced = torch.stack([trajectory.after if step > 0 else trajectory.before for step in steps])
        moved = torch.where(targets.dynamic[:, None], traced, kept.points)
    elif targets.masked:
        mask = mask & targets.static[:, 0]
    normaliser = kept.weights.total.sum(dim=-2).clamp(min=1e-4)
    surface = (kept.weights.static * kept.points + kept.weights.dynamic * moved).sum(dim=-2) / normaliser
    pixels, depth = frames.project_into(surface.expand(*target.shape, 3), target.clamp(min=0))
    return {"flow": losses.induced_flow(pixels, targets.pixels + flow[..., :2], mask & (depth > 0), limit)}


def scene_flow_losses(kept: Radiance, trajectory: Trajectory, targets: Targets) -> dict[str, Loss]:
    """Regularisers of the velocity field at the samples; of both directions together."""
    flows = torch.stack([trajectory.after, trajectory.before]) - trajectory.points
    inner = trajectory.steps[:, 1] - trajectory.steps[:, 0] == 2
    speed = flows.abs().mean(dim=(0, 2, 3))
    result: dict[str, Loss] = {
        "flow_slow": [2 * speed.mean()],
        "flow_temporal": [RayMean(flows.sum(dim=0).abs(), inner)],
    }
    if kept.points.shape[1] > 1:
        result["flow_spatial"] = [2 * losses.along_ray(flows, kept.distance)]
    if targets.masked:
        result["static_flow"] = [RayMean(speed, targets.static, factor=2)]
    return result


def warped_losses(
    warped: WarpedRender, origin: Tensor, targets: Targets, rays: Bool[Tensor, "some"], semantic: bool
) -> dict[str, Loss]:
    """Losses of the render at a neighbouring frame.

    Args:
        warped: of the first rays of the batch.
        origin: [some, samples, 3], where the samples are now.
        targets: of the whole batch.
        rays: those of them that are dynamic, and whose neighbouring frame exists.
        semantic: whether there are logits and labels.
    """
    count = len(rays)
    inner = warped.trajectory.steps[:, 1] - warped.trajectory.steps[:, 0] == 2
    result: dict[str, Loss] = {
        "rgb_warp": [losses.color(warped.rgb, targets.rgb[:count], rays[:, None])],
        "flow_cycle": [RayMean((warped.returned - origin).abs(), rays)],
        "flow_second_order": [RayMean(warped.acceleration.abs(), inner & rays)],
    }
    if semantic and warped.logits is not None and targets.labels is not None:
        flow = targets.flow.get(warped.step)
        valid = rays if flow is None else rays & (flow[:count, 2] > 0.5)
        result["semantics_warp"] = losses.cross_entropies([warped.logits], targets.labels[:count], [valid])
    return result
