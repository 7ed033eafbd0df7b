"""Moving objects of a trained scene over time: connected parts of a class in each frame, linked along the flow."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import label as connected_parts
from scipy.spatial import cKDTree
from torch import Tensor

POINTS_PER_OBJECT = 256
MIN_SHARE = 0.0008
"""parts that cover less of a frame are noise"""
MIN_FRAMES = 2
MAX_GAP = 6
"""frames over which an object that was hidden is found again"""
NEAR = 0.25
"""how far a point may be from the surface of an object of its class, relative to the object's size"""
REACH = 0.75
"""how far a part may be from where the flow puts the object, relative to the object's size"""

_Surface = tuple[cKDTree, Int[np.ndarray, "K"]]
"""points, and the object that each is of"""


@dataclass(frozen=True)
class FrameView:
    """What a render of one training frame shows; world units, image order."""

    labels: Int[np.ndarray, "H W"]
    moving: Bool[np.ndarray, "H W"]
    surface: Float[np.ndarray, "H W 3"]
    forward: Float[np.ndarray, "H W 3"]
    """Scene flow of the surface to the next frame."""


@dataclass
class MovingObject:
    """An object: its class, and points on its visible surface in the frames that see it."""

    class_id: int
    points: dict[int, Float[np.ndarray, "K 3"]] = field(default_factory=dict)
    regions: dict[int, Bool[np.ndarray, "H W"]] = field(default_factory=dict)
    """Its pixels in the renders that it was found in."""
    ahead: Float[np.ndarray, "K 3"] = field(default_factory=lambda: np.zeros((0, 3)))
    """Where the flow puts the points of the last frame in the next one."""

    @property
    def last(self) -> int:
        """The last frame that sees it."""
        return max(self.points)

    @property
    def size(self) -> float:
        """Diagonal of the points' box, the median over the frames."""
        return float(np.median([np.linalg.norm(np.ptp(points, axis=0)) for points in self.points.values()]))


class ObjectTracks:
    """Moving objects with names, "class#number", numbered in the order in which they are first seen.

    Args:
        objects: the tracks.
        class_names: of all classes.
        num_frames: of the video.
    """

    def __init__(self, objects: Sequence[MovingObject], class_names: Sequence[str], num_frames: int) -> None:
        self.objects = list(objects)
        self.num_frames = num_frames
        counts: dict[int, int] = {}
        self.names: list[str] = []
        for entry in self.objects:
            counts[entry.class_id] = counts.get(entry.class_id, 0) + 1
            self.names.append(f"{class_names[entry.class_id]}#{counts[entry.class_id]}")
        self._trees: dict[tuple[int, int | None], _Surface] = {}

    @property
    def centres(self) -> dict[str, Float[np.ndarray, "K 3"]]:
        """Name -> centres of what is seen of an object, in the frames that see it, in order; world units."""
        return {
            name: np.stack([_middle(entry.points[frame]) for frame in sorted(entry.points)])
            for name, entry in zip(self.names, self.objects, strict=True)
        }

    def id_image(self, frame: int, shape: tuple[int, int]) -> Int[np.ndarray, "H W"]:
        """Which object each pixel of a frame belongs to: its number, from 1, or 0 for none.

        Args:
            frame: number of the time step.
            shape: height and width of the renders that the objects were found in.
        """
        ids = np.zeros(shape, dtype=np.int64)
        for number, entry in enumerate(self.objects, start=1):
            if frame in entry.regions:
                ids[entry.regions[frame]] = number
        return ids

    def _tree(self, frame: int, class_id: int | None) -> _Surface:
        """Points of the objects of a class (or of all) at a frame, and whose they are.

        An object that is not seen there is where it was seen last or next.
        """
        if (frame, class_id) not in self._trees:
            chosen = [i for i, entry in enumerate(self.objects) if class_id is None or entry.class_id == class_id]
            seen = [self.objects[index].points for index in chosen]
            points = [known[min(known, key=lambda other: abs(other - frame))] for known in seen]
            owner = np.repeat(chosen, [len(part) for part in points])
            self._trees[frame, class_id] = cKDTree(np.concatenate(points)), owner
        return self._trees[frame, class_id]

    def nearest(self, points: Float[Tensor, "N 3"], classes: Int[Tensor, "N"], frame: int) -> Int[Tensor, "N"]:
        """Which object each point at a frame belongs to: of its class, that with the nearest surface point.

        Of all objects where there is none of its class, or where another one is near and it is not.
        """
        known, ids, places = {entry.class_id for entry in self.objects}, classes.cpu().numpy(), points.cpu().numpy()
        reach = NEAR * np.array([entry.size for entry in self.objects])
        every, of_every = self._tree(frame, None)
        owner = np.full(len(ids), -1)
        for class_id in np.unique(ids).tolist():
            rows = np.flatnonzero(ids == class_id)
            away, nearest = every.query(places[rows])
            other = of_every[nearest]
            if class_id in known:
                tree, whose = self._tree(frame, class_id)
                distances, nearest = tree.query(places[rows])
                # Where it was not seen at this time, its surface is where it was seen last.
                strays = (distances > reach[whose[nearest]]) & (away <= reach[other])
                other = np.where(strays, other, whose[nearest])
            owner[rows] = other
        return torch.from_numpy(owner).to(points.device)

    def centre(self, index: int, time: float) -> Float[np.ndarray, "3"]:
        """Centre of an object's box at a time in frames, smooth in time.

        Only the visible side is known, and what is visible changes: the centre is a local linear fit over nine frames.
        """
        frames = np.array(sorted(self.objects[index].points), dtype=np.float64)
        centres = np.stack([_middle(self.objects[index].points[int(frame)]) for frame in frames])
        weight = np.exp(-0.5 * np.square((frames - time) / 2.5)) + 1e-9
        design = np.stack([np.ones_like(frames), frames - time], axis=1) * weight[:, None]
        return np.linalg.lstsq(design, centres * weight[:, None], rcond=None)[0][0]


