"""Static and dynamic radiance at the samples of rays, blended; and the few samples per ray that flows start from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RaySamples
from torch import Tensor, nn

from semfield_ns.semantic_flow.fields.blending import BlendedWeights, all_weights, alpha, single_weights
from semfield_ns.semantic_flow.fields.branches import DynamicField, FlowField, StaticField
from semfield_ns.semantic_flow.flow_attention.tracing import trace_neighbours
from semfield_ns.semantic_flow.frames import SourceFrames


@dataclass
class StaticSamples:
    """The static branch at samples."""

    feature: Float[Tensor, "rays samples dim"]
    alpha: Float[Tensor, "rays samples 1"]
    color: Float[Tensor, "rays samples 3"]


@dataclass
class DynamicSamples(StaticSamples):
    """The dynamic branch at samples."""

    blending: Float[Tensor, "rays samples 1"]
    velocity: Float[Tensor, "rays samples 3"]
    """World units a frame."""


@dataclass
class Radiance:
    """Both branches at the samples of rays. `dynamic` is None in stage 1. World units; time in frames."""

    points: Float[Tensor, "rays samples 3"]
    directions: Float[Tensor, "rays samples 3"]
    time: Float[Tensor, "rays 1"]
    distance: Float[Tensor, "rays samples 1"]
    """Along the ray."""
    deltas: Float[Tensor, "rays samples 1"]
    static: StaticSamples
    dynamic: DynamicSamples | None
    weights: BlendedWeights
    static_weights: Float[Tensor, "rays samples 1"]
    """Weights of the static branch rendered alone."""
    dynamic_weights: Float[Tensor, "rays samples 1"]
    """Weights of the dynamic branch rendered alone; zeros in stage 1."""
    placement: Float[Tensor, "rays samples 12"] | None = None
    """Rows of the affine map to where an edit shows a sample (3 x 4); None where nothing was moved."""

    def placed(self, points: Float[Tensor, "rays samples 3"]) -> Float[Tensor, "rays samples 3"]:
        """Where points that belong to the samples are shown."""
        if self.placement is None:
            return points
        matrix = self.placement.unflatten(-1, (3, 4))
        return (matrix[..., :3] @ points[..., None])[..., 0] + matrix[..., 3]

    def top(self, count: int) -> "Radiance":
        """The `count` samples of each ray that weigh most in any of the three renders, near to far.

        What follows (trajectories, image features, logits) is integrated with these weights only, so the price of the
        semantic path does not depend on the number of samples that geometry needs.
        """
        if count >= self.points.shape[1]:
            return self
        importance = self.weights.total + self.dynamic_weights
        index = importance.detach()[..., 0].topk(count, dim=-1).indices.sort(dim=-1).values
        samples = list(_tensors(self))
        kept = {id(value): value for value in samples}
        # Together: each for itself is a small kernel. Nothing gets a gradient that had none.
        for trained in (False, True):
            alike = [value for value in samples if value.dim() == 3 and value.requires_grad == trained]
            if alike:
                joined = torch.cat(alike, dim=-1)
                chosen = joined.gather(1, index[..., None].expand(-1, -1, joined.shape[-1]))
                parts = chosen.split([value.shape[-1] for value in alike], dim=-1)
                kept |= {id(value): part for value, part in zip(alike, parts, strict=True)}
        return _changed(self, lambda value: kept[id(value)])

    def rays(self, chosen: slice) -> "Radiance":
        """Some of the rays."""
        return _changed(self, lambda value: value[chosen])


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a nested dataclass."""
    if isinstance(value, Tensor):
        yield value
    elif value is not None:
        for f in fields(value):
            yield from _tensors(getattr(value, f.name))


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nested dataclass with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    return None if value is None else type(value)(*(_changed(getattr(value, f.name), change) for f in fields(value)))


def concatenate(layers: list[Radiance]) -> Radiance:
    """Layers of the same rays as one, sorted by distance and blended anew."""
    identity = torch.eye(4)[:3].reshape(1, 1, 12)

    def with_placement(layer: Radiance) -> Tensor:
        if layer.placement is not None:
            return layer.placement
        return identity.to(layer.points).expand(*layer.points.shape[:2], 12)

    order = torch.cat([layer.distance for layer in layers], dim=1)[..., 0].argsort(dim=1)

    def merged(*values: Tensor) -> Tensor:
        joined = torch.cat(values, dim=1)
        return joined.gather(1, order[..., None].expand(-1, -1, joined.shape[-1]))

    def part(kind: type, parts: list[Any]) -> Any:
        return kind(*(merged(*(getattr(entry, f.name) for entry in parts)) for f in fields(kind)))

    static = part(StaticSamples, [layer.static for layer in layers])
    dynamic = part(DynamicSamples, [layer.dynamic for layer in layers])
    weights, static_weights, dynamic_weights = all_weights(static.alpha, dynamic.alpha, dynamic.blending)
    return Radiance(
        points=merged(*(layer.points for layer in layers)),
        directions=merged(*(layer.directions for layer in layers)),
        time=layers[0].time,
        distance=merged(*(layer.distance for layer in layers)),
        deltas=merged(*(layer.deltas for layer in layers)),
        static=static,
        dynamic=dynamic,
        weights=weights,
        static_weights=static_weights,
        dynamic_weights=dynamic_weights,
        placement=merged(*(with_placement(layer) for layer in layers)),
    )


