"""Rays and pictures from an encoded set of source views: where to look first, where to look closer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from semfield_ns.gsn.network import GSNNetwork
from semfield_ns.gsn.projection import SourceViews, tabled
from semfield_ns.gsn.sampling import guided_depths, inverse_depths
from semfield_ns.gsn.threads import map_on_cores
from semfield_ns.scene_model import Parts

Bounds = tuple[float, float]

_CHUNKS_AT_ONCE = 16  # of a core, in a part of a picture: a few tenths of a second
_LOOKUPS_AT_ONCE = 12_288  # samples times views of a core: tensors of about 4 MB
_LOOKUPS_OF_A_PART = 40_960  # the same in training, where larger tensors cost twice as much a ray, and smaller ones too


@dataclass
class RaySettings:
    """Where on the rays the network looks."""

    mode: Literal["uniform", "guided"] = "uniform"
    """uniform: `samples` everywhere (the paper). guided: a first look everywhere, then `fine_samples` where it found
    something; in training, steps take turns."""
    samples: int = 64
    """Samples of a ray over the whole range, uniform in inverse depth."""
    fine_samples: int = 16
    """Samples of a ray around what the first look found."""
    coarse_stride: int = 4
    """Pixels between the rays of the first look, in pictures."""
    feature_stride: int = 1
    """Pixels between the rays whose features are rendered, in guided pictures; those between are interpolated."""
    rays_in_memory: int = 0
    """In training: rays of a target whose intermediate values are kept at once, at most. 0: all."""


def limits(bundle: RayBundle, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Distances along the rays, [R, 1] each, of two depths along the optical axis."""
    norm = bundle.metadata["directions_norm"]
    return bounds[0] * norm, bounds[1] * norm


def render_rays(
    network: GSNNetwork,
    bundle: RayBundle,
    bounds: Bounds,
    views: SourceViews,
    settings: RaySettings,
    with_features: bool,
    training: bool = False,
) -> dict[str, Tensor]:
    """Outputs of single rays [R]; see `GSNNetwork.render`."""
    depths = places(network, bundle, bounds, views, settings, training)
    return network.render(bundle.origins, bundle.directions, depths, views, with_features)


