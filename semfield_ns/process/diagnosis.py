"""What the camera did: it went somewhere, it only turned, or it stood still.

Structure from motion cannot be trusted to say so: it explains a camera that only turns by a bent lens and a path that
never was. So pixels are followed through the video, and one turn and focal length a frame are fitted to where they
arrive. Of a camera that turns, what stands still arrives there, and what moves, far off. Where the camera goes
somewhere, depths of all kinds leave pixels at all distances in between. (A near thing before a far background, and
nothing between, could be either: it is then taken for a thing that moves.)
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from semfield_ns.process import motion
from semfield_ns.process.flow import flow_file, read_frame
from semfield_ns.process.geometry import relative_pose, sampson_distance
from semfield_ns.process.models import ModelCard
from semfield_ns.process.registration import Registration
from semfield_ns.process.turning import Matches, Turning
from semfield_ns.scenes.flow import FlowMap, Mask, read_flow
from semfield_ns.scenes.scene import CameraMotion

_EVERY = 2  # frames, that pixels are followed from
_REACHES = (1, 2, 4, 8, 16)  # frames that they are followed for
_FARTHEST = max(_REACHES)
_WIDE = 4  # frames, from which a pair tells a path from a turn
_FOLLOWED = 600  # pixels of a frame
_MATCHES = 150  # of a pair, drawn of those that arrive
_FEWEST = 60  # that arrive, of a pair that counts
_TEXTURE = 0.3  # least weight of a pixel's texture
_TOLERANCE, _RELATIVE = 1.0, 0.01  # px at a width of 480, and share of the length, by which a match may miss
_STILL = 0.004  # of the width: less motion over the whole video is a camera that stands
_NEARLY = 6.0  # times that, by which what nearly stands where the turns lead misses
_TURNS = 0.4  # share of the matches that turns must explain, for there to be no path
_PATH = 0.3  # share of those near to it that miss it, from which there is one
_BELIEVED = 0.5  # share of what is followed that a pose explains, at least
LEAST_PARALLAX = 0.3
"""degrees, median of the points: a path with less is one that the pictures do not show"""


@dataclass(frozen=True)
class Diagnosis:
    """What the camera did, and the evidence."""

    camera_motion: CameraMotion
    shift: float
    """farthest that matches of still things lie from where they are in another frame, share of the width"""
    turns_explain: float
    """share of the pixels followed far that arrive where the turns lead"""
    in_between: float
    """of those that arrive there or near, the share that is only near"""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def gather(images: Path, flow: Path, count: int) -> Matches:
    """Well spread pixels with texture, followed along the flow from frame to frame.

    Flow between frames far apart would be lost where the camera is fast, and what it follows would be all there is.
    """
    generator = np.random.default_rng(0)
    pairs, here, there = [], [], []
    flows: dict[int, tuple[FlowMap, Mask]] = {}
    for i in range(0, count - 1, _EVERY):
        flows = {
            j: flows.get(j) or read_flow(flow_file(flow, j, j + 1)) for j in range(i, min(i + _FARTHEST, count - 1))
        }
        strength = motion.strongest(motion.texture(read_frame(images, i)))
        places = np.flatnonzero(flows[i][1] & (strength / (strength + motion.GRADIENT_NOISE) > _TEXTURE))
        y, x = np.divmod(generator.permutation(places)[:_FOLLOWED], strength.shape[1])
        start = np.stack([x, y], axis=-1) + 0.5
        now, alive = start, np.ones(len(start), bool)
        for j in flows:
            now, alive = _followed(now, alive, *flows[j])
            if j + 1 - i in _REACHES and alive.sum() >= _FEWEST:
                chosen = generator.choice(np.flatnonzero(alive), _MATCHES)
                pairs.append((i, j + 1))
                here.append(start[chosen])
                there.append(now[chosen])
    shape = (-1, _MATCHES, 2)
    return Matches(np.array(pairs, int).reshape(-1, 2), np.reshape(here, shape), np.reshape(there, shape))


def _followed(
    points: Float[np.ndarray, "N 2"], alive: Bool[np.ndarray, "N"], flow: FlowMap, valid: Mask
) -> tuple[Float[np.ndarray, "N 2"], Bool[np.ndarray, "N"]]:
    """Where points are in the next frame, and which of them are still sure to be there."""
    x, y = (points - 0.5).astype(np.float32).T
    channels = (flow[..., 0], flow[..., 1], valid.astype(np.float32))
    dx, dy, known = (
        cv2.remap(channel, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0] for channel in channels
    )
    end = points + np.stack([dx, dy], axis=-1)
    inside = ((end > 0) & (end < flow.shape[1::-1])).all(axis=-1)
    return end, alive & inside & (known > 0.99)


def diagnose(matches: Matches, turning: Turning) -> Diagnosis:
    """Whether turns explain the matches."""
    width = turning.size[0]
    lengths = np.linalg.norm(matches.there - matches.here, axis=-1)
    reach = np.abs(np.diff(matches.pairs, axis=1)[:, 0])
    wide = reach >= min(_WIDE, reach.max(initial=0))
    misses = turning.misses(matches) / (_TOLERANCE * width / 480 + _RELATIVE * lengths)
    hits = misses < 1
    explained = float(hits[wide].mean()) if wide.any() else 0.0
    nearly = float(((misses >= 1) & (misses < _NEARLY))[wide].mean()) if wide.any() else 0.0
    in_between = nearly / max(explained + nearly, 1e-9)
    shift = float(np.percentile(lengths[hits], 95)) / width if hits.any() else 0.0
    kind: CameraMotion = "moving"  # also where nothing can be followed: features may still be matched
    if explained > _TURNS and in_between < _PATH:
        kind = "still" if shift < _STILL else "turning"
    return Diagnosis(kind, shift, explained, in_between)


def contradicted(found: Registration, matches: Matches) -> list[int]:
    """Frames whose poses contradict most of what is followed to or from them.

    Structure from motion also explains what moves: where a car fills the picture, the path may be that of the camera
    seen from the car. Frames are left out one after the other, the worst first, since one spoils the pairs it is in.
    """
    shares: dict[tuple[int, int], float] = {}
    for (a, b), here, there in zip(matches.pairs.tolist(), matches.here, matches.there, strict=True):
        if a in found.poses and b in found.poses:
            first, second = found.cameras[a], found.cameras[b]
            apart = sampson_distance(
                first.normalise(here), second.normalise(there), relative_pose(found.poses[a], found.poses[b])
            )
            lengths = np.linalg.norm(there - here, axis=-1)
            allowed = _TOLERANCE * first.width / 480 + _RELATIVE * lengths
            shares[a, b] = float((first.focal * apart < allowed).mean())
    doubted: list[int] = []
    while shares:
        frames = sorted({frame for pair in shares for frame in pair})
        told = {frame: float(np.mean([share for pair, share in shares.items() if frame in pair])) for frame in frames}
        worst = min(frames, key=told.__getitem__)
        if told[worst] >= _BELIEVED:
            break
        doubted.append(worst)
        shares = {pair: share for pair, share in shares.items() if worst not in pair}
    return doubted


def registered(turning: Turning, found: Diagnosis, given: bool, why: str = "") -> Registration:
    """Poses of one place.

    given: whether the focal length was; why: there is no path, where the matches alone did not say so.
    """
    poses = turning.poses()
    ahead = np.stack([-pose[:3, 2] for pose in poses])
    figures = {
        "camera_motion": "still" if found.camera_motion == "still" else "turning",
        "registered": len(poses),
        "frames": len(poses),
        "turn_deg": float(np.degrees(np.arccos(np.clip(ahead @ ahead.T, -1, 1)).max())),
        "turns_explain": found.turns_explain,
        "in_between": found.in_between,
        "focal_px": float(np.median(turning.focals)),
        "focal_given": given,
        "focal_certain": turning.certain,
        "zoom": float(turning.focals.max() / turning.focals.min()),
    }
    card = ModelCard("poses", "one turn a frame, by robust least squares", "1", "Apache-2.0", why)
    numbers = range(len(poses))
    return Registration(
        dict(zip(numbers, turning.cameras(), strict=True)),
        dict(zip(numbers, poses, strict=True)),
        np.zeros((0, 3)),
        {},
        figures,
        card,
    )