def _middle(points: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "3"]:
    low, high = np.percentile(points, (2, 98), axis=0)
    return (low + high) / 2


def find_objects(views: Sequence[FrameView], moving_classes: Sequence[int]) -> list[MovingObject]:
    """Links the connected parts of all frames.

    A part continues the object whose points, moved along the flow, lie nearest, if they are within reach; parts of one
    object (it is behind a pillar) may be several. What continues no object is a new one.

    Args:
        views: one a frame, in order of time.
        moving_classes: ids of classes that may move.

    Returns:
        Objects that at least two frames see, in the order in which they appear.
    """
    found: list[MovingObject] = []
    for frame, view in enumerate(views):
        current: dict[int, list[Bool[np.ndarray, "H W"]]] = {}
        for class_id in moving_classes:
            for part in _parts((view.labels == class_id) & view.moving):
                chosen = _continued(found, class_id, view.surface[part], frame)
                if chosen is None:
                    found.append(MovingObject(class_id))
                    chosen = len(found) - 1
                    # A new object has no past; its place is that of its first part.
                    _see(found[chosen], frame, part, view)
                current.setdefault(chosen, []).append(part)
        for index, parts in current.items():
            _see(found[index], frame, np.any(parts, axis=0), view)
    return [entry for entry in found if len(entry.points) >= min(MIN_FRAMES, len(views))]


def _parts(mask: Bool[np.ndarray, "H W"]) -> list[Bool[np.ndarray, "H W"]]:
    numbered, count = connected_parts(mask, structure=np.ones((3, 3)))
    parts = [numbered == number for number in range(1, count + 1)]
    large = [part for part in parts if part.sum() >= max(MIN_SHARE * mask.size, 4)]
    return sorted(large, key=lambda part: -int(part.sum()))


def _continued(found: list[MovingObject], class_id: int, surface: np.ndarray, frame: int) -> int | None:
    best, best_distance = None, REACH
    middle = np.median(surface, axis=0)
    for index, entry in enumerate(found):
        if entry.class_id != class_id or frame - entry.last > MAX_GAP:
            continue
        # Seen in this very frame already: another part of it, if it touches where the object is.
        expected = entry.points[frame] if entry.last == frame else entry.ahead
        distance = float(np.median(np.linalg.norm(expected - middle, axis=1).min())) / max(entry.size, 1e-6)
        if distance < best_distance:
            best, best_distance = index, distance
    return best


def _see(entry: MovingObject, frame: int, region: Bool[np.ndarray, "H W"], view: FrameView) -> None:
    surface, forward = view.surface[region], view.forward[region]
    chosen = np.linspace(0, len(surface) - 1, min(POINTS_PER_OBJECT, len(surface))).round().astype(int)
    entry.points[frame] = surface[chosen]
    entry.regions[frame] = region
    entry.ahead = surface[chosen] + forward[chosen]
