"""Depth of every pixel of a video's frames: what the scene gives, brought to its units and completed.

Where a scene gives metric depth, only holes are filled. Raw disparity is brought to inverse depth by a straight line a
frame, fitted to what optical flow and the known poses triangulate on what stands still. Without either, the
triangulated depth itself is taken; where the camera stays in one place, two layers. What cannot be triangulated gets
the depth of what is beside it; a thing that moves, a depth a little nearer than what it hides: the nearest that is seen
along its edge, which is where it stands.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, distance_transform_edt, label
from torch import Tensor

from semfield_ns.semantic_flow_splat.video import MadeOnDemand, VideoFrame

MIN_PARALLAX = 0.3
"""px that a point at the typical depth has to move by for its triangulation to count"""
FIT_ITERATIONS = 8
EDGE = 1 / 80
"""width of the edge around a moving thing, in parts of the picture's width"""
NEAREST = 5
"""percentile of the depths along a thing's edge that is taken for its own"""


def triangulate(
    frame: VideoFrame, other: VideoFrame, flow: Float[Tensor, "H W 3"]
) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Inverse depth of every pixel, if it stands still, from its flow to another frame.

    Args:
        frame: whose pixels are looked at.
        other: the frame that the flow leads to.
        flow: px, and whether it is valid.

    Returns:
        Inverse depth along the optical axis, in 1 / world units (not bounded), and its weight: the squared parallax in
        px of a point at inverse depth 1; 0 where the flow is not valid.
    """
    pixels = frame.pixels()
    target = (pixels + flow[..., :2] - other.intrinsics[2:]) / other.intrinsics[:2]
    # In the other camera, y down and z ahead: direction + inverse depth * centre, up to scale.
    flip = torch.tensor([1.0, -1.0, -1.0])
    direction = frame.directions(pixels) @ other.pose[:, :3] * flip
    centre = (frame.pose[:, 3] - other.pose[:, 3]) @ other.pose[:, :3] * flip
    constant = (direction[..., :2] - target * direction[..., 2:]) * other.intrinsics[:2]
    slope = (centre[:2] - target * centre[2]) * other.intrinsics[:2]
    weight = slope.square().sum(dim=-1)
    inverse = -(constant * slope).sum(dim=-1) / weight.clamp(min=1e-9)
    return inverse, weight * (flow[..., 2] > 0.5)


def fit_line(x: Float[Tensor, "N"], y: Float[Tensor, "N"], weight: Float[Tensor, "N"]) -> tuple[float, float] | None:
    """Robust weighted line y = slope * x + offset, by iterated least squares; None where nothing determines it."""
    if len(x) < 50 or float(weight.sum()) <= 0:
        return None
    x, y, weight = x.double(), y.double(), weight.double()
    trust = torch.ones_like(x)
    slope, offset = 0.0, 0.0
    for _ in range(FIT_ITERATIONS):
        w = weight * trust
        total = w.sum()
        mean_x, mean_y = (w * x).sum() / total, (w * y).sum() / total
        spread = (w * (x - mean_x).square()).sum()
        if float(spread / total) < 1e-12:
            return None
        slope = float((w * (x - mean_x) * (y - mean_y)).sum() / spread)
        offset = float(mean_y - slope * mean_x)
        residual = (y - slope * x - offset).abs() * weight.sqrt()
        limit = 1.5 * residual.median().clamp(min=1e-6)
        trust = (limit / residual.clamp(min=1e-12)).clamp(max=1.0)
    return slope, offset


def fill(depth: Float[Tensor, "H W"], known: Bool[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Depth with that of the nearest known pixel where it is not known; as it is where nothing is known."""
    if not bool(known.any()):
        return depth
    rows, columns = distance_transform_edt(~known.numpy(), return_distances=False, return_indices=True)
    return depth[torch.from_numpy(rows), torch.from_numpy(columns)]


def complete(
    depth: Float[Tensor, "H W"], known: Bool[Tensor, "H W"], moving: Bool[Tensor, "H W"] | None
) -> Float[Tensor, "H W"]:
    """Depth of every pixel: `fill` of what stands still, and of things that move, each from itself or from its edge."""
    if moving is None or bool(known[moving].all()):
        return fill(depth, known)
    result = fill(depth, known & ~moving)
    things, count = label(moving.numpy(), np.ones((3, 3)))
    width = max(2, round(EDGE * moving.shape[1]))
    still = ~moving.numpy()
    for number in range(1, count + 1):
        thing = torch.from_numpy(things == number)
        if bool((known & thing).any()):
            result[thing] = fill(depth, known & thing)[thing]
            continue
        edge = binary_dilation(thing.numpy(), iterations=width) & still
        if edge.any():
            result[thing] = float(np.percentile(result.numpy()[edge], NEAREST))
    return result


