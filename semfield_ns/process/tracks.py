"""Corners followed from each frame into the ones around it: many more, and more exact, points than features match.

Features are described by patches that are larger than most surfaces are flat, and are found anew in each picture. A
corner is looked for in the other pictures itself (Lucas and Kanade, 1981), in a window so small that slanted ground and
edges of things before a wall hardly bend it, beginning where optical flow leads. Each corner is followed from its own
frame only, so that errors do not add up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from semfield_ns.process.colmap import from_colmap
from semfield_ns.process.flow import read_frame
from semfield_ns.process.frames import Report, Rgb
from semfield_ns.scenes.flow import Mask, estimate_flow

_OFFSETS = (-16, -12, -8, -5, -3, -1, 1, 3, 5, 8, 12, 16)  # frames that corners are followed to
_MOST, _MOST_TOGETHER = 300, 7200  # corners of a frame, and of all
_QUALITY = 0.005  # of the strongest corner's strength
_WINDOW = 7  # px
_RETURN = 0.3  # px; followed there and back, a corner is where it was
_BESIDE = 2.0  # px from where flow leads
_MARGIN = 5  # px around moving things without corners
_EDGE = 3  # px
_GUESS = 480  # px; flow that only begins the search is estimated at this width at most
_FEWEST_VIEWS = 4
_WRONG = 2.0  # px; a view that the triangulated point misses by more does not count


@dataclass(frozen=True, eq=False)
class Followed:
    """Corners of one frame, and where other frames show them."""

    frames: list[int]
    """numbers; the first is the corners' own"""
    pixels: Float[np.ndarray, "V K 2"]
    seen: Bool[np.ndarray, "V K"]


