"""Gaussians to begin with: pixels lifted into space, those that move along chained optical flow.

Still ones come from a few frames, as far as what is there already does not show the same surface. Moving ones come
from anchor frames, and from the other frames what none of these leads to; each is followed forwards and backwards
through the video. Where the flow is lost (hidden, out of the picture, not valid), a point goes on as its neighbours
do, and is taken to be unseen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.rendering.projection import project
from semfield_ns.semantic_flow_splat.video import VideoFrame, at_pixels

NEIGHBOURS = 4
MOST_REFERENCE = 1500
"""points that others may follow, at most"""
SAME_SURFACE = 0.05
"""relative difference in depth below which two points are of one surface"""
JUMP = 4.0
"""width of this many pixels by which a step may differ from those of its neighbours"""
TURN = 0.5
"""share of its neighbours' step by which a step may differ from it besides: things turn"""


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
) -> Start:
    """Gaussians of a video.

    Args:
        frames: of one camera, in the order of time.
        depths: of every pixel, along the optical axis.
        num_steps: T, time steps of the scene.
        max_gaussians: the most of them.
        seed: of what is left out where there are too many.
    """
    generator = torch.Generator().manual_seed(seed)
    still: list[tuple[Tensor, ...]] = []
    tracks: list[tuple[Tensor, ...]] = []
    stride = _stride(frames, max_gaussians)
    for place in spread(len(frames), 6):
        still.append(_still_points(frames[place], depths[place], stride, [part[0] for part in still], place == 0))
    moving = [frame.moving is not None and bool(frame.moving.any()) for frame in frames]
    anchors = [p for p in spread(len(frames), max(2, len(frames) // 6)) if moving[p]]
    for place in [*anchors, *(p for p in range(len(frames)) if moving[p] and p not in anchors)]:
        wanted = frames[place].moving if place in anchors else _missed(frames[place], depths[place], tracks, stride)
        if wanted is not None and bool(wanted.any()):
            tracks.append(_tracks(frames, depths, place, stride, num_steps, wanted))
    still_parts = [torch.cat(parts) for parts in zip(*still, strict=True)]
    keep = _thin(len(still_parts[0]), int(0.8 * max_gaussians) if tracks else max_gaussians, generator)
    points, colors, spacing = (part[keep] for part in still_parts)
    if not tracks:
        empty = torch.zeros(0, num_steps, 3)
        return Start(points, empty, empty[..., 0].bool(), colors, spacing)
    track_parts = [torch.cat(parts) for parts in zip(*tracks, strict=True)]
    keep = _thin(len(track_parts[0]), max_gaussians - len(points), generator)
    way, seen, track_colors, track_spacing = (part[keep] for part in track_parts)
    return Start(points, way, seen, torch.cat([colors, track_colors]), torch.cat([spacing, track_spacing]))


def _stride(frames: Sequence[VideoFrame], max_gaussians: int) -> float:
    """Pixels between points, so that a picture and half take half of what there may be."""
    height, width = frames[0].size
    return max(1.0, (3 * height * width / max(max_gaussians, 1)) ** 0.5)


def spread(count: int, wanted: int) -> list[int]:
    """Numbers of `wanted` of `count` frames, first and last included."""
    wanted = min(wanted, count)
    if wanted < 2:
        return list(range(wanted))
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})


def _thin(count: int, wanted: int, generator: torch.Generator) -> Int[Tensor, "K"]:
    """Some of `count` numbers, in order."""
    if count <= wanted:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:wanted].sort().values


def _grid(frame: VideoFrame, stride: float) -> Float[Tensor, "K 2"]:
    """Pixel centres about `stride` apart."""
    height, width = frame.size
    sides = [torch.arange(max(1, round(side / stride))) for side in (width, height)]
    x = ((sides[0] + 0.5) * width / len(sides[0])).floor() + 0.5
    y = ((sides[1] + 0.5) * height / len(sides[1])).floor() + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)