def video_depths(
    frames: Sequence[VideoFrame], kind: str | None, near: float, far: float, budget: int = 2**30
) -> Sequence[Float[Tensor, "H W"]]:
    """Depth along the optical axis of every pixel of a video, world units, within [near, far]; made on demand.

    Args:
        frames: of one camera, in the order of time.
        kind: of the given depth: "metric", "disparity", or None.
        near: depth of the nearest content.
        far: depth of the furthest content.
        budget: bytes of the depths that are kept.
    """
    if kind == "disparity":
        lines = _lines(frames)

    def depth_at(place: int) -> Tensor:
        if kind == "metric":
            return _metric(frames[place], near, far)
        if kind == "disparity":
            return _aligned(frames[place], place, lines, near, far)
        return _from_flow(frames, place, near, far)

    return MadeOnDemand(len(frames), depth_at, lambda depth: depth.nbytes, budget)


def _from_flow(frames: Sequence[VideoFrame], place: int, near: float, far: float) -> Tensor:
    """Triangulated, and completed where the parallax is too small or something moves."""
    inverse, weight = _triangulated(frames, place)
    known = (weight * (1 / near - 1 / far) ** 2 > MIN_PARALLAX**2) & _still(frames[place])
    known &= (inverse > 0.5 / far) & (inverse < 2 / near)
    depth = 1 / inverse.clamp(1 / far, 1 / near)
    if not bool(known.any()):
        return _layers(frames[place], near, far)
    typical = torch.full_like(depth, 2 / (1 / near + 1 / far))
    return complete(torch.where(known, depth, typical), known, frames[place].moving)


def _layers(frame: VideoFrame, near: float, far: float) -> Float[Tensor, "H W"]:
    """Where the camera stays in its place no depth is known, and none is needed: what moves is before the rest."""
    behind = (1 / near + 1 / far) / 2
    inverse = torch.full(frame.size, behind)
    if frame.moving is not None:
        inverse[frame.moving] = (1 / near + behind) / 2
    return 1 / inverse


def _still(frame: VideoFrame) -> Bool[Tensor, "H W"]:
    return torch.ones(frame.size, dtype=torch.bool) if frame.moving is None else ~frame.moving


def _metric(frame: VideoFrame, near: float, far: float) -> Float[Tensor, "H W"]:
    if frame.depth is None:
        return torch.full(frame.size, 2 / (1 / near + 1 / far))
    return complete(frame.depth, frame.depth > 0, frame.moving).clamp(near, far)


def _triangulated(frames: Sequence[VideoFrame], place: int) -> tuple[Tensor, Tensor]:
    """Inverse depth and weight of one frame, from both neighbours."""
    frame = frames[place]
    total, sums = torch.zeros(frame.size), torch.zeros(frame.size)
    for other, flow in ((place + 1, frame.forward), (place - 1, frame.backward)):
        if flow is not None and 0 <= other < len(frames):
            inverse, weight = triangulate(frame, frames[other], flow)
            total, sums = total + weight, sums + weight * inverse
    return sums / total.clamp(min=1e-9), total


def _lines(frames: Sequence[VideoFrame]) -> list[tuple[float, float] | None]:
    """Slope and offset from disparity to inverse depth of each frame; None where they cannot be fitted."""
    lines: list[tuple[float, float] | None] = []
    for place, frame in enumerate(frames):
        line = None
        if frame.depth is not None:
            inverse, weight = _triangulated(frames, place)
            use = _still(frame) & (frame.depth > 0) & (weight > 0)
            line = fit_line(frame.depth[use], inverse[use], weight[use])
        lines.append(line if line is not None and line[0] > 0 else None)
    return lines


def _aligned(
    frame: VideoFrame, place: int, lines: Sequence[tuple[float, float] | None], near: float, far: float
) -> Tensor:
    """Disparity to depth, by the line of the nearest frame that has one."""
    known = [other for other, line in enumerate(lines) if line is not None]
    disparity = frame.depth if frame.depth is not None else torch.zeros(frame.size)
    if known:
        slope, offset = lines[min(known, key=lambda other: abs(other - place))] or (1.0, 0.0)
    else:
        given = disparity[disparity > 0].numpy()
        low, high = np.percentile(given, (2, 98)) if len(given) else (0, 1)
        slope = (1 / near - 1 / far) / max(high - low, 1e-9)
        offset = 1 / far - slope * low
    depth = 1 / (slope * disparity + offset).clamp(1 / far, 1 / near)
    return fill(depth, disparity > 0)