def follow_corners(
    images: Path, numbers: Sequence[int], moving: dict[int, Mask], report: Report = lambda share: None
) -> Iterator[Followed]:
    """Corners of each frame, off what moves, followed into the frames around it.

    Args:
        images: folder of the picked frames.
        numbers: of the frames, in order.
        moving: number of a frame -> mask, as far as there are any.
        report: called with the share that is done.
    """
    most = min(_MOST, max(1, _MOST_TOGETHER // len(numbers)))
    pictures: dict[int, Rgb] = {}
    for place, number in enumerate(numbers):
        around = [place + offset for offset in _OFFSETS if 0 <= place + offset < len(numbers)]
        others = [numbers[p] for p in around]
        pictures = {n: pictures[n] if n in pictures else read_frame(images, n) for n in (number, *others)}
        start = corners(pictures[number], moving.get(number), most)
        if len(start) and others:
            found = [follow(pictures[number], pictures[other], start) for other in others]
            pixels = np.stack([start, *(end for end, _ in found)])
            seen = np.stack([np.ones(len(start), dtype=bool), *(good for _, good in found)])
            yield Followed([number, *others], pixels, seen)
        report((place + 1) / len(numbers))


def corners(rgb: Rgb, moving: Mask | None, most: int) -> Float[np.ndarray, "K 2"]:
    """Pixels of well spread corners (Shi and Tomasi, 1994) off what moves."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    free = np.full(gray.shape, 255, np.uint8)
    if moving is not None:
        free[cv2.dilate(moving.astype(np.uint8), np.ones((2 * _MARGIN + 1,) * 2, np.uint8)) > 0] = 0
    found = cv2.goodFeaturesToTrack(gray, most, _QUALITY, max(3, min(gray.shape) // 60), mask=free)
    return np.zeros((0, 2)) if found is None else found[:, 0].astype(np.float64) + 0.5


def follow(
    rgb: Rgb, other: Rgb, start: Float[np.ndarray, "K 2"]
) -> tuple[Float[np.ndarray, "K 2"], Bool[np.ndarray, "K"]]:
    """Pixels of the corners in another picture, and which of them were found there."""
    height, width = rgb.shape[:2]
    x, y = start.astype(int).T
    here = (start - 0.5).astype(np.float32)[:, None]
    guess = here + _rough_flow(rgb, other)[y, x][:, None]
    gray, beside = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (rgb, other))
    there, found = _search(gray, beside, here, guess)
    back, returned = _search(beside, gray, there, here)
    end = there[:, 0].astype(np.float64) + 0.5
    good = found & returned & (np.linalg.norm(back - here, axis=-1)[:, 0] < _RETURN)
    good &= np.linalg.norm(there - guess, axis=-1)[:, 0] < _BESIDE
    good &= ((end > _EDGE) & (end < [width - _EDGE, height - _EDGE])).all(-1)
    return end, good


def _rough_flow(rgb: Rgb, other: Rgb) -> Float[np.ndarray, "H W 2"]:
    height, width = rgb.shape[:2]
    shrink = min(1.0, _GUESS / width)
    if shrink == 1.0:
        return estimate_flow(rgb, other)
    size = round(width * shrink), round(height * shrink)
    small = [np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), dtype=np.uint8) for p in (rgb, other)]
    flow = cv2.resize(estimate_flow(*small), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(flow * [width / size[0], height / size[1]], dtype=np.float32)


def _search(gray: np.ndarray, other: np.ndarray, here: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.003)
    size, flags = (_WINDOW, _WINDOW), cv2.OPTFLOW_USE_INITIAL_FLOW
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        gray, other, here, guess.copy(), winSize=size, maxLevel=1, criteria=criteria, flags=flags, minEigThreshold=1e-3
    )
    return there, found[:, 0] > 0


def with_corners(pycolmap: Any, model: Any, names: Sequence[str], followed: Sequence[Followed]) -> Any:
    """A copy of the model with a point for each corner that enough frames show where one point would be.

    names: image of each frame, by its number.
    """
    result = pycolmap.Reconstruction(model)
    images = {image.name: image for image in result.images.values() if image.has_pose}
    image_of = {number: images[name] for number, name in enumerate(names) if name in images}
    pixels = {image.image_id: [point.xy.copy() for point in image.points2D] for image in images.values()}
    points = [
        (point.xyz.copy(), [(e.image_id, e.point2D_idx) for e in point.track.elements])
        for point in result.points3D.values()
    ]
    for corner in followed:
        for xyz, views in _points(corner, image_of, result.cameras):
            track = []
            for number, pixel in views:
                places = pixels[image_of[number].image_id]
                track.append((image_of[number].image_id, len(places)))
                places.append(pixel)
            points.append((xyz, track))
    # An image takes its pixels only once, so all are put in anew.
    result.delete_all_points2D_and_points3D()
    for image in images.values():
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(pixel) for pixel in pixels[image.image_id]])
    for xyz, track in points:
        elements = [pycolmap.TrackElement(*element) for element in track]
        result.add_point3D(xyz, pycolmap.Track(elements), np.zeros(3, np.uint8))
    result.update_point_3d_errors()
    return result


def _points(
    corner: Followed, image_of: dict[int, Any], cameras: Any
) -> Iterator[tuple[Float[np.ndarray, "3"], list[tuple[int, Float[np.ndarray, "2"]]]]]:
    """Each corner that can be triangulated: the point, and (number, pixel) of the frames that agree with it."""
    posed = [i for i, number in enumerate(corner.frames) if number in image_of]
    if not posed or posed[0] != 0:
        return
    frames = [corner.frames[i] for i in posed]
    pixels, seen = corner.pixels[posed], corner.seen[posed]
    lenses = [from_colmap(cameras[image_of[number].camera_id]) for number in frames]
    poses = np.stack([image_of[number].cam_from_world().matrix() for number in frames])
    points = triangulate(np.stack([c.normalise(p) for c, p in zip(lenses, pixels, strict=True)]), poses, seen)
    local = np.einsum("vij,kj->vki", poses[:, :, :3], points) + poses[:, None, :, 3]
    ahead = local[..., 2] > 1e-6
    local[~ahead] = 1.0
    misses = [np.linalg.norm(c.project(p) - at, axis=-1) for c, p, at in zip(lenses, local, pixels, strict=True)]
    agree = seen & ahead & (np.stack(misses) < _WRONG)
    for k in np.flatnonzero(agree[0] & (agree.sum(axis=0) >= _FEWEST_VIEWS)):
        yield points[k], [(number, pixels[i, k]) for i, number in enumerate(frames) if agree[i, k]]


def triangulate(
    xy: Float[np.ndarray, "V K 2"], poses: Float[np.ndarray, "V 3 4"], seen: Bool[np.ndarray, "V K"]
) -> Float[np.ndarray, "K 3"]:
    """Points whose images are at normalised coordinates xy in the views that see them, by the direct linear way.

    poses: world to camera, OpenCV axes. What is at infinity gets coordinates that are not finite, or huge.
    """
    rows = xy[..., None] * poses[:, None, 2:] - poses[:, None, :2]  # (V,K,2,4)
    rows = np.where(seen[..., None, None], rows, 0.0)
    system = rows.transpose(1, 0, 2, 3).reshape(xy.shape[1], -1, 4)
    solution = np.linalg.svd(system)[2][:, -1] if len(system) else np.zeros((0, 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        points = solution[:, :3] / solution[:, 3:]
    return np.where(np.isfinite(points), points, 1e12)
