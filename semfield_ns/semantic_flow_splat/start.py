"""Gaussians to begin with: pixels lifted into space, those that move along chained optical flow.

Still ones come from a few frames, as far as what is there already does not show the same surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.semantic_flow_splat.tracks import covered, follow_all, grid, spread
from semfield_ns.semantic_flow_splat.video import VideoFrame, at_pixels

VIDEO_FRAMES, PHOTOS = 6, 24
"""pictures, at most, that still Gaussians come from: photos are taken from all around"""


@dataclass(frozen=True)
class Start:
    """Gaussians without orientation; world coordinates."""

    still: Float[Tensor, "S 3"]
    tracks: Float[Tensor, "M T 3"]
    """positions at all time steps"""
    seen: Bool[Tensor, "M T"]
    """where the flow led to"""
    colors: Float[Tensor, "N 3"]
    """of still ones, then of moving ones; in [0, 1]"""
    spacing: Float[Tensor, "N"]
    """distance to the next point of the same picture, world units"""


def start(
    frames: Sequence[VideoFrame],
    depths: Sequence[Float[Tensor, "H W"]],
    num_steps: int,
    max_gaussians: int,
    seed: int = 0,
    sharp: Sequence[int] = (),
) -> Start:
    """Gaussians of a video.

    Args:
        frames: of one camera, in the order of time.
        depths: of every pixel, along the optical axis.
        num_steps: T, time steps of the scene.
        max_gaussians: the most of them.
        seed: of what is left out where there are too many.
        sharp: numbers of frames that show more than those beside them.
    """
    generator = torch.Generator().manual_seed(seed)
    still: list[tuple[Tensor, ...]] = []
    stride = _stride(frames, max_gaussians)
    for place in spread(len(frames), VIDEO_FRAMES if num_steps > 1 else PHOTOS, sharp):
        still.append(_still_points(frames[place], depths[place], stride, [part[0] for part in still]))
    groups = follow_all(frames, depths, stride, num_steps, sharp)
    still_parts = [torch.cat(parts) for parts in zip(*still, strict=True)]
    keep = _thin(len(still_parts[0]), int(0.8 * max_gaussians) if groups else max_gaussians, generator)
    points, colors, spacing = (part[keep] for part in still_parts)
    if not groups:
        empty = torch.zeros(0, num_steps, 3)
        return Start(points, empty, empty[..., 0].bool(), colors, spacing)
    parts = [torch.cat([getattr(group, name) for group in groups]) for name in ("way", "seen", "colors", "spacing")]
    keep = _thin(len(parts[0]), max_gaussians - len(points), generator)
    way, seen, track_colors, track_spacing = (part[keep] for part in parts)
    return Start(points, way, seen, torch.cat([colors, track_colors]), torch.cat([spacing, track_spacing]))


def _stride(frames: Sequence[VideoFrame], max_gaussians: int) -> float:
    """Pixels between points, so that a picture and half take half of what there may be."""
    height, width = frames[0].size
    return max(1.0, (3 * height * width / max(max_gaussians, 1)) ** 0.5)


def _thin(count: int, wanted: int, generator: torch.Generator) -> Int[Tensor, "K"]:
    """Some of `count` numbers, in order."""
    if count <= wanted:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:wanted].sort().values


def _still_points(
    frame: VideoFrame, depth: Tensor, stride: float, known: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Points, colours and spacing of what stands still in a frame and that no known point shows."""
    pixels = grid(frame, stride)
    z = at_pixels(depth, pixels)
    use = z > 0
    if frame.moving is not None:
        use &= ~at_pixels(frame.moving, pixels)
    if known:
        use &= ~at_pixels(covered(frame, depth, torch.cat(list(known)), stride), pixels)
    pixels, z = pixels[use], z[use]
    return frame.lift(pixels, z), at_pixels(frame.image, pixels), z * stride / frame.intrinsics[0]