def render_parts(
    network: GSNNetwork,
    bundle: RayBundle,
    bounds: Bounds,
    views: SourceViews,
    settings: RaySettings,
    with_features: bool,
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Outputs of single rays in training, of a few at a time: which, and what `GSNNetwork.render` says of them."""
    depths = places(network, bundle, bounds, views, settings, training=True)
    for part in parts_of(depths, views, settings):
        yield part, network.render(bundle.origins[part], bundle.directions[part], depths[part], views, with_features)


def places(
    network: GSNNetwork,
    bundle: RayBundle,
    bounds: Bounds,
    views: SourceViews,
    settings: RaySettings,
    training: bool,
) -> Float[Tensor, "R S"]:
    """Depths of the samples of single rays.

    Guided rays have no neighbours here, so every ray is looked at twice. In training, half of the targets train the
    first look and the other half the second one, with the same weights.
    """
    near, far = limits(bundle, bounds)
    depths = inverse_depths(near, far, settings.samples, jitter=training)
    if settings.mode == "uniform" or (training and bool(torch.rand(()) < 0.5)):
        return depths
    parts = parts_of(depths, views, settings) if training else [slice(None)]
    with torch.no_grad(), _without_dropout(network):
        looks = [
            network.render(bundle.origins[part], bundle.directions[part], depths[part], views, False)["weights"]
            for part in parts
        ]
    return guided_depths(near, far, torch.cat(looks).float(), settings.fine_samples, jitter=training)


@contextmanager
def _without_dropout(network: GSNNetwork) -> Iterator[None]:
    """A first look is as good in training as in evaluation, and takes half of the time on a CPU."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def parts_of(depths: Float[Tensor, "R S"], views: SourceViews, settings: RaySettings) -> list[slice]:
    """Rays of which a training step computes values and gradients at once."""
    rays, samples = depths.shape
    size = min(settings.rays_in_memory or rays, rays)
    if not depths.is_cuda:
        size = min(size, max(4, _LOOKUPS_OF_A_PART // (samples * len(views.images))))
    return [slice(start, start + size) for start in range(0, rays, size)]


@torch.no_grad()
def render_image(
    network: GSNNetwork,
    bundle: RayBundle,
    bounds: Bounds,
    views: SourceViews,
    settings: RaySettings,
    with_features: bool,
    chunk: int,
) -> Parts:
    """A picture, from the rays of all its pixels [H, W]; pieces of it alone would have other first looks.

    Returns:
        "rgb", "depth" (along the ray) and, if asked for, "features", [H, W, channels].
    """
    views = tabled(views)
    if settings.mode == "uniform":
        near, far = limits(bundle.flatten(), bounds)
        first = inverse_depths(near, far, settings.samples)
        return (yield from _in_chunks(network, bundle, first, views, with_features, chunk))
    height, width = bundle.shape
    stride = settings.coarse_stride
    rows, columns = _spread(height, stride), _spread(width, stride)
    coarse = bundle[rows][:, columns]
    near, far = limits(coarse.flatten(), bounds)
    first = inverse_depths(near, far, settings.samples)
    # Weights alone: the coarse picture is not looked at.
    weights = (yield from _in_chunks(network, coarse, first, views, False, chunk, "weights"))["weights"]
    guide = neighbourhood(weights, (height, width)).flatten(0, 1)
    near, far = limits(bundle.flatten(), bounds)
    second = guided_depths(near, far, guide, settings.fine_samples)
    every = settings.feature_stride
    if not with_features or every == 1:
        return (yield from _in_chunks(network, bundle, second, views, with_features, chunk))
    outputs = yield from _in_chunks(network, bundle, second, views, False, chunk)
    rows, columns = _spread(height, every), _spread(width, every)
    some = second.view(height, width, -1)[rows][:, columns].flatten(0, 1)
    sparse = yield from _in_chunks(network, bundle[rows][:, columns], some, views, True, chunk, "features")
    return {**outputs} | {name: enlarge(values, (height, width)) for name, values in sparse.items()}


def _spread(length: int, stride: int) -> Tensor:
    """Indices about `stride` apart that cover a range from its first to its last."""
    count = max(2, -(-length // stride)) if length > 1 else 1
    return torch.linspace(0, length - 1, count).round().long()


def enlarge(grid: Float[Tensor, "h w C"], size: tuple[int, int]) -> Float[Tensor, "H W C"]:
    """Bilinear interpolation between pixels at `_spread` places."""
    enlarged = F.interpolate(grid.permute(2, 0, 1)[None].float(), size=size, mode="bilinear", align_corners=True)
    return enlarged[0].permute(1, 2, 0)


def neighbourhood(weights: Float[Tensor, "h w S"], size: tuple[int, int]) -> Float[Tensor, "H W S"]:
    """Weights of a first look at a few pixels, for all pixels: of the surfaces seen at or around each."""
    around = F.avg_pool2d(weights.permute(2, 0, 1)[None].float(), 3, stride=1, padding=1, count_include_pad=False)
    return enlarge(around[0].permute(1, 2, 0), size)


def _in_chunks(
    network: GSNNetwork,
    bundle: RayBundle,
    depths: Float[Tensor, "R S"],
    views: SourceViews,
    with_features: bool,
    chunk: int,
    only: str = "",
) -> Parts:
    rays = bundle.flatten()
    outputs = yield from render_chunks(
        network, rays.origins, rays.directions, depths, views, with_features, chunk, only
    )
    return {name: values.view(*bundle.shape, -1) for name, values in outputs.items()}


@torch.no_grad()
def render_chunks(
    network: GSNNetwork,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    depths: Float[Tensor, "R S"],
    views: SourceViews,
    with_features: bool,
    chunk: int,
    only: str = "",
) -> Parts:
    """`GSNNetwork.render` for any number of rays, without "weights" unless they are asked for.

    Args:
        network: see there, as for the next five.
        origins: camera centres.
        directions: of the rays.
        depths: of the samples.
        views: tabled, for speed on a CPU.
        with_features: render features.
        chunk: rays at once, at most. On a CPU, fewer: what they need has to fit into a core's cache.
        only: leave out outputs whose names begin otherwise.
    """
    folded = network.fold()

    def render(start: int) -> dict[str, Tensor]:
        some = slice(start, start + chunk)
        outputs = network.render(origins[some], directions[some], depths[some], views, with_features, folded)
        return {name: value for name, value in outputs.items() if name.startswith(only) and (only or name != "weights")}

    at_once = 1
    if not origins.is_cuda:
        chunk = min(chunk, max(4, _LOOKUPS_AT_ONCE // (depths.shape[1] * len(views.images))))
        at_once = _CHUNKS_AT_ONCE * torch.get_num_threads()
    starts, parts = range(0, len(origins), chunk), []
    for first in range(0, len(starts), at_once):
        parts += map_on_cores(render, starts[first : first + at_once])
        yield
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
