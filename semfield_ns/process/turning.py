"""A camera that only turns: one rotation a frame and the focal length, from where still things are seen.

All rotations are solved for together, over neighbours and over frames far apart, so that nothing drifts; by least
squares that wrong matches cannot pull. The focal length may change slowly from frame to frame, as a zoom does. Turns of
a few degrees hardly tell it: then it is what ordinary cameras have.

Rotations are camera-to-world in OpenCV axes (x right, y down, z ahead).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int

from semfield_ns.process.bundle import PRIOR_FOCAL
from semfield_ns.process.geometry import Camera, Pose, camera_to_world

_STARTS = (1.0, 2.0, 4.0)  # times the usual focal length; long ones are what animals and sports are filmed with
_ROUNDS = 12
_SCALES = (8.0, 3.0, 1.0)  # px; of the Cauchy loss, from the first rounds to the last
_INDEPENDENT = 10  # matches of a pair that count: neighbours share their errors
_PRIOR_SPREAD = 0.4  # of the logarithm of the focal length, about the usual one
_ZOOM_SPREAD = 0.02  # of its change from frame to frame
_CERTAIN = 0.1  # standard deviation of that logarithm, below which the pictures tell the focal length


@dataclass(frozen=True, eq=False)
class Matches:
    """Pixels of pairs of frames, as many for each pair."""

    pairs: Int[np.ndarray, "P 2"]
    """numbers of the frames"""
    here: Float[np.ndarray, "P N 2"]
    """px, in the first frame of each pair"""
    there: Float[np.ndarray, "P N 2"]
    """px, in the second"""


@dataclass(frozen=True, eq=False)
class Turning:
    """What the camera did, and through what it looked."""

    rotations: Float[np.ndarray, "F 3 3"]
    focals: Float[np.ndarray, "F"]
    """px"""
    size: tuple[int, int]
    """width and height, px"""
    certain: bool = True
    """whether the focal length was given, or the turns tell it"""

    def misses(self, matches: Matches) -> Float[np.ndarray, "P N"]:
        """Px between where the turns lead and where the matches do."""
        return np.linalg.norm(_compare(self, matches)[0], axis=-1)

    def lead(self, start: int, end: int, pixels: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
        """Where pixels of one frame are seen in another."""
        here = pixels[None]
        return _compare(self, Matches(np.array([[start, end]]), here, np.zeros_like(here)))[0][0]

    def cameras(self) -> list[Camera]:
        """Intrinsics of each frame."""
        width, height = self.size
        return [Camera(f, f, width / 2, height / 2, width, height) for f in map(float, self.focals)]

    def poses(self) -> list[Pose]:
        """OpenGL camera-to-world of each frame, at the origin."""
        found = []
        for rotation in self.rotations:
            w2c = np.eye(4)
            w2c[:3, :3] = rotation.T
            found.append(camera_to_world(w2c))
        return found


def solve(matches: Matches, count: int, size: tuple[int, int], focal: float | None = None) -> Turning:
    """The turns that most matches agree with.

    Args:
        matches: of pixels that mostly stand still.
        count: frames.
        size: width and height, px.
        focal: px, if known.
    """
    usual = focal if focal is not None else PRIOR_FOCAL * max(size)
    starts = [usual] if focal is not None else [factor * usual for factor in _STARTS]
    found = [_solve_from(matches, count, size, start, usual, focal is None) for start in starts]
    return min(found, key=lambda pair: pair[1])[0]


def _solve_from(
    matches: Matches, count: int, size: tuple[int, int], start: float, usual: float, free: bool
) -> tuple[Turning, float]:
    """The solution from one focal length, and its loss."""
    turning = Turning(_chained(matches, count, size, start), np.full(count, start), size)
    prior = _prior(count, free)
    for scale in _SCALES:
        for _ in range(_ROUNDS):
            misses, jacobian = _compare(turning, matches)
            trust = 1 / (1 + (misses**2).sum(-1) / scale**2) * _INDEPENDENT / matches.here.shape[1] / scale**2
            hessian, gradient = _normal_equations(matches.pairs, misses, jacobian, trust, count)
            logs = np.log(turning.focals / usual)
            hessian[3 * count :, 3 * count :] += prior
            gradient[3 * count :] += prior @ logs
            step = -np.linalg.solve(hessian, gradient)
            turns, zoom = step[: 3 * count].reshape(-1, 3), np.clip(step[3 * count :], -0.3, 0.3)
            rotations = np.stack([r @ _rotation(w) for r, w in zip(turning.rotations, turns, strict=True)])
            turning = Turning(rotations, turning.focals * np.exp(zoom), size)
            if np.abs(step).max() < 1e-5:
                break
    squared = (_compare(turning, matches)[0] ** 2).sum(-1)
    logs = np.log(turning.focals / usual)
    loss = _INDEPENDENT * float(np.log1p(squared).mean(-1).sum()) + float(logs @ prior @ logs)
    inverse = np.linalg.inv(hessian)[3 * count :, 3 * count :]
    certain = not free or float(np.sqrt(inverse.mean())) < _CERTAIN  # of the mean over the frames
    return Turning(turning.rotations, turning.focals, size, certain), loss


def _prior(count: int, free: bool) -> Float[np.ndarray, "F F"]:
    """How the logarithms of the focal lengths hang on the usual one, and on each other."""
    if not free:
        return 1e12 * np.eye(count)
    change = np.diff(np.eye(count), axis=0)
    return np.full((count, count), 1 / (_PRIOR_SPREAD * count) ** 2) + change.T @ change / _ZOOM_SPREAD**2


def _chained(matches: Matches, count: int, size: tuple[int, int], focal: float) -> Float[np.ndarray, "F 3 3"]:
    """Rotations to begin with: of each frame against the nearest before it that it has matches with."""
    camera = Camera(focal, focal, size[0] / 2, size[1] / 2, *size)
    rotations = np.tile(np.eye(3), (count, 1, 1))
    nearest = {
        int(j): place for place, (i, j) in sorted(enumerate(matches.pairs), key=lambda each: each[1][0]) if i < j
    }
    for number in range(1, count):
        if (place := nearest.get(number)) is None:
            rotations[number] = rotations[number - 1]
            continue
        here, there = (_rays(camera, pixels[place]) for pixels in (matches.here, matches.there))
        rotations[number] = rotations[matches.pairs[place, 0]] @ _turn(here, there, 2.0 / focal)
    return rotations


def _rays(camera: Camera, pixels: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape 3"]:
    return np.concatenate([camera.normalise(pixels), np.ones((*pixels.shape[:-1], 1))], axis=-1)


def _turn(here: Float[np.ndarray, "N 3"], there: Float[np.ndarray, "N 3"], scale: float) -> Float[np.ndarray, "3 3"]:
    """The rotation that brings rays `there` to rays `here`, robustly (Kabsch, reweighted)."""
    here, there = (rays / np.linalg.norm(rays, axis=-1, keepdims=True) for rays in (here, there))
    weight = np.ones(len(here))
    for _ in range(15):
        left, _, right = np.linalg.svd((here * weight[:, None]).T @ there)
        rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        distance = np.linalg.norm(here - there @ rotation.T, axis=-1)
        weight = 1 / (1 + (distance / max(scale, float(np.median(distance)))) ** 2)
    return rotation


def _rotation(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    return cv2.Rodrigues(vector)[0]


def _cross(vectors: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3 3"]:
    """Matrices that multiply like the cross product with the vectors."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)


