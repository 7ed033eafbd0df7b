"""Strokes that select Gaussians: from scores of single places to connected parts of a cloud.

As `growing.py` does it in a picture, but in space: places that are close and look alike get the same score.

Of photos, what a stroke amounts to in the photo that it was drawn in counts too (`Opinion`): the more, the less their
surface can be trusted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.segmentation.appearance import Appearance
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.segment import Seeds, joined

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_NODES = 80_000
"""of a graph: of more Gaussians, those in one cell of a grid are a node together"""
NEIGHBOURS = 8
"""nodes that a node is joined with"""
AROUND = 24
"""nodes that show how a surface lies"""
GAP = 3.0
"""distance that stops growth, in usual distances between neighbours there"""
UNLIKE = 3.0
"""|df|^2 of features, or of colours, that does, in those that are usual between neighbours"""
CREASE = 0.1
"""sine by which a surface is hollow, between neighbours, that does: where one thing lies on another"""
ORIENTING, ORIENTING_SIDE = 12, 240
"""pictures that tell the outside of a surface from its inside, and their longer side, px"""
SEED_SHARE = 0.5
"""of what a view shows of a Gaussian which a stroke has to cover"""
SEED_MASS = 0.5
"""of the contributions that Gaussians under a stroke usually make: what is seen through gaps makes less"""
SEED_CONFIDENCE = 1e3
LIKENESS_CONFIDENCE = 3e-4
"""of what a place looks like, where there are strokes: only what these do not reach goes by its looks"""
OPINION_CONFIDENCE = 3.0
"""of what the masks of a view say, where the surface cannot be trusted at all"""
SHOWN_ENOUGH = 0.5
"""of the contributions to a picture that its nodes usually make: those that make less are hardly shown"""
LIKENESS_ALONE = 0.1
"""of that of an object without strokes, of words or boxes"""
MOSTLY = 0.8
"""share of the Gaussians under a stroke that are of the thing which it picks"""
THING_CONFIDENCE = 1.0
"""of what the thing says that was picked"""
STRENGTH = 2.0
"""of growth, at the most"""
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Nodes:
    """Places of a cloud, and which of them are neighbours."""

    member: Int[Tensor, "N"]
    """node of each Gaussian"""
    size: Float[Tensor, "K"]
    """Gaussians of each node"""
    points: Float[Tensor, "K 3"]
    features: Float[Tensor, "K F"]
    """of unit norm"""
    colors: Float[Tensor, "K 3"]
    edges: Int[Tensor, "E 2"]
    """pairs of neighbours, the smaller number first"""
    normals: Float[Tensor, "K 3"]
    """of the surface, towards where it is seen from"""
    seen: Float[Tensor, "K"]
    """mean contributions of the Gaussians of each node to some pictures"""

    @cached_property
    def weights(self) -> Float[Tensor, "E"]:
        """How easily something spreads between neighbours, 0..1.

        The more the closer and the more alike, and little into a hollow: things that touch do so in creases.
        """
        return torch.exp(-self.apart - self.unlike.sum(dim=0) - (self.hollow / CREASE).square())

    @cached_property
    def laplacian(self) -> "csr_array":
        """Of the graph, with these weights; on the CPU."""
        from scipy.sparse import coo_array, csr_array
        from scipy.sparse.csgraph import laplacian

        count = len(self.size)
        (first, second), weight = self.edges.T.cpu().numpy(), self.weights.double().cpu().numpy()
        joined = coo_array((weight, (first, second)), shape=(count, count))
        return csr_array(laplacian((joined + joined.T).tocsr()))

    @cached_property
    def apart(self) -> Float[Tensor, "E"]:
        """How far neighbours are apart, squared: 1 stops growth."""
        first, second = self.edges.unbind(dim=1)
        distance = (self.points[second] - self.points[first]).norm(dim=1)
        # Trained Gaussians are dense where there is detail, and sparse elsewhere.
        ends, twice = self.edges.T.flatten(), distance.repeat(2)
        total = distance.new_zeros(2, len(self.size)).index_add_(1, ends, torch.stack([twice, torch.ones_like(twice)]))
        usual_there = total[0] / total[1].clamp(min=1)
        spacing = torch.minimum(usual_there[first], usual_there[second])
        return (distance / (GAP * spacing).clamp(min=TINY)).square()

    @cached_property
    def unlike(self) -> Float[Tensor, "2 E"]:
        """How different the features of neighbours are, and their colours, squared: 1 stops growth."""
        first, second = self.edges.unbind(dim=1)
        found = []
        for values in (self.features, self.colors):
            unlike = (values[first] - values[second]).square().sum(dim=1)
            found.append(unlike / (UNLIKE * unlike.mean()).clamp(min=TINY))
        return torch.stack(found)

    @cached_property
    def hollow(self) -> Float[Tensor, "E"]:
        """Sine by which the surface is hollow between neighbours, 0 where it is flat or bulges."""
        first, second = self.edges.unbind(dim=1)
        way = self.points[second] - self.points[first]
        turn = self.normals[first] - self.normals[second]
        return ((turn * way).sum(dim=1) / way.norm(dim=1).clamp(min=TINY)).clamp(min=0)

    def mean(self, values: Float[Tensor, "N C"]) -> Float[Tensor, "K C"]:
        """Means over the Gaussians of each node."""
        total = values.new_zeros(len(self.size), values.shape[1]).index_add_(0, self.member, values)
        return total / self.size[:, None]


@dataclass(frozen=True, eq=False)
class Cloud:
    """N Gaussians that strokes select among; float32 tensors on one device, in world coordinates."""

    points: Float[Tensor, "N 3"]
    features: Float[Tensor, "N F"]
    """of unit norm"""
    colors: Float[Tensor, "N 3"]
    """in [0, 1]"""
    cameras: Sequence[ViewCamera]
    """of pictures that show the Gaussians from outside"""
    show: Callable[[ViewCamera, Float[Tensor, "N V"]], Float[Tensor, "H W V"]]
    """composites values of Gaussians in a view"""
    gather: Callable[[ViewCamera, Float[Tensor, "H W V"]], tuple[Float[Tensor, "N V"], Float[Tensor, "N"]]]
    """sums over a view's pixels of contribution times value, and of contributions, for each Gaussian"""

    @cached_property
    def nodes(self) -> Nodes:
        """The graph; built at first use."""
        return find_nodes(self)

    @cached_property
    def things(self) -> Int[Tensor, "N"]:
        """Number of the thing of each Gaussian, 0 for the background, without strokes; found at first use."""
        from semfield_ns.segmentation.instances import find_things

        return find_things(self.nodes)[self.nodes.member]

    def seen_from(self) -> Float[Tensor, "N 3"]:
        """Sums, over some pictures, of the direction to the camera times contributions."""
        total = torch.zeros_like(self.points)
        step = max(1, -(-len(self.cameras) // ORIENTING))
        for camera in self.cameras[::step]:
            small = camera.scaled(min(1.0, ORIENTING_SIDE / max(camera.width, camera.height)))
            _, weight = self.gather(small, self.points.new_ones(small.height, small.width, 1))
            total += weight[:, None] * F.normalize(self.points.new_tensor(camera.centre) - self.points, dim=1)
        return total


@dataclass(frozen=True, eq=False)
class Opinion:
    """What the masks of one view say of the nodes that it shows."""

    scores: Float[Tensor, "O K"]
    """of each object, in [0, 1]"""
    shown: Float[Tensor, "K"]
    """how much the view shows of a node, in [0, 1]"""
    doubt: float
    """of the surface that the view shows, in [0, 1]"""


@dataclass(frozen=True, eq=False)
class Selection:
    """The Gaussians of objects."""

    scores: Float[Tensor, "N O"]
    """in [0, 1]"""
    ids: Int[Tensor, "N"]
    """0 for no object, n for the n-th"""


def find_nodes(cloud: Cloud) -> Nodes:
    """Each Gaussian as a node; of too many, those in one cell of a grid together. Joined with the nearest ones."""
    from scipy.spatial import cKDTree

    device = cloud.points.device
    member = torch.from_numpy(cells(cloud.points.cpu().numpy(), MOST_NODES)).to(device)
    count = int(member.max()) + 1
    size = torch.bincount(member, minlength=count).to(cloud.points)

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(count, values.shape[1]).index_add_(0, member, values) / size[:, None]

    points, outwards = mean(cloud.points), mean(cloud.seen_from())
    places = points.cpu().numpy()
    near = cKDTree(places).query(places, k=min(AROUND, count))[1].reshape(count, -1)
    ends = near[:, 1 : NEIGHBOURS + 1]
    pairs = np.stack([np.repeat(np.arange(count), ends.shape[1]), ends.ravel()], axis=1)
    return Nodes(
        member,
        size,
        points,
        F.normalize(mean(cloud.features), dim=-1),
        mean(cloud.colors),
        torch.from_numpy(np.unique(np.sort(pairs, axis=1), axis=0)).to(device),
        surface_normals(points, torch.from_numpy(near).to(device), outwards),
        outwards.norm(dim=1),
    )


def surface_normals(
    points: Float[Tensor, "K 3"], near: Int[Tensor, "K A"], outwards: Float[Tensor, "K 3"]
) -> Float[Tensor, "K 3"]:
    """Unit normals of the planes through the places around each place.

    Args:
        points: places.
        near: numbers of the places around each.
        outwards: directions that normals are turned towards, where they are not zero.
    """
    normals = torch.empty_like(points)
    for part in torch.arange(len(points), device=points.device).split(1 << 14):
        around = points[near[part]]
        around = around - around.mean(dim=1, keepdim=True)
        normals[part] = torch.linalg.eigh(around.transpose(1, 2) @ around).eigenvectors[..., 0]
    return torch.where((normals * outwards).sum(dim=1, keepdim=True) < 0, -normals, normals)


def cells(points: Float[np.ndarray, "N 3"], most: int) -> Int[np.ndarray, "N"]:
    """Numbers of parts of a cloud, at most so many: cells of a grid where there are more points."""
    count = len(points)
    if count <= most:
        return np.arange(count)
    # Floaters are far out: the grid is as fine as it has to be for what is between them.
    low, high = (np.quantile(points, quantile, axis=0) for quantile in (0.02, 0.98))
    side = float(np.max(high - low)) / most**0.5 or 1.0
    while True:
        places = np.floor(np.clip((points - low) / side, -(2.0**19), 2.0**19)).astype(np.int64) + 2**19
        keys = (places[:, 0] << 42) | (places[:, 1] << 21) | places[:, 2]
        kept, member = np.unique(keys, return_inverse=True)
        if len(kept) <= most:
            return member.reshape(-1)
        side *= 1.2


def spread(
    score: Float[Tensor, "O K"],
    confidence: Float[Tensor, "O K"],
    laplacian: "csr_array",
    strength: float,
) -> Float[Tensor, "O K"]:
    """As `growing.grow`, for many nodes: by conjugate gradients on the CPU."""
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import cg

    if strength == 0 or laplacian.nnz == 0:
        return score
    graph = strength * laplacian
    found = []
    for wanted, sure in zip(score.double().cpu().numpy(), confidence.double().cpu().numpy(), strict=True):
        matrix = (graph + diags_array(sure)).tocsr()
        x, _ = cg(matrix, sure * wanted, x0=wanted, rtol=1e-5, maxiter=2000, M=diags_array(1 / matrix.diagonal()))
        found.append(torch.from_numpy(x))
    return torch.stack(found).to(score).clamp(0, 1)


def marked(
    cloud: Cloud, seeds: Mapping[ViewCamera, Seeds | None], objects: int
) -> tuple[Bool[Tensor, "N O"], Bool[Tensor, "N O"]]:
    """Gaussians under strokes: those of which a view shows most under a stroke, but not what shines through gaps.

    Args:
        cloud: of all Gaussians.
        seeds: the pixels that were marked, by the camera of the view.
        objects: O.

    Returns:
        Of positive and of negative strokes.
    """
    found = torch.zeros(len(cloud.points), 2 * objects, dtype=torch.bool, device=cloud.points.device)
    for camera, pixels in seeds.items():
        if pixels is None:
            continue
        strokes = torch.cat([pixels.positive, pixels.negative]).permute(1, 2, 0).to(cloud.points)
        sums, weight = cloud.gather(camera, strokes)
        found |= (sums > SEED_SHARE * weight[:, None]) & (sums > SEED_MASS * usual(sums))
    return found[:, :objects], found[:, objects:]


def opinion(cloud: Cloud, camera: ViewCamera, scores: Float[Tensor, "O H W"], trust: float) -> Opinion:
    """What the scores of a view's pixels say of nodes.

    Args:
        cloud: of all Gaussians.
        camera: of the view.
        scores: of each object, in [0, 1].
        trust: in the surface that the view shows, in [0, 1].
    """
    sums, weight = cloud.gather(camera, scores.permute(1, 2, 0).contiguous())
    shown = cloud.nodes.mean(weight[:, None])
    found = cloud.nodes.mean(sums) / shown.clamp(min=TINY)
    enough = (SHOWN_ENOUGH * usual(shown)).clamp(min=TINY)
    return Opinion(found.T.clamp(0, 1), (shown / enough)[:, 0].clamp(max=1), 1 - trust)


def usual(masses: Float[Tensor, "N M"]) -> Float[Tensor, "M"]:
    """Of each column the value from which on larger ones make half of its sum."""
    ordered = masses.sort(dim=0, descending=True).values
    place = (ordered.cumsum(dim=0) < 0.5 * ordered.sum(dim=0)).sum(dim=0, keepdim=True)
    return ordered.gather(0, place.clamp(max=len(masses) - 1))[0]


def select(
    cloud: Cloud,
    objects: Sequence[Appearance],
    positive: Bool[Tensor, "N O"],
    negative: Bool[Tensor, "N O"],
    growth: Sequence[float],
    thresholds: Sequence[float],
    opinions: Sequence[Opinion] = (),
) -> Selection:
    """The Gaussians of objects.

    An object without negative strokes is the thing that its strokes are on, where they are on one.

    Args:
        cloud: that they are selected from.
        objects: what they look like, O of them.
        positive: Gaussians under the strokes of each object.
        negative: Gaussians under its negative strokes.
        growth: for each object, from 0 (places by themselves) to 1.
        thresholds: scores from which a Gaussian is the object's.
        opinions: of the views that people drew in, of photos.
    """
    nodes, scores = cloud.nodes, []
    for number, looks in enumerate(objects):
        score = looks.similarity(nodes.features)
        marks = nodes.mean(torch.stack([positive[:, number], negative[:, number]], dim=1).to(score))
        marked = marks.sum(dim=1) > 0
        alone = not bool(positive[:, number].any())
        unmarked = LIKENESS_ALONE if alone else LIKENESS_CONFIDENCE
        confidence = torch.full_like(score, unmarked)
        thing = 0 if len(looks.negative) else picked(cloud, positive[:, number])
        if thing:
            score = nodes.mean((cloud.things == thing)[:, None].to(score))[:, 0]
            confidence = torch.full_like(score, THING_CONFIDENCE)
        for other in () if thing else opinions:
            sure = OPINION_CONFIDENCE * other.doubt**2 * other.shown
            score, confidence = joined(score, confidence, other.scores[number], sure)
        score = torch.where(marked, marks[:, 0] / marks.sum(dim=1).clamp(min=TINY), score)
        confidence = torch.where(marked, SEED_CONFIDENCE, confidence)
        strength = STRENGTH * growth[number]
        scores.append(spread(score[None], confidence[None], nodes.laplacian, strength)[0])
    found = torch.stack(scores, dim=1)
    margin, best = (found - found.new_tensor(list(thresholds))).max(dim=1)
    chosen = torch.where(margin > 0, best + 1, 0)
    for number in range(len(objects)):
        mine = chosen == number + 1
        seeds = nodes.mean(positive[:, number : number + 1].to(found))[:, 0] > 0
        chosen[mine & ~connected(mine, seeds & mine, nodes.edges)] = 0
    return Selection(found[nodes.member], chosen[nodes.member])


def picked(cloud: Cloud, marked: Bool[Tensor, "N"]) -> int:
    """Number of the thing that most of the marked Gaussians are of; 0 where there is none."""
    if not bool(marked.any()):
        return 0
    counts = torch.bincount(cloud.things[marked])
    best = int(counts.argmax())
    return best if float(counts[best]) >= MOSTLY * float(counts.sum()) else 0


def connected(mask: Bool[Tensor, "K"], seeds: Bool[Tensor, "K"], edges: Int[Tensor, "E 2"]) -> Bool[Tensor, "K"]:
    """The nodes of a mask that are joined with seeds inside of it; all of them where there is no seed."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not bool(seeds.any()):
        return mask
    inside = edges[mask[edges].all(dim=1)].cpu().numpy()
    count = len(mask)
    graph = coo_matrix((np.ones(len(inside)), (inside[:, 0], inside[:, 1])), shape=(count, count))
    part = torch.from_numpy(connected_components(graph, directed=False)[1]).to(mask.device)
    return mask & torch.isin(part, part[seeds])