class RadianceBranches(nn.Module):
    """The three fields of a scene, evaluated together.

    Args:
        static: static radiance.
        flow: velocities.
        dynamic: dynamic radiance on top of the flow field's trunk.
        conditioned: feed image features into the radiance trunks at every sample, as the paper does: the static branch
            gets the feature of the nearest frame, the dynamic branch that and the mean of the features at the traced
            points in the frames before and after.
    """

    def __init__(self, static: StaticField, flow: FlowField, dynamic: DynamicField, conditioned: bool) -> None:
        super().__init__()
        self.static = static
        self.flow = flow
        self.dynamic = dynamic
        self.conditioned = conditioned

    def forward(
        self, samples: RaySamples, time: Float[Tensor, "rays 1"], frames: SourceFrames, with_dynamic: bool
    ) -> Radiance:
        """Evaluates the branches.

        Args:
            samples: of Nerfstudio's samplers.
            time: of each ray, in frames.
            frames: for conditioned branches.
            with_dynamic: False in stage 1.
        """
        points = samples.frustums.get_positions()
        directions = samples.frustums.directions.expand(points.shape)
        deltas = samples.deltas
        assert deltas is not None, "every sampler of Nerfstudio sets them"
        static = self.evaluate_static(points, directions, deltas, time, frames)
        dynamic = self.evaluate_dynamic(points, directions, deltas, time, frames) if with_dynamic else None
        if dynamic is None:
            static_weights = single_weights(static.alpha)
            dynamic_weights = torch.zeros_like(static_weights)
            weights = BlendedWeights(static=static_weights, dynamic=dynamic_weights)
        else:
            weights, static_weights, dynamic_weights = all_weights(static.alpha, dynamic.alpha, dynamic.blending)
        return Radiance(
            points=points,
            directions=directions,
            time=time,
            distance=(samples.frustums.starts + samples.frustums.ends) / 2,
            deltas=deltas,
            static=static,
            dynamic=dynamic,
            weights=weights,
            static_weights=static_weights,
            dynamic_weights=dynamic_weights,
        )

    def evaluate_static(
        self, points: Tensor, directions: Tensor, deltas: Tensor, time: Tensor, frames: SourceFrames
    ) -> StaticSamples:
        """The static branch at world points, shapes as in `Radiance`."""
        shape = points.shape[:-1]
        feature = self.static.features(points.reshape(-1, 3), self._static_injection(points, time, frames))
        color = self.static.color(feature, directions.reshape(-1, 3))
        density = self.static.density(feature).reshape(*shape, 1)
        return StaticSamples(feature.reshape(*shape, -1), alpha(density, deltas), color.reshape(*shape, 3))

    def static_density(
        self, points: Float[Tensor, "rays samples 3"], time: Float[Tensor, "rays 1"], frames: SourceFrames
    ) -> Float[Tensor, "rays samples 1"]:
        """Density of the static branch alone at world points."""
        flat = self.static.features(points.reshape(-1, 3), self._static_injection(points, time, frames))
        return self.static.density(flat).reshape(*points.shape[:-1], 1)

    def evaluate_dynamic(
        self, points: Tensor, directions: Tensor, deltas: Tensor, time: Tensor, frames: SourceFrames
    ) -> DynamicSamples:
        """The dynamic branch at world points at `time` [rays, 1], shapes as in `Radiance`."""
        shape = points.shape[:-1]
        clock = time[:, None].expand(*shape, 1).reshape(-1, 1)
        coordinates = self.flow.coordinates(points.reshape(-1, 3), clock)
        shared = self.flow.features(coordinates)
        velocity = self.flow.velocity_of(shared).reshape(points.shape)
        injected = self._traced_features(points, time, frames, velocity) if self.conditioned else None
        feature = self.dynamic.features(shared, coordinates, injected)
        source = visible = None
        if self.dynamic.source_gate is not None:
            source, visible = frames.gather_color(points, frames.nearest(time).expand(shape))
            source, visible = source.reshape(-1, 3), visible.reshape(-1, 1)
        color = self.dynamic.gated_color(feature, directions.reshape(-1, 3), source, visible)
        density = self.dynamic.density(feature).reshape(*shape, 1)
        blending = self.dynamic.blending(feature).reshape(*shape, 1)
        opacity, color = alpha(density, deltas), color.reshape(*shape, 3)
        return DynamicSamples(feature.reshape(*shape, -1), opacity, color, blending, velocity)

    def _static_injection(self, points: Tensor, time: Tensor, frames: SourceFrames) -> Tensor | None:
        if not self.conditioned:
            return None
        features, visible = frames.gather(points, frames.nearest(time).expand(points.shape[:-1]))
        return (features * visible).reshape(-1, frames.feature_dim)

    def _traced_features(self, points: Tensor, time: Tensor, frames: SourceFrames, velocity: Tensor) -> Tensor:
        trajectory = trace_neighbours(
            points, time, self.flow.velocity, len(frames), first=velocity, at_frames=self.training
        )
        traced = torch.stack([trajectory.before, trajectory.after, trajectory.now], dim=-2)
        features, visible = frames.gather(traced, trajectory.steps[:, None, :].expand(traced.shape[:-1]))
        features = features * visible
        both = torch.cat([features[..., 2, :], features[..., :2, :].mean(dim=-2)], dim=-1)
        return both.reshape(-1, both.shape[-1])
