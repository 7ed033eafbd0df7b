"""Rendering an edited scene: objects removed, moved, duplicated, rotated and recoloured, in the field.

Every ray is rendered in layers that are merged by distance. The base layer is the scene itself, less what was taken
from its places; its samples also follow the static density alone, since behind a thing that is taken away nothing
else would look. Each placed copy of an object is one more layer: the ray is carried back to where the object really is
and samples it there, so density, colour and semantics come out as they were learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.model_components.ray_samplers import PDFSampler, Sampler
from torch import Tensor

from semfield_ns.editing.edits import Edit, EditedState, Placement, apply_edits
from semfield_ns.editing.objects import ObjectTracks
from semfield_ns.semantic_flow.fields.radiance import Radiance, RadianceBranches, concatenate
from semfield_ns.semantic_flow.frames import SourceFrames

SampleFn = Callable[[RayBundle, Tensor], RaySamples]
"""Rays and their times in frames -> samples by the trained densities."""
ClassifyFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Points [N, 3], their times in frames [N, 1] and dynamic features [N, dim] -> class ids [N]."""

STATIC_PROPOSALS = 64
"""samples at which the static density is looked at to place samples"""
NOTICED = 1e-3
"""opacity below which it does not matter whose a sample is"""


@dataclass(frozen=True)
class _Copy:
    """An object at a place that is not its own."""

    index: int
    placement: Placement


class EditedScene:
    """A scene with edits applied, in place of the model's own samples.

    Args:
        branches: the fields.
        frames: the video.
        tracks: the moving objects.
        edits: in order.
        class_names: of all classes, for messages.
        world: the scene's own world -> the model's world.
        sample: the model's samples of rays.
        classify: the class of what moves at points.
        spread: sampler of evenly spread samples.
        num_samples: samples a ray of each kind.

    Raises:
        SemfieldError: an edit names what is not there.
    """

    def __init__(
        self,
        branches: RadianceBranches,
        frames: SourceFrames,
        tracks: ObjectTracks,
        edits: Sequence[Edit],
        class_names: Sequence[str],
        world: Float[np.ndarray, "3 4"],
        sample: SampleFn,
        classify: ClassifyFn,
        spread: Sampler,
        num_samples: int,
    ) -> None:
        self.branches, self.frames, self.tracks = branches, frames, tracks
        self.sample, self.classify, self.spread = sample, classify, spread
        self.num_samples = num_samples
        self.resample = PDFSampler(num_samples=num_samples, include_original=False)
        state: EditedState = apply_edits(edits, tracks.centres, class_names, world)
        states = [state.objects[name] for name in tracks.names]
        self.background = state.background
        self.shown = torch.tensor([any(p.in_place for p in entry.placements) for entry in states])
        self.tints = torch.tensor([entry.tint or (-1.0, -1.0, -1.0) for entry in states]).reshape(-1, 3)
        self.copies = [
            _Copy(index, placement)
            for index, entry in enumerate(states)
            for placement in entry.placements
            if not placement.in_place
        ]

    def radiance(self, bundle: RayBundle) -> Radiance:
        """All layers of rays that share one time, sorted by distance."""
        assert bundle.times is not None, "cameras of a video have times"
        time = self.frames.to_frames(bundle.times)
        return concatenate([layer for layer, _ in self._layers(bundle, time)])

    def shown_objects(self, bundle: RayBundle) -> Int[Tensor, "rays"]:
        """The object that each ray shows, as its number among the tracks; -1 for what stands still, and for nothing."""
        assert bundle.times is not None, "cameras of a video have times"
        layers = self._layers(bundle, self.frames.to_frames(bundle.times))
        radiance = concatenate([layer for layer, _ in layers])
        # In the order in which the samples of the layers are merged.
        order = torch.cat([layer.distance for layer, _ in layers], dim=1)[..., 0].argsort(dim=1)
        owner = torch.cat([owner for _, owner in layers], dim=1).gather(1, order)
        weights = radiance.weights.static.new_zeros(len(owner), len(self.tracks.names) + 1)
        weights[:, 0] = radiance.weights.static.sum(dim=(1, 2))
        weights.scatter_add_(1, owner + 1, radiance.weights.dynamic[..., 0])
        return weights.argmax(dim=1) - 1

    def _layers(self, bundle: RayBundle, time: Tensor) -> list[tuple[Radiance, Int[Tensor, "rays samples"]]]:
        """What stands in its own place, and each placed copy; with the object that each sample belongs to."""
        return [self._base(bundle, time), *(self._placed(bundle, time, copy) for copy in self.copies)]

    def _base(self, bundle: RayBundle, time: Tensor) -> tuple[Radiance, Int[Tensor, "rays samples"]]:
        samples = union(bundle, self.sample(bundle, time), self._static_samples(bundle, time))
        radiance = self.branches(samples, time, self.frames, True)
        dynamic = radiance.dynamic
        assert dynamic is not None
        owner = self._owners(radiance, time)
        kept = torch.ones_like(dynamic.alpha)
        if len(self.tracks.names):
            kept = torch.where(owner < 0, 1.0, self.shown.to(owner.device)[owner.clamp(min=0)].float())[..., None]
            dynamic.color = self._tinted(dynamic.color, owner)
        dynamic.blending = dynamic.blending * kept
        dynamic.alpha = dynamic.alpha * kept
        if self.background is not None:
            radiance.static.color = tint(radiance.static.color, torch.tensor(self.background).to(kept))
        return radiance, owner

    def _placed(self, bundle: RayBundle, time: Tensor, copy: _Copy) -> tuple[Radiance, Int[Tensor, "rays samples"]]:
        centre = self.tracks.centre(copy.index, float(time.flatten()[0]))
        matrix = torch.as_tensor(copy.placement.matrix(centre), dtype=torch.float32, device=time.device)
        moved, stretch = carried_back(bundle, matrix)
        radiance = self.branches(self.sample(moved, time), time, self.frames, True)
        dynamic, static = radiance.dynamic, radiance.static
        assert dynamic is not None
        owner = self._owners(radiance, time)
        dynamic.alpha = dynamic.alpha * (owner == copy.index)[..., None]
        dynamic.color = self._tinted(dynamic.color, owner)
        static.alpha = torch.zeros_like(static.alpha)
        radiance.distance = radiance.distance / stretch
        radiance.deltas = radiance.deltas / stretch
        radiance.placement = matrix.reshape(1, 1, 12).expand(*radiance.points.shape[:2], 12)
        return radiance, torch.where(owner == copy.index, owner, -1)

    def _static_samples(self, bundle: RayBundle, time: Tensor) -> RaySamples:
        coarse = self.spread(bundle, num_samples=STATIC_PROPOSALS)
        points = coarse.frustums.get_positions()
        density = self.branches.static_density(points, time, self.frames)
        return self.resample(bundle, coarse, coarse.get_weights(density))

    def _owners(self, radiance: Radiance, time: Tensor) -> Int[Tensor, "rays samples"]:
        """The object that each sample belongs to, -1 where nothing moves.

        Only visible surfaces of objects are known. So a sample goes by its class first: behind one thing in front of
        another, the nearest surface is often that of the wrong one.
        """
        assert radiance.dynamic is not None
        opacity = (radiance.dynamic.alpha * radiance.dynamic.blending)[..., 0]
        owner = torch.full(opacity.shape, -1, dtype=torch.long, device=opacity.device)
        noticed = opacity > NOTICED
        if len(self.tracks.names) and bool(noticed.any()):
            frame = int(self.frames.nearest(time.flatten()[0]))
            points, times = radiance.points[noticed], time[:, :1].expand(opacity.shape)[noticed][:, None]
            classes = self.classify(points, times, radiance.dynamic.feature[noticed])
            owner[noticed] = self.tracks.nearest(points, classes, frame)
        return owner

    def _tinted(self, color: Tensor, owner: Tensor) -> Tensor:
        if not bool((self.tints >= 0).any()):
            return color
        tints = self.tints.to(color)[owner.clamp(min=0)]
        wanted = (owner >= 0)[..., None] & (tints >= 0)
        return torch.where(wanted, tint(color, tints), color)


