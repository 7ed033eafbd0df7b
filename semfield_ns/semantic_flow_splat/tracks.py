"""What moves in a video, followed along chained optical flow into trajectories.

Points come from anchor frames, and from the other frames where none of these leads to; each is followed forwards and
backwards through the video. Where the flow is lost (hidden, out of the picture, not valid), a point goes on as its
neighbours do, and is taken to be unseen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.rendering.projection import project
from semfield_ns.semantic_flow_splat.video import VideoFrame, at_pixels

MOST_ANCHORS = 10
"""frames from which all that moves is followed, at most"""
NEIGHBOURS = 4
MOST_REFERENCE = 1500
"""points that others may follow, at most"""
SAME_SURFACE = 0.05
"""relative difference in depth below which two points are of one surface"""
JUMP = 4.0
"""width of this many pixels by which a step may differ from those of its neighbours"""
TURN = 0.5
"""share of its neighbours' step by which a step may differ from it besides: things turn"""


@dataclass
class Followed:
    """Points of one frame, its anchor, that are followed through a video."""

    anchor: int
    """place of the frame in the video"""
    pixels: Float[Tensor, "M 2"]
    """in the anchor frame"""
    way: Float[Tensor, "M T 3"]
    """world positions at all time steps"""
    seen: Bool[Tensor, "M T"]
    """where the flow led to"""
    colors: Float[Tensor, "M 3"]
    spacing: Float[Tensor, "M"]
    """distance to the next point of the anchor frame, world units"""

    def __post_init__(self) -> None:
        self.turn_round()

    def turn_round(self) -> None:
        """Back to the anchor frame, to be followed the other way."""
        self.at, self.followed = self.pixels, torch.ones(len(self.pixels), dtype=torch.bool)
        self.velocity = torch.zeros(len(self.pixels), 3)


def follow_all(
    frames: Sequence[VideoFrame],
    depths: Sequence[Float[Tensor, "H W"]],
    stride: float,
    num_steps: int,
    sharp: Sequence[int] = (),
) -> list[Followed]:
    """All that moves in a video, followed from anchor frames, and from the others what none of these leads to.

    Frames are passed in order, once for each way and kind, so that few of them have to be in memory.

    Args:
        frames: of one camera, in the order of time.
        depths: of every pixel, along the optical axis.
        stride: pixels between points that stand still.
        num_steps: T, time steps of the scene.
        sharp: frames that are better anchors than those beside them.
    """
    moving = [frame.moving is not None and bool(frame.moving.any()) for frame in frames]
    wanted = min(max(2, len(frames) // 6), MOST_ANCHORS)
    anchors = [place for place in spread(len(frames), wanted, sharp) if moving[place]]
    # Things that move are small: a finer grid.
    fine = max(1.0, stride / 1.5)
    groups = [_lifted(frames[place], depths[place], place, fine, num_steps, frames[place].moving) for place in anchors]
    for direction in (1, -1):
        _sweep(frames, depths, groups, direction)
    missed: list[Followed] = []
    for place in range(len(frames)):
        if moving[place] and place not in anchors:
            left = _missed(frames[place], depths[place], [*groups, *missed], stride)
            if bool(left.any()):
                missed.append(_lifted(frames[place], depths[place], place, fine, num_steps, left))
        _step(frames, depths, missed, place, 1)
    for group in missed:
        group.turn_round()
    _sweep(frames, depths, missed, -1)
    groups += missed
    steps = [frame.step for frame in frames]
    for group in groups:
        _hold(group.way, steps)
    return groups


def _missed(frame: VideoFrame, depth: Tensor, groups: Sequence[Followed], stride: float) -> Bool[Tensor, "H W"]:
    """What moves in a frame and is far from every point that is seen there."""
    assert frame.moving is not None
    points = [group.way[group.seen[:, frame.step], frame.step] for group in groups]
    if not sum(map(len, points)):
        return frame.moving
    # Edges of what is there are no new things.
    return frame.moving & ~covered(frame, depth, torch.cat(points), 2 * stride)


def _lifted(
    frame: VideoFrame, depth: Tensor, place: int, stride: float, num_steps: int, wanted: Bool[Tensor, "H W"] | None
) -> Followed:
    """The wanted pixels of a frame, to be followed."""
    assert wanted is not None
    pixels = grid(frame, stride)
    pixels = pixels[at_pixels(wanted, pixels)]
    z = at_pixels(depth, pixels)
    way, seen = torch.zeros(len(pixels), num_steps, 3), torch.zeros(len(pixels), num_steps, dtype=torch.bool)
    way[:, frame.step], seen[:, frame.step] = frame.lift(pixels, z), True
    return Followed(place, pixels, way, seen, at_pixels(frame.image, pixels), z * stride / frame.intrinsics[0])


def _sweep(frames: Sequence[VideoFrame], depths: Sequence[Tensor], groups: Sequence[Followed], direction: int) -> None:
    """Follows groups from their anchors to one end of the video."""
    for group in groups:
        group.turn_round()
    for place in range(len(frames))[::direction]:
        _step(frames, depths, [group for group in groups if (place - group.anchor) * direction >= 0], place, direction)


def _step(
    frames: Sequence[VideoFrame], depths: Sequence[Tensor], groups: Sequence[Followed], place: int, direction: int
) -> None:
    """Follows groups from one frame to the next (1) or the previous one (-1), where there is one."""
    if not groups or not 0 <= place + direction < len(frames):
        return
    now, then = frames[place], frames[place + direction]
    flow = now.forward if direction > 0 else now.backward
    depth, depth_then = depths[place], depths[place + direction]
    for group in groups:
        here = group.way[:, now.step]
        if flow is None or then.moving is None:
            group.followed = torch.zeros_like(group.followed)
            there = here + group.velocity
        else:
            step = at_pixels(flow, group.at)
            at = group.at = group.at + step[:, :2]
            height, width = then.size
            arrived = (step[:, 2] > 0.5) & (at >= 0).all(dim=-1) & (at[:, 0] < width) & (at[:, 1] < height)
            arrived &= at_pixels(then.moving, at)
            there = then.lift(at, at_pixels(depth_then, at))
            arrived &= group.followed
            group.followed = arrived & _believable(here, there - here, arrived, then, depth)
            led = here + _as_neighbours(here, there - here, group.followed, group.velocity)
            there = torch.where(group.followed[:, None], there, led)
        group.velocity = there - here
        group.way[:, then.step], group.seen[:, then.step] = there, group.followed


def spread(count: int, wanted: int, sharp: Sequence[int] = ()) -> list[int]:
    """Numbers of `wanted` of `count` frames, first and last included; a sharp one instead, where one is near."""
    wanted = min(wanted, count)
    if wanted < 2:
        return list(range(wanted))
    apart = (count - 1) / (wanted - 1)
    even = [round(i * apart) for i in range(wanted)]
    near = [min(sharp, key=lambda number: abs(number - place), default=place) for place in even]
    return sorted({best if abs(best - place) <= apart / 2 else place for place, best in zip(even, near, strict=True)})


def grid(frame: VideoFrame, stride: float) -> Float[Tensor, "K 2"]:
    """Pixel centres about `stride` apart."""
    height, width = frame.size
    sides = [torch.arange(max(1, round(side / stride))) for side in (width, height)]
    x = ((sides[0] + 0.5) * width / len(sides[0])).floor() + 0.5
    y = ((sides[1] + 0.5) * height / len(sides[1])).floor() + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)


def covered(frame: VideoFrame, depth: Tensor, points: Tensor, stride: float) -> Bool[Tensor, "H W"]:
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
