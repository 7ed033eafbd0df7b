"""Strokes that select Gaussians of a made-up cloud: two balls on a floor, seen from above."""

import pytest
import torch
import torch.nn.functional as F

from semfield_ns.gaussians.projection import project
from semfield_ns.gaussians.rasterize import rasterize, uplift
from semfield_ns.gaussians.viewpoints import intrinsics, looking
from semfield_ns.segmentation.appearance import Appearance
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.clouds import (
    Cloud,
    Opinion,
    cells,
    connected,
    marked,
    opinion,
    picked,
    select,
    surface_normals,
)
from semfield_ns.segmentation.segment import Seeds

CENTRES = ((-1.0, 0.0, 0.5), (1.0, 0.0, 0.5))
WIDTH, HEIGHT = 120, 90


def camera_from(*place: float) -> ViewCamera:
    where = torch.tensor(place)
    pose = looking(where, torch.tensor([0.0, 0.0, 0.3]) - where, torch.tensor([0.0, 0.0, 1.0]))
    return ViewCamera(tuple(pose.flatten().tolist()), *intrinsics(WIDTH, HEIGHT), WIDTH, HEIGHT)


CAMERAS = [camera_from(0.0, -4.0, 3.0), camera_from(3.0, 2.5, 3.0), camera_from(-3.0, 2.5, 3.0)]