def tint(color: Float[Tensor, "*batch 3"], target: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch 3"]:
    """`target`, as bright as `color` is: twice the luminance of `color` of mid grey gives `target` itself."""
    weights = torch.tensor([0.299, 0.587, 0.114]).to(color)
    return (2 * (color * weights).sum(dim=-1, keepdim=True) * target).clamp(0, 1)


def carried_back(bundle: RayBundle, matrix: Float[Tensor, "3 4"]) -> tuple[RayBundle, Float[Tensor, ""]]:
    """Rays as an object sees them that `matrix` moved, and how much longer they are there.

    Args:
        bundle: rays of the edited scene, with nears and fars.
        matrix: a similarity (or reflection), object's own place -> where it was put.
    """
    assert bundle.nears is not None and bundle.fars is not None, "the collider has set them"
    inverse = torch.linalg.inv(matrix[:, :3])
    stretch = torch.linalg.det(inverse).abs() ** (1 / 3)
    origins = (bundle.origins - matrix[:, 3]) @ inverse.T
    directions = bundle.directions @ inverse.T / stretch
    moved = RayBundle(
        origins=origins,
        directions=directions,
        pixel_area=bundle.pixel_area * stretch**2,
        camera_indices=bundle.camera_indices,
        nears=bundle.nears * stretch,
        fars=bundle.fars * stretch,
        metadata=bundle.metadata,
        times=bundle.times,
    )
    return moved, stretch


def union(bundle: RayBundle, first: RaySamples, second: RaySamples) -> RaySamples:
    """Samples whose edges are those of both."""
    edges = [
        torch.cat([samples.frustums.starts, samples.frustums.ends[..., -1:, :]], dim=-2) for samples in (first, second)
    ]
    # Both begin and end at the same places: one of each is enough.
    joined = torch.cat(edges, dim=-2).sort(dim=-2).values[..., 1:-1, :]
    return bundle.get_ray_samples(bin_starts=joined[..., :-1, :], bin_ends=joined[..., 1:, :])
