"""A scene that is cheap to look at: a ball of one kind of feature before a wall of another, and a box like the ball."""

import math

import torch
import torch.nn.functional as F

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.views import FeatureView, view_of_outputs

WIDTH, HEIGHT = 80, 60
BALL = torch.tensor([0.0, 0.0, -3.0])
TWIN = torch.tensor([1.3, 0.3, -3.6])
RADIUS = 0.5
SPEED = torch.tensor([0.0, 0.6, 0.0])
"""of the ball, in a scene that moves, from time 0 to 1"""


def camera(x: float = 0.0, turn: float = 0.0, time: float | None = None) -> ViewCamera:
    """A camera at (x, 0, 0), turned to the left by so many degrees."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    values = torch.tensor([c, 0, s, x, 0, 1, 0, 0, -s, 0, c, 0]).tolist()
    return ViewCamera(tuple(values), 64.0, 64.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT, time)


class BallScene:
    """Renders by intersecting rays. The ball and its twin look alike; only in space they differ."""

    def __init__(self, moves: bool = False, noise: float = 0.1, words: bool = False) -> None:
        self.moves, self.noise, self.words = moves, noise, words
        self.renders = 0
        self.weights = 0

    def version(self) -> int:
        return self.weights

    def labels(self, view: ViewCamera) -> tuple[torch.Tensor, torch.Tensor]:
        """Truth (0 wall, 1 ball, 2 twin) and surface."""
        bundle = view.cameras().generate_rays(camera_indices=0, keep_shape=True)
        origin, direction = bundle.origins, bundle.directions
        depth = (-6.0 - origin[..., 2]) / direction[..., 2]
        label = torch.zeros(view.height, view.width, dtype=torch.long)
        moved = SPEED * (view.time or 0.0) if self.moves else torch.zeros(3)
        for number, centre in ((1, BALL + moved), (2, TWIN)):
            offset = origin - centre
            b = (offset * direction).sum(dim=-1)
            inside = b.square() - offset.square().sum(dim=-1) + RADIUS**2
            distance = -b - inside.clamp(min=0).sqrt()
            hit = (inside > 0) & (distance > 0) & (distance < depth)
            depth = torch.where(hit, distance, depth)
            label = torch.where(hit, number, label)
        return label, origin + direction * depth[..., None]

    def render_view(self, view: ViewCamera) -> FeatureView:
        self.renders += 1
        label, points = self.labels(view)
        looks = F.normalize(torch.tensor([[1.0, 0.2, 0, 0], [0, 0.2, 1.0, 0], [0, 0.2, 1.0, 0.1]]), dim=-1)
        generator = torch.Generator().manual_seed(self.weights)
        features = looks[label] + self.noise * torch.randn(view.height, view.width, 4, generator=generator)
        colors = torch.tensor([[0.3, 0.4, 0.5], [0.8, 0.2, 0.2], [0.8, 0.25, 0.2]])
        moving = label == 1 if self.moves else None
        return FeatureView(view, colors[label], F.normalize(features, dim=-1), points, moving)

    def view_of(self, raw, cameras):
        return view_of_outputs(raw, cameras)

    def photo_of(self, view):
        return view

    def pictures(self):
        return None

    def cloud(self):
        return None

    def trace(self, points, time, to):
        return points + SPEED * (to - time) if self.moves and None not in (time, to) else points

    def text_features(self, texts):
        if not self.words:
            raise SemfieldError("This model does not support text queries.")
        known = {"ball": [0.0, 0.2, 1.0, 0], "wall": [1.0, 0.2, 0, 0]}
        return F.normalize(torch.tensor([known.get(text, [0.5, 1.0, 0.5, 0.5]) for text in texts]), dim=-1)


def iou(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found & truth).sum() / (found | truth).sum())
