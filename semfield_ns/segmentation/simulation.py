"""Strokes as a person would draw them, made from a true mask: for evaluation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Point, Stroke

MARGIN = 0.25
"""of the largest distance to the border of a region: strokes keep at least that far from it"""
LENGTH = (0.4, 0.8)
"""of the longest line inside a region: a stroke covers a random share between these"""
TOLERANCE = 1.5
"""pixels that a poly-line may be off the line that it simplifies"""


def simulate_strokes(truth: Bool[np.ndarray, "H W"], camera: ViewCamera, seed: int) -> list[Stroke]:
    """A positive stroke inside a mask and a negative one outside it.

    Args:
        truth: of the view.
        camera: the view.
        seed: of the place and the length.

    Raises:
        SemfieldError: the mask is empty or covers everything.
    """
    generator = np.random.default_rng(seed)
    if truth.all() or not truth.any():
        raise SemfieldError("A stroke cannot be simulated: the true mask is empty, or covers the whole picture.")
    width = max(1.0, 0.01 * camera.width)
    return [
        Stroke(camera, tuple(line_inside(region, generator)), positive, width)
        for region, positive in ((truth, True), (~truth, False))
    ]


def line_inside(region: Bool[np.ndarray, "H W"], generator: np.random.Generator) -> Sequence[Point]:
    """A poly-line along the skeleton of what is left of a region when it is eroded, in pixels (x, y)."""
    from scipy.ndimage import distance_transform_edt, label
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra
    from skimage.measure import approximate_polygon
    from skimage.morphology import skeletonize

    distance = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    # What is left may be several pieces: people draw on the largest.
    pieces, _ = label(distance > MARGIN * distance.max(), structure=np.ones((3, 3)))
    skeleton = skeletonize(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax())
    rows, columns = np.nonzero(skeleton)
    number = np.full(region.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    first, second, length = [], [], []
    padded = np.pad(number, 1, constant_values=-1)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbour = padded[1 + dy : 1 + dy + region.shape[0], 1 + dx : 1 + dx + region.shape[1]][rows, columns]
        both = neighbour >= 0
        first.append(np.flatnonzero(both))
        second.append(neighbour[both])
        length.append(np.full(int(both.sum()), np.hypot(dy, dx)))
    shape = (len(rows), len(rows))
    graph = coo_matrix((np.concatenate(length), (np.concatenate(first), np.concatenate(second))), shape=shape).tocsr()

    def farthest(start: int) -> tuple[int, np.ndarray]:
        reached, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        return int(np.where(np.isfinite(reached), reached, -1).argmax()), before

    # The longest line through a random place: from the place to the end of its branch, from there to the other end.
    start, _ = farthest(int(generator.integers(len(rows))))
    end, before = farthest(start)
    line = [end]
    while line[-1] != start:
        line.append(int(before[line[-1]]))
    share = generator.uniform(*LENGTH)
    kept = max(1, round(share * len(line)))
    offset = int(generator.integers(len(line) - kept + 1))
    chosen = np.array(line[offset : offset + kept])
    corners = approximate_polygon(np.stack([columns[chosen], rows[chosen]], axis=1) + 0.5, TOLERANCE)
    return [(float(x), float(y)) for x, y in corners]
