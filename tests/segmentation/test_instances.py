"""The things of made-up clouds, without strokes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semfield_ns.segmentation.clouds import Nodes, find_nodes
from semfield_ns.segmentation.instances import (
    by_size,
    find_faces,
    find_things,
    merge_regions,
    shares,
    shown_sample,
    without_border,
)
from tests.segmentation.test_clouds import two_balls


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module", params=[False, True], ids=["told apart by looks", "told apart by shape alone"])
def balls(request) -> tuple[Nodes, torch.Tensor]:
    cloud, owner = two_balls(request.param)
    return find_nodes(cloud), owner


def test_things_on_a_floor_are_found_and_the_floor_is_none(balls):
    nodes, owner = balls
    ids = find_things(nodes)
    assert set(ids.tolist()) == {0, 1, 2}
    assert all(max(iou(ids == thing, owner == ball) for thing in (1, 2)) > 0.85 for ball in (1, 2))
    assert (ids == 1).sum() >= (ids == 2).sum()


def test_the_same_cloud_has_the_same_things(balls):
    nodes, _ = balls
    assert torch.equal(find_things(nodes), find_things(replace(nodes)))


def test_things_that_touch_are_divided_in_the_crease():
    cloud, owner = two_balls(alike=True)
    points = cloud.points.clone()
    points[owner == 1, 0] += 0.5
    points[owner == 2, 0] -= 0.5
    hidden = torch.zeros(len(points), dtype=torch.bool)
    for ball, x in ((1, 0.5), (2, -0.5)):
        hidden |= (owner == ball) & ((points - torch.tensor([x, 0.0, 0.5])).norm(dim=1) < 0.5)
    nodes = find_nodes(
        replace(
            cloud, points=points[~hidden], features=cloud.features[~hidden], colors=cloud.colors[~hidden], cameras=[]
        )
    )
    centres = torch.tensor([[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5], [0.5, 0.0, 0.5]])
    outwards = nodes.points - centres[owner[~hidden]]
    outwards[owner[~hidden] == 0] = torch.tensor([0.0, 0.0, 1.0])
    turned = (nodes.normals * outwards).sum(dim=1, keepdim=True) < 0
    ids = find_things(replace(nodes, normals=torch.where(turned, -nodes.normals, nodes.normals)))
    assert all(max(iou(ids == thing, owner[~hidden] == ball) for thing in (1, 2)) > 0.8 for ball in (1, 2))


def test_a_floor_has_the_scene_before_it_and_the_tops_of_things_are_none():
    rng = np.random.default_rng(0)
    floor = np.c_[rng.uniform(-2, 2, (2000, 2)), 0.005 * rng.standard_normal(2000)]
    table = np.c_[rng.uniform(-1, 1, (1500, 2)), np.full(1500, 0.8)]
    points, up = np.concatenate([floor, table]), np.tile([0.0, 0.0, 1.0], (3500, 1))
    (face,) = find_faces(points, up)
    assert face.normal == pytest.approx([0, 0, -1], abs=0.01) and face.offset == pytest.approx(0, abs=0.01)
    assert 0.01 < face.thickness < 0.03, "three times the roughness"
    assert face.height(np.array([[0.0, 0.0, 2.0]])) == pytest.approx([-2], abs=0.05)


def test_regions_merge_by_the_mean_of_their_links():
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [0, 5], [1, 5]])
    region = merge_regions(edges, np.array([0.9, 0.9, 0.01, 0.9, 0.2, 0.02]), 6)
    # 5 is joined to the rest by 0.2 and 0.02, which is not enough together.
    assert len(set(region[:3])) == 1 and region[3] == region[4] and len(set(region.tolist())) == 3
    assert merge_regions(edges[:0], np.zeros(0), 3).tolist() == [0, 1, 2]


def test_a_sample_is_of_what_pictures_show():
    seen = np.r_[np.zeros(500), np.ones(500)]
    assert shown_sample(shares(seen)).min() >= 500 and len(shown_sample(shares(seen))) == 1000
    assert (shares(np.zeros(100)) == 0.01).all()


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_few_gaussians_and_all_at_one_place_are_no_problem(count):
    for points in (torch.rand(count, 3), torch.zeros(count, 3)):
        looks = F.normalize(torch.ones(count, 2), dim=1)
        cloud = replace(two_balls(True)[0], points=points, features=looks, colors=points, cameras=[])
        assert cloud.things.shape == (count,) and cloud.things.dtype == torch.long


def test_what_reaches_the_border_spans_the_scene_or_is_hardly_seen_is_no_thing():
    rng = np.random.default_rng(0)
    inner, wall = rng.uniform(-0.2, 0.2, (100, 3)), rng.uniform((1.05, -0.2, -0.2), (1.3, 0.2, 0.2), (100, 3))
    wide, tiny = rng.uniform(-0.9, 0.9, (100, 3)), rng.uniform(-0.1, 0.1, (100, 3))
    region = np.repeat([0, 1, 2, 3, -1], 100)
    shown = shares(np.repeat([1.0, 1.0, 1.0, 1e-4, 1.0], 100))
    points = np.concatenate([inner, wall, wide, tiny, inner])
    ids = without_border(region, points, shown, np.array([[-1.0] * 3, [1.0] * 3]))
    assert (ids[:100] == 1).all() and not ids[100:].any()


def test_the_largest_thing_is_the_first():
    assert by_size(np.array([0, 1, 2, 2, 3]), np.array([9.0, 1, 1, 1, 5])).tolist() == [0, 3, 2, 2, 1]
