"""The things of a scene without strokes: what is in front of floors and walls, divided where surfaces are hollow.

Floors and walls are large planes that have the whole scene on their inner side. What is left falls into pieces: regions
of neighbours merge while the mean of the links between them is strong. A piece that reaches the border of the scene, or
spans most of it, is background too. How far all of this can be trusted is in docs/measurements.md.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.segmentation.clouds import Nodes

MOST_FACES = 6
"""floors, walls and ceilings of a scene"""
SMALLEST_FACE = 0.03
"""of what pictures show of a scene"""
OUTSIDE = 0.02
"""of it that may lie beyond a floor or a wall: floaters do"""
INWARDS = 0.3
"""mean cosine by which a floor or a wall looks into the scene: the tops of things look out of it"""
THICKNESS = 0.01
"""of a floor or a wall, relative to the extent of the scene, before its own is known"""
SAMPLES, TRIALS, REFINED = 4000, 600, 60
"""places that planes are looked for among; planes through three of them; the best of these, which are fitted"""
DEVIATIONS = 3.0
"""of what lies in front of a plane to be no longer part of it"""
WEAKEST = 0.15
"""mean link at which regions merge"""
LEVELS = np.linspace(0.95, WEAKEST, 6)
"""mean links at which they do, one after another: the strong ones first"""
CREASE = 0.15
"""sine by which a surface is hollow that weakens a link"""
LOOKS = 0.6
"""how much links are weakened by other features, and by other colours: a thing may have stripes"""
VOTERS, VOTES = 24, 2
"""nearest nodes, by place and looks together, that say what a node is of; how often"""
REACH, SAME_COLOR, SAME_FEATURE = 4.0, 0.5, 2.0
"""distances that count alike among these: of places, in those of neighbours; of colours and of features, in those that
are usual between neighbours"""
DIRECTIONS = 6
"""principal components of features that are compared"""
QUANTILES = (0.02, 0.98)
"""of the coordinates of a scene: what is further out is its border"""
MOST_OUT, MOST_SPAN = 0.5, 0.5
"""of a thing that may be in the border of the scene; of the extent of the scene that a thing may span"""
CRUMB = 0.001
"""of what pictures show of a scene: a smaller piece is no thing"""
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Face:
    """A floor, a wall or a ceiling: a plane that has the scene on its inner side."""

    normal: Float[np.ndarray, "3"]
    """of unit length, out of the scene"""
    offset: float
    """of the plane along its normal, world units"""
    thickness: float
    """how far its surface reaches inwards, world units"""

    def height(self, points: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K"]:
        """How far points are beyond the plane, world units; inside of the scene it is negative."""
        return points @ self.normal - self.offset


def find_things(nodes: Nodes) -> Int[Tensor, "K"]:
    """Divides a cloud into things, without anything drawn.

    Args:
        nodes: of the cloud, K of them.

    Returns:
        Of each node 0 for the background, or the number of its thing: 1 for the one with most Gaussians, 2 for the
        next, ... The same for the same cloud.
    """
    points, normals = nodes.points.double().cpu().numpy(), nodes.normals.double().cpu().numpy()
    size = nodes.size.double().cpu().numpy()
    if len(points) < 4:
        return torch.zeros_like(nodes.member[: len(points)])
    shown = shares(nodes.seen.double().cpu().numpy() * size)
    sample = shown_sample(shown)
    free = np.ones(len(points), dtype=bool)
    for face in find_faces(points[sample], normals[sample]):
        free &= face.height(points) < -face.thickness
    edges, links = nodes.edges.cpu().numpy(), link_strengths(nodes).double().cpu().numpy()
    inside = free[edges].all(axis=1)
    region = np.where(free, merge_regions(edges[inside], links[inside], len(points)), -1)
    ids = without_border(region, points, shown, np.quantile(points[sample], QUANTILES, axis=0))
    return torch.from_numpy(by_size(by_vote(ids, looks_and_places(nodes, sample), shown), size)).to(nodes.member)


def shares(seen: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """Of contributions to pictures, those of each node in all: little of floaters and of what is inside of things.

    All nodes are alike where no picture is known.
    """
    return seen / seen.sum() if seen.sum() > 0 else np.full(len(seen), 1 / len(seen))


def shown_sample(shown: Float[np.ndarray, "K"], seed: int = 0) -> Int[np.ndarray, "S"]:
    """Numbers of nodes drawn in proportion to what pictures show of them.

    Args:
        shown: `shares`.
        seed: of the draw.
    """
    return np.random.default_rng(seed).choice(len(shown), size=min(SAMPLES, len(shown)), p=shown)


def find_faces(points: Float[np.ndarray, "S 3"], normals: Float[np.ndarray, "S 3"], seed: int = 0) -> list[Face]:
    """Floors, walls and ceilings: planes with many places, hardly any beyond them, that look into the scene.

    Args:
        points: a sample of the places of a scene, world units.
        normals: of their surface, of unit length, towards where it is seen from.
        seed: of the planes that are tried.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    low, high = np.quantile(points, QUANTILES, axis=0)
    tolerance = THICKNESS * float(np.linalg.norm(high - low))
    free = np.ones(len(points), dtype=bool)
    found: list[Face] = []
    while len(found) < MOST_FACES and free.mean() >= SMALLEST_FACE and free.sum() > 3:
        # Three places of one plane are rare among all places, and frequent among those that are not far apart.
        some = points[free]
        first = some[rng.integers(len(some), size=TRIALS)]
        count = min(len(some), SAMPLES // 10)
        near = cKDTree(some).query(first, k=count)[1]
        second, third = (some[near[np.arange(TRIALS), rng.integers(count // 4, count, TRIALS)]] for _ in range(2))
        across = np.cross(second - first, third - first)
        across /= np.linalg.norm(across, axis=1, keepdims=True) + TINY
        places = (across * first).sum(axis=1)
        fits = (np.abs(some @ across.T - places) < tolerance).sum(axis=0)
        best: tuple[float, Face] | None = None
        for number in np.argsort(-fits, kind="stable")[:REFINED]:
            face = fitted_face(some, points, across[number], float(places[number]), tolerance)
            height = face.height(points)
            band = free & (np.abs(height) < tolerance)
            share = float(band.mean())
            if share < SMALLEST_FACE or (height > DEVIATIONS * tolerance).mean() > OUTSIDE:
                continue
            if -(normals[band] @ face.normal).mean() >= INWARDS and (best is None or share > best[0]):
                best = share, face
        if best is None:
            break
        found.append(best[1])
        free &= best[1].height(points) < -best[1].thickness
    return found


def fitted_face(
    some: Float[np.ndarray, "M 3"],
    points: Float[np.ndarray, "S 3"],
    normal: Float[np.ndarray, "3"],
    offset: float,
    tolerance: float,
) -> Face:
    """A plane fitted to the places around it, turned out of the scene.

    Args:
        some: places that may be on it.
        points: all places: fewer of them are beyond it than before it.
        normal: of the plane at first, of unit length.
        offset: of the plane at first, along its normal.
        tolerance: distance, world units, at which a place is no longer of the plane.
    """
    for width in (2.0, 2.0, 1.0, 1.0):
        near = some[np.abs(some @ normal - offset) < width * tolerance]
        if len(near) < 3:
            break
        centre = near.mean(axis=0)
        normal = np.linalg.eigh((near - centre).T @ (near - centre))[1][:, 0]
        offset = float(normal @ centre)
    height = points @ normal - offset
    limit = DEVIATIONS * tolerance
    if (height > limit).mean() > (height < -limit).mean():
        normal, offset, height = -normal, -offset, -height
    # Nothing stands beyond the plane, so what is there is the roughness of the surface itself.
    beyond = height[(height > 0) & (height < limit)]
    rough = float(np.sqrt(np.square(beyond).mean())) if len(beyond) else 0.0
    return Face(normal, offset, min(DEVIATIONS * rough, limit))


def link_strengths(nodes: Nodes) -> Float[Tensor, "E"]:
    """How much neighbours seem to be of one thing, 0..1: by the shape of the surface, and a little by their looks."""
    return torch.exp(-nodes.apart - (nodes.hollow / CREASE).square() - LOOKS * nodes.unlike.clamp(max=1).sum(dim=0))


def merge_regions(edges: Int[np.ndarray, "E 2"], links: Float[np.ndarray, "E"], count: int) -> Int[np.ndarray, "K"]:
    """Merges neighbouring regions while the mean of the links between them is strong.

    As agglomeration by mean affinity, in rounds: each region merges with the neighbour that it has the strongest mean
    link with, if that is above the level of the round; levels go down.

    Args:
        edges: pairs of nodes.
        links: of the pairs, 0..1.
        count: K, of nodes.

    Returns:
        Number of the region of each node, from 0.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    region = np.arange(count)
    for level in LEVELS:
        while True:
            pairs = np.sort(region[edges], axis=1)
            apart = pairs[:, 0] != pairs[:, 1]
            number = int(region.max()) + 1
            keys, which = np.unique(pairs[apart, 0] * number + pairs[apart, 1], return_inverse=True)
            mean = np.bincount(which, links[apart]) / np.bincount(which)
            strong = mean > level
            if not strong.any():
                break
            first, second = np.divmod(keys[strong], number)
            one, other = np.concatenate([first, second]), np.concatenate([second, first])
            order = np.lexsort((other, -np.tile(mean[strong], 2), one))
            best = order[np.unique(one[order], return_index=True)[1]]
            joined = coo_matrix((np.ones(len(best)), (one[best], other[best])), shape=(number, number))
            region = connected_components(joined, directed=False)[1].astype(np.int64)[region]
    return region


def without_border(
    region: Int[np.ndarray, "K"],
    points: Float[np.ndarray, "K 3"],
    shown: Float[np.ndarray, "K"],
    bounds: Float[np.ndarray, "2 3"],
) -> Int[np.ndarray, "K"]:
    """The regions that are things: what pictures show some of, and does not reach the border of the scene.

    Args:
        region: number of the region of each node, negative for none.
        points: places of the nodes, world units.
        shown: `shares`.
        bounds: lowest and highest coordinates of the scene; what is outside of them is its border.

    Returns:
        Numbers from 1, 0 for the background.
    """
    outside = ((points < bounds[0]) | (points > bounds[1])).any(axis=1)
    ids, inner = np.zeros(len(region), dtype=np.int64), region >= 0
    for number in np.flatnonzero(np.bincount(region[inner], shown[inner]) > CRUMB):
        mine = region == number
        first, last = np.quantile(points[mine], QUANTILES, axis=0)
        narrow = np.linalg.norm(last - first) <= MOST_SPAN * np.linalg.norm(bounds[1] - bounds[0])
        if narrow and outside[mine].mean() <= MOST_OUT:
            ids[mine] = ids.max() + 1
    return ids


def by_size(ids: Int[np.ndarray, "K"], size: Float[np.ndarray, "K"]) -> Int[np.ndarray, "K"]:
    """Things numbered anew, from 1, the largest first; 0 stays what it is.

    Args:
        ids: things.
        size: Gaussians of each node.
    """
    order = np.argsort(-np.bincount(ids, size)[1:], kind="stable")
    rank = np.zeros(len(order) + 1, dtype=np.int64)
    rank[order + 1] = np.arange(1, len(order) + 1)
    return rank[ids]


def looks_and_places(nodes: Nodes, sample: Int[np.ndarray, "S"]) -> Float[np.ndarray, "K D"]:
    """Coordinates in which nodes that are close together and look alike are near each other.

    Args:
        nodes: K of them.
        sample: numbers of those that tell in which directions features differ.
    """
    first, second = nodes.edges.T.cpu().numpy()
    values = [value.double().cpu().numpy() for value in (nodes.points, nodes.colors, nodes.features)]
    main = np.linalg.svd(values[2][sample] - values[2][sample].mean(axis=0), full_matrices=False)[2][:DIRECTIONS]
    values[2] = values[2] @ main.T
    units = []
    for number, value in enumerate(values):
        difference = np.square(value[first] - value[second]).sum(axis=1)
        # Few neighbours are far apart; most look the same, and those that do not say what a difference is.
        usual = np.sqrt(np.median(difference) if number == 0 else difference.mean()) if len(difference) else 0.0
        units.append(max(usual, TINY))
    scales = (REACH * units[0], SAME_COLOR * units[1], SAME_FEATURE * units[2])
    return np.concatenate([value / scale for value, scale in zip(values, scales, strict=True)], axis=1)


def by_vote(
    ids: Int[np.ndarray, "K"], places: Float[np.ndarray, "K D"], shown: Float[np.ndarray, "K"]
) -> Int[np.ndarray, "K"]:
    """What most of the nearest nodes are of: also the lowest parts of things, which were cut off with a floor.

    Args:
        ids: things, 0 for the background.
        places: see `looks_and_places`.
        shown: weight of the vote of each node.
    """
    from scipy.sparse import coo_matrix
    from scipy.spatial import cKDTree

    count, voters = len(ids), min(VOTERS, len(ids))
    near = cKDTree(places).query(places, k=voters)[1].ravel()
    rows = np.repeat(np.arange(count), voters)
    for _ in range(VOTES):
        votes = coo_matrix((shown[near], (rows, ids[near])), shape=(count, int(ids.max()) + 1)).toarray()
        ids = np.where(votes.sum(axis=1) > 0, votes.argmax(axis=1), ids)
    return ids