def _compare(turning: Turning, matches: Matches) -> tuple[Float[np.ndarray, "P N 2"], Float[np.ndarray, "P N 2 8"]]:
    """Px from each match to where the turns lead.

    And by how much that changes with the turns (3 of each frame, in its own axes) and the logarithms of the focal
    lengths of both frames.
    """
    i, j = matches.pairs.T
    centre = np.array(turning.size) / 2
    focal_i, focal_j = turning.focals[i][:, None, None], turning.focals[j][:, None, None]
    start = (matches.here - centre) / focal_i
    rays = np.concatenate([start, np.ones((*start.shape[:2], 1))], axis=-1)
    turn = np.swapaxes(turning.rotations[j], 1, 2) @ turning.rotations[i]
    turned = rays @ np.swapaxes(turn, 1, 2)
    depth = np.maximum(turned[..., 2:], 0.05)
    seen = turned[..., :2] / depth
    misses = seen * focal_j + centre - matches.there

    project = np.zeros((*seen.shape[:2], 2, 3))  # derivative of the pixel by the turned ray
    project[..., 0, 0] = project[..., 1, 1] = 1.0
    project[..., 2] = -seen
    project *= (focal_j / depth)[..., None]
    of_start = -np.concatenate([start, np.zeros((*start.shape[:2], 1))], axis=-1) @ np.swapaxes(turn, 1, 2)
    jacobian = np.concatenate(
        [
            -project @ (turn[:, None] @ _cross(rays)),
            project @ _cross(turned),
            project @ of_start[..., None],
            (seen * focal_j)[..., None],
        ],
        axis=-1,
    )
    return misses, jacobian


def _normal_equations(
    pairs: Int[np.ndarray, "P 2"],
    misses: Float[np.ndarray, "P N 2"],
    jacobian: Float[np.ndarray, "P N 2 8"],
    trust: Float[np.ndarray, "P N"],
    count: int,
) -> tuple[Float[np.ndarray, "D D"], Float[np.ndarray, "D"]]:
    """Of all turns, then of all focal lengths; the world's own turn is held by a weak spring."""
    flat = (jacobian * np.sqrt(trust)[..., None, None]).reshape(len(pairs), -1, 8)
    rest = (misses * np.sqrt(trust)[..., None]).reshape(len(pairs), -1, 1)
    blocks, sides = np.swapaxes(flat, 1, 2) @ flat, np.swapaxes(flat, 1, 2) @ rest
    i, j = pairs.T
    axes = np.arange(3)
    columns = np.concatenate(
        [3 * i[:, None] + axes, 3 * j[:, None] + axes, 3 * count + i[:, None], 3 * count + j[:, None]], axis=1
    )
    hessian, gradient = 1e-6 * np.eye(4 * count), np.zeros(4 * count)
    hessian[:3, :3] += 1e6 * np.eye(3)
    np.add.at(hessian, (columns[:, :, None], columns[:, None, :]), blocks)
    np.add.at(gradient, columns, sides[..., 0])
    return hessian, gradient