def _still_points(
    frame: VideoFrame, depth: Tensor, stride: float, known: Sequence[Tensor], first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Points, colours and spacing of what stands still in a frame and that no known point shows."""
    pixels = _grid(frame, stride)
    z = at_pixels(depth, pixels)
    use = z > 0
    if frame.moving is not None:
        use &= ~at_pixels(frame.moving, pixels)
    if not first and known:
        use &= ~at_pixels(_covered(frame, depth, torch.cat(list(known)), stride), pixels)
    pixels, z = pixels[use], z[use]
    return frame.lift(pixels, z), at_pixels(frame.image, pixels), z * stride / frame.intrinsics[0]


def _covered(frame: VideoFrame, depth: Tensor, points: Tensor, stride: float) -> Bool[Tensor, "H W"]:
    """Pixels near which a known point lies on the surface that the frame shows."""
    count = len(points)
    pixels, z = project(points, frame.pose.expand(count, 3, 4), frame.intrinsics.expand(count, 4))
    height, width = frame.size
    shown = (z > 0) & (pixels >= 0).all(dim=-1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    pixels, z = pixels[shown], z[shown]
    near = at_pixels(depth, pixels)
    pixels = pixels[(z - near).abs() < SAME_SURFACE * near]
    mask = torch.zeros(1, 1, height, width)
    mask[0, 0, pixels[:, 1].long(), pixels[:, 0].long()] = 1
    reach = 2 * round(0.75 * stride) + 1
    return torch.nn.functional.max_pool2d(mask, reach, stride=1, padding=reach // 2)[0, 0] > 0


def _missed(
    frame: VideoFrame, depth: Tensor, tracks: Sequence[tuple[Tensor, ...]], stride: float
) -> Bool[Tensor, "H W"]:
    """What moves in a frame and is far from every track that is seen there."""
    assert frame.moving is not None
    points = [way[seen[:, frame.step], frame.step] for way, seen, *_ in tracks]
    if not sum(map(len, points)):
        return frame.moving
    # Edges of what is there are no new things.
    covered = _covered(frame, depth, torch.cat(points), 2 * stride)
    return frame.moving & ~covered


def _tracks(
    frames: Sequence[VideoFrame],
    depths: Sequence[Tensor],
    anchor: int,
    stride: float,
    num_steps: int,
    wanted: Bool[Tensor, "H W"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ways, where they are seen, colours and spacing of the wanted pixels of the anchor frame."""
    frame = frames[anchor]
    # Things that move are small: a finer grid.
    pixels = _grid(frame, max(1.0, stride / 1.5))
    pixels = pixels[at_pixels(wanted, pixels)]
    z = at_pixels(depths[anchor], pixels)
    way, seen = torch.zeros(len(pixels), num_steps, 3), torch.zeros(len(pixels), num_steps, dtype=torch.bool)
    way[:, frame.step], seen[:, frame.step] = frame.lift(pixels, z), True
    for direction in (1, -1):
        _follow(frames, depths, anchor, direction, pixels, way, seen)
    _hold(way, [entry.step for entry in frames])
    return way, seen, at_pixels(frame.image, pixels), z * max(1.0, stride / 1.5) / frame.intrinsics[0]


def _follow(
    frames: Sequence[VideoFrame],
    depths: Sequence[Tensor],
    anchor: int,
    direction: int,
    pixels: Float[Tensor, "M 2"],
    way: Float[Tensor, "M T 3"],
    seen: Bool[Tensor, "M T"],
) -> None:
    """Fills `way` and `seen` from the anchor frame to one end of the video."""
    at, followed = pixels, torch.ones(len(pixels), dtype=torch.bool)
    velocity = torch.zeros(len(pixels), 3)
    place = anchor
    while 0 <= place + direction < len(frames):
        now, then = frames[place], frames[place + direction]
        flow = now.forward if direction > 0 else now.backward
        here = way[:, now.step]
        if flow is None or then.moving is None:
            followed = torch.zeros_like(followed)
            there = here + velocity
        else:
            step = at_pixels(flow, at)
            at = at + step[:, :2]
            height, width = then.size
            arrived = (step[:, 2] > 0.5) & (at >= 0).all(dim=-1) & (at[:, 0] < width) & (at[:, 1] < height)
            arrived &= at_pixels(then.moving, at)
            there = then.lift(at, at_pixels(depths[place + direction], at))
            followed = followed & arrived & _believable(here, there - here, followed & arrived, then, depths[place])
            there = torch.where(followed[:, None], there, here + _as_neighbours(here, there - here, followed, velocity))
        velocity = there - here
        way[:, then.step], seen[:, then.step] = there, followed
        place += direction


def _believable(here: Tensor, step: Tensor, use: Tensor, frame: VideoFrame, depth: Tensor) -> Bool[Tensor, "M"]:
    """Steps that are like those of the points around: where depth is of something else, a point would jump."""
    leaders = torch.nonzero(use)[:, 0]
    if not len(leaders):
        return torch.zeros_like(use)
    typical = step[_nearest(here, here, leaders, 2 * NEIGHBOURS)].median(dim=1).values
    pixel = float(depth.median()) / float(frame.intrinsics[0])
    return (step - typical).norm(dim=-1) < TURN * typical.norm(dim=-1) + JUMP * pixel


def _as_neighbours(here: Tensor, step: Tensor, followed: Tensor, velocity: Tensor) -> Float[Tensor, "M 3"]:
    """The mean step of the nearest points that the flow still leads; the last step where there are none."""
    leaders = torch.nonzero(followed)[:, 0]
    if len(leaders) < NEIGHBOURS:
        return velocity
    lost = torch.nonzero(~followed)[:, 0]
    result = velocity.clone()
    result[lost] = step[_nearest(here[lost], here, leaders, NEIGHBOURS)].mean(dim=1)
    return result


def _nearest(
    points: Float[Tensor, "K 3"], here: Float[Tensor, "M 3"], leaders: Int[Tensor, "L"], count: int
) -> Int[Tensor, "K near"]:
    """Numbers of the leaders that are nearest to points; of many leaders only some are looked at."""
    leaders = leaders[:: -(-len(leaders) // MOST_REFERENCE)]
    return leaders[torch.cdist(points, here[leaders]).topk(min(count, len(leaders)), largest=False).indices]


def _hold(way: Float[Tensor, "M T 3"], steps: Sequence[int]) -> None:
    """Time steps that the camera has no frame of: as at the nearest that it has."""
    known = torch.tensor(sorted(steps))
    for step in set(range(way.shape[1])) - set(steps):
        way[:, step] = way[:, known[(known - step).abs().argmin()]]