def two_balls(alike: bool) -> tuple[Cloud, torch.Tensor]:
    """The cloud, and the ball of each Gaussian from 1, 0 for the floor; `alike`: of one colour and one feature."""
    generator = torch.Generator().manual_seed(0)
    floor = torch.rand(4000, 3, generator=generator) * torch.tensor([5.0, 4.0, 0.0]) - torch.tensor([2.5, 2.0, 0.0])
    balls = [F.normalize(torch.randn(900, 3, generator=generator), dim=1) * 0.5 + torch.tensor(c) for c in CENTRES]
    points = torch.cat([floor, *balls])
    points = points + 0.004 * torch.randn(points.shape, generator=generator)
    owner = torch.cat([torch.full((len(part),), number) for number, part in enumerate([floor, *balls])])
    looks = torch.eye(3)[torch.zeros_like(owner) if alike else owner]
    quaternions = torch.tensor([1.0, 0, 0, 0]).expand(len(points), 4)
    scales, opacities = torch.full((len(points), 3), 0.04), torch.full((len(points),), 0.95)

    def projected(camera: ViewCamera):
        pose = torch.tensor(camera.camera_to_world).view(3, 4)
        numbers = camera.fx, camera.fy, camera.cx, camera.cy
        size = camera.width, camera.height
        return project(points, quaternions, scales, pose, numbers, *size, opacities=opacities)

    def show(camera: ViewCamera, values: torch.Tensor) -> torch.Tensor:
        return rasterize(projected(camera), opacities, values).channels

    def gather(camera: ViewCamera, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return uplift(projected(camera), opacities, values)

    return Cloud(points, looks, looks, CAMERAS, show, gather), owner


def strokes(cloud: Cloud, owner: torch.Tensor, camera: ViewCamera) -> dict[ViewCamera, Seeds | None]:
    """A few pixels in the middle of the first ball, and a line across the floor in front."""
    shown = cloud.show(camera, F.one_hot(owner, 3).float())
    rows, columns = torch.nonzero(shown[..., 1] > 0.9, as_tuple=True)
    positive = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    row, column = int(rows.float().mean()), int(columns.float().mean())
    positive[0, row - 2 : row + 2, column - 4 : column + 4] = True
    negative = torch.zeros_like(positive)
    negative[0, -20:-17, 20:-20] = True
    return {camera: Seeds(positive, negative)}


def looks_of(cloud: Cloud, positive: torch.Tensor, negative: torch.Tensor) -> Appearance:
    none = cloud.features[:0]
    return Appearance(cloud.features[positive[:, 0]][:50], cloud.features[negative[:, 0]][:50], none, none)


@pytest.mark.parametrize("alike", [False, True], ids=["told apart by looks", "told apart by shape alone"])
def test_a_stroke_selects_a_whole_thing_and_nothing_else(alike):
    cloud, owner = two_balls(alike)
    seeds = strokes(cloud, owner, CAMERAS[0])
    positive, negative = marked(cloud, seeds, 1)
    assert positive.any() and negative.any()
    assert (owner[positive[:, 0]] == 1).all() and (owner[negative[:, 0]] == 0).all()
    found = select(cloud, [looks_of(cloud, positive, negative)], positive, negative, [0.5], [0.5])
    assert found.scores.shape == (len(owner), 1) and found.scores.min() >= 0 and found.scores.max() <= 1
    chosen, truth = found.ids == 1, owner == 1
    assert float((chosen & truth).sum() / (chosen | truth).sum()) > (0.9 if alike else 0.95)


def test_a_click_alone_picks_the_thing_and_a_negative_stroke_ends_that():
    cloud, owner = two_balls(alike=True)
    positive, negative = marked(cloud, strokes(cloud, owner, CAMERAS[0]), 1)
    one = F.one_hot(positive[:, 0].nonzero()[0], len(owner))[0].bool()[:, None]
    none, looks = torch.zeros_like(one), looks_of(cloud, one, negative & False)
    chosen = select(cloud, [looks], one, none, [0.5], [0.5]).ids == 1
    assert float((chosen & (owner == 1)).sum() / (chosen | (owner == 1)).sum()) > 0.85
    thing = cloud.things[owner == 1].mode().values
    assert picked(cloud, one[:, 0]) == thing and picked(cloud, none[:, 0]) == 0
    assert picked(cloud, owner > 0) == 0, "on two things"
    assert picked(cloud, owner == 0) == 0, "on the background"


def test_what_looks_alike_but_is_elsewhere_is_not_selected():
    cloud, owner = two_balls(alike=False)
    looks = cloud.features.clone()
    looks[owner == 2] = looks[owner == 1][0]
    cloud = Cloud(cloud.points, looks, looks, cloud.cameras, cloud.show, cloud.gather)
    positive, negative = marked(cloud, strokes(cloud, owner, CAMERAS[0]), 1)
    found = select(cloud, [looks_of(cloud, positive, negative)], positive, negative, [0.5], [0.5])
    assert not (found.ids[owner == 2] == 1).any()
    # Without a stroke, as of words, looks are all there is: both are found.
    nothing = torch.zeros_like(positive)
    found = select(cloud, [looks_of(cloud, positive, negative)], nothing, nothing, [0.5], [0.5])
    assert all((found.ids[owner == ball] == 1).float().mean() > 0.9 for ball in (1, 2))
    assert (found.ids[owner == 0] == 1).float().mean() < 0.05


def test_an_opinion_is_of_what_a_view_shows():
    cloud, owner = two_balls(alike=True)
    camera = CAMERAS[0]
    mask = (cloud.show(camera, F.one_hot(owner, 3).float())[..., 1] > 0.5).float()
    told = opinion(cloud, camera, mask[None], trust=0.75)
    of_node = cloud.nodes.mean(F.one_hot(owner, 3).float())
    seen, ball = told.shown > 0.9, of_node[:, 1] > 0.5
    assert told.doubt == 0.25 and told.scores.shape == (1, len(ball))
    assert told.scores[0, seen & ball].mean() > 0.9 and told.scores[0, seen & ~ball].mean() < 0.05
    # The far side of the ball, and the floor below it.
    behind = ball & (cloud.nodes.points[:, 1] > 0.3) & (cloud.nodes.points[:, 2] < 0.4)
    assert behind.any() and told.shown[behind].mean() < 0.2


@pytest.mark.parametrize("doubt", [0.0, 1.0])
def test_opinions_count_as_much_as_the_surface_is_doubted(doubt):
    cloud, owner = two_balls(alike=True)
    positive, negative = marked(cloud, strokes(cloud, owner, CAMERAS[0]), 1)
    looks = [looks_of(cloud, positive, negative)]
    both = cloud.nodes.mean((owner > 0).float()[:, None]).T
    told = Opinion(both, torch.ones_like(both[0]), doubt)
    plain, found = (
        select(cloud, looks, positive, negative, [0.5], [0.5], opinions).scores[:, 0] for opinions in ((), [told])
    )
    if doubt:
        assert found[owner == 2].mean() > 0.8, "what they say of the other ball is believed"
    else:
        assert torch.equal(found, plain)


def test_nothing_is_in_two_objects():
    cloud, owner = two_balls(alike=False)
    positive = torch.stack([(owner == ball) & (torch.rand(len(owner)) < 0.05) for ball in (1, 2)], dim=1)
    negative = positive.flip(1)
    looks = [looks_of(cloud, positive[:, [n]], negative[:, [n]]) for n in (0, 1)]
    found = select(cloud, looks, positive, negative, [0.5, 0.5], [0.5, 0.5])
    for ball in (1, 2):
        assert (found.ids[owner == ball] == ball).float().mean() > 0.95


def test_many_gaussians_are_few_nodes_also_where_floaters_are_far_out():
    points = torch.rand(20_000, 3).double().numpy()
    points[:5] *= 1e6
    member = cells(points, 1000)
    assert member.shape == (20_000,) and 100 < member.max() + 1 <= 1000
    assert (cells(points[:500], 1000) == range(500)).all()


def test_all_at_one_place_and_one_alone_are_no_problem():
    same = torch.zeros(50, 3)
    assert (cells(same.double().numpy(), 10) < 10).all()
    for count in (1, 2):
        points, one = torch.rand(count, 3), torch.ones(count, 1)
        none = torch.zeros(count, 1, dtype=torch.bool)
        cloud = Cloud(points, one, points, [], lambda _, values: values, lambda _, values: (values, values[:, 0]))
        found = select(cloud, [Appearance(one[:1], one[:0], one[:0], one[:0])], ~none, none, [0.5], [0.5])
        assert (found.ids == 1).all()


def test_parts_that_no_seed_reaches_are_dropped():
    edges = torch.tensor([[0, 1], [1, 2], [3, 4]])
    mask = torch.tensor([True, True, False, True, True])
    seeds = torch.tensor([True, False, False, False, False])
    assert connected(mask, seeds, edges).tolist() == [True, True, False, False, False]
    assert connected(mask, ~mask & seeds, edges).tolist() == mask.tolist()


def test_normals_are_turned_to_where_they_are_seen_from():
    points = torch.cat([torch.rand(200, 2), torch.zeros(200, 1)], dim=1)
    near = torch.cdist(points, points).topk(12, largest=False).indices
    outwards = torch.tensor([0.1, 0.0, -2.0]).expand(200, 3)
    assert torch.allclose(surface_normals(points, near, outwards), torch.tensor([0.0, 0.0, -1.0]), atol=1e-5)
