from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.projection import project
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.clustering import kmeans, squared_distances
from semfield_ns.segmentation.components import supported_parts, without_holes
from semfield_ns.segmentation.growing import edge_weights, grow
from semfield_ns.segmentation.matching import nearest, reach, samples, similarity, split
from semfield_ns.segmentation.prompts import Box, Stroke, TextQuery
from semfield_ns.segmentation.regions import find_regions, regions_of
from semfield_ns.segmentation.simulation import simulate_strokes
from tests.segmentation.scene import BallScene, camera


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# --- cameras and prompts


def test_a_camera_goes_to_nerfstudio_and_back_bit_for_bit():
    original = ViewCamera(
        tuple(torch.randn(12).tolist()), 51.3, 49.7, 31.9, 24.2, 64, 48, 1 / 3, (0.1, 0, 0, 0, 0.01, 0)
    )
    once = ViewCamera.of(original.cameras())
    assert ViewCamera.of(once.cameras()) == once
    assert once.fx == pytest.approx(51.3)


def test_a_camera_sees_its_own_rays_where_they_came_from():
    view = camera(0.3, 12)
    _, points = BallScene().labels(view)
    pixels, depth, visible = view.project(points)
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    torch.testing.assert_close(pixels, torch.stack([columns, rows], dim=-1) + 0.5, atol=1e-3, rtol=0)
    assert visible.all() and (depth > 0).all()
    pose = torch.tensor(view.camera_to_world).view(3, 4)
    expected, _ = project(points[5, 7], pose, torch.tensor([view.fx, view.fy, view.cx, view.cy]))
    torch.testing.assert_close(pixels[5, 7], expected)


def test_a_scaled_camera_sees_the_same_at_another_resolution():
    view = camera(0.3, 12)
    small = view.scaled(0.5)
    assert (small.width, small.height) == (40, 30)
    _, points = BallScene().labels(view)
    torch.testing.assert_close(small.project(points)[0], view.project(points)[0] / 2, atol=1e-4, rtol=0)


def test_strokes_cover_their_line_at_any_resolution():
    view = camera()
    stroke = Stroke(view, ((10.5, 20.5), (30.5, 20.5)), width=1)
    covered = stroke.pixels(60, 80)
    assert covered.sum() == 21 and covered[20, 10:31].all()
    assert stroke.pixels(120, 160)[40:44, 21:60].any(dim=0).all()
    dot = Stroke(view, ((79.9, 59.9),), width=0.5)
    assert dot.pixels(60, 80).nonzero().tolist() == [[59, 79]]
    assert not Stroke(view, ((-9.0, -9.0),)).pixels(60, 80).any()


def test_a_box_covers_its_inside_whichever_corners_are_given():
    view = camera()
    box = Box(view, ((30.0, 40.0), (10.0, 20.0)))
    covered = box.pixels(60, 80)
    assert covered[20:40, 10:30].all() and covered.sum() == 400
    assert Box(view, ((-5.0, -5.0), (200.0, 200.0))).pixels(60, 80).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Stroke(camera(), ()),
        lambda: Stroke(camera(), ((float("nan"), 1.0),)),
        lambda: Stroke(camera(), ((1.0, 1.0),), width=0),
        lambda: Box(camera(), ((1.0, 1.0),)),  # type: ignore[arg-type]
        lambda: TextQuery("  "),
        lambda: ViewCamera((1.0,) * 11, 1.0, 1.0, 0.0, 0.0, 4, 4),
        lambda: ViewCamera((1.0,) * 12, 0.0, 1.0, 0.0, 0.0, 4, 4),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(SemfieldError):
        wrong()


# --- clustering and matching


def test_kmeans_finds_separate_clusters_and_repeats_itself():
    centres = 10 * torch.eye(4)
    features = (centres[:, None] + 0.1 * torch.randn(4, 50, 4)).reshape(-1, 4)
    found = kmeans(features, 4, seed=3)
    assert squared_distances(centres, found).amin(dim=1).max() < 0.1
    assert torch.equal(found, kmeans(features, 4, seed=3))


def test_kmeans_ends_where_lloyd_ends():
    features = unit(300, 8)
    found = kmeans(features, 7, seed=0, iterations=200)
    nearest = squared_distances(features, found).argmin(dim=1)
    for cluster in range(7):
        torch.testing.assert_close(found[cluster], features[nearest == cluster].mean(dim=0))


def test_kmeans_of_few_or_equal_features():
    few = unit(3, 5)
    assert torch.equal(kmeans(few, 11), few)
    same = few[:1].expand(40, 5)
    torch.testing.assert_close(kmeans(same, 3), few[:1].expand(3, 5))


def test_distances_are_those_of_cdist():
    first, second = unit(20, 6), unit(9, 6, seed=1)
    torch.testing.assert_close(squared_distances(first, second), torch.cdist(first, second).square(), atol=1e-5, rtol=0)


def test_similarity_is_the_ratio_of_distances_to_both_sides():
    positive, negative = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    angle = torch.tensor([0.1, 0.3, 0.6, 1.2, 1.5])
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    near, far = ((features - side).norm(dim=1) for side in (positive, negative))
    found = similarity(features, positive, negative, sharpness=2.0)
    torch.testing.assert_close(found, far.square() / (near.square() + far.square()), atol=1e-5, rtol=0)
    # What is beyond reach is background, also without negative strokes.
    assert torch.equal(similarity(features, positive, negative[:0], reach=0.5) > 0.5, near < 0.5)
    assert torch.equal(similarity(features, positive, negative, reach=0.2) > 0.5, near < 0.2)
    assert not similarity(features, positive[:0], negative).any()


def test_the_unit_of_features_does_not_matter():
    features, positive, negative = unit(200, 8), unit(30, 8, seed=1), unit(20, 8, seed=2)
    first, second = (
        similarity(s * features, s * positive, s * negative, reach(s * features, s * positive)) for s in (1, 10)
    )
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_reach_divides_a_scene_into_near_and_far():
    close, away = unit(1, 16) + 0.05 * unit(300, 16, seed=1), unit(700, 16, seed=2)
    found = reach(torch.cat([close, away]), close[:40])
    assert float(nearest(close, close[:40]).max()) < found < float(nearest(away, close[:40]).quantile(0.05))
    assert split(torch.full((5,), 3.0)) == pytest.approx(3.0, abs=1e-6)


def test_the_nearest_few_count():
    known = torch.tensor([[0.0], [1.0], [2.0], [30.0], [40.0], [50.0]])
    assert nearest(torch.zeros(1, 1), known, count=3) == pytest.approx(1.0)
    assert nearest(torch.zeros(1, 1), known[:2]) == pytest.approx(0.5)
    assert torch.isinf(nearest(torch.zeros(1, 1), known[:0])).all()
    assert len(samples(known, 4)) == 3 and len(samples(known)) == 6


# --- regions, growing, components


def test_regions_are_a_partition_whose_neighbours_touch():
    coarse = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    image = F.interpolate(coarse, (40, 50), mode="bilinear")[0].permute(1, 2, 0)
    regions = find_regions(image)
    count = len(regions.size)
    assert count > 20
    assert regions.labels.unique().tolist() == list(range(count))
    assert regions.size.sum() == 2000
    assert torch.equal(regions.labels.flatten()[regions.samples], torch.arange(count)[:, None].expand(-1, 4))
    touching = set()
    labels = regions.labels
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        touching |= {tuple(sorted(pair)) for pair in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)}
    touching = {pair for pair in touching if pair[0] != pair[1]}
    assert {tuple(edge) for edge in regions.edges.tolist()} == touching
    torch.testing.assert_close(regions.mean(image)[3], image[labels == 3].mean(dim=0))


def test_borders_count_shared_pixels():
    labels = torch.tensor([[0, 0, 1], [0, 2, 1], [2, 2, 1]])
    regions = regions_of(labels)
    found = dict(zip(map(tuple, regions.edges.tolist()), regions.border.tolist(), strict=True))
    assert found == {(0, 1): 1, (0, 2): 3, (1, 2): 2}


def test_growing_minimises_its_energy():
    generator = torch.Generator().manual_seed(0)
    score, confidence = torch.rand(2, 12, generator=generator), torch.rand(2, 12, generator=generator) + 0.1
    edges = torch.tensor([(i, j) for i in range(12) for j in range(i + 1, 12) if (i + j) % 3 == 0])
    weights = torch.rand(len(edges), generator=generator)

    def energy(x: torch.Tensor) -> torch.Tensor:
        smooth = (x[:, edges[:, 0]] - x[:, edges[:, 1]]).square() * weights
        return (confidence * (x - score).square()).sum() + 2.0 * smooth.sum()

    found = grow(score, confidence, edges, weights, 2.0).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(found), found)
    assert gradient.abs().max() < 1e-5
    assert score.min() <= found.min() and found.max() <= score.max()
    assert torch.equal(grow(score, confidence, edges, weights, 0.0), score)


def test_a_sure_place_spreads_until_a_border_that_lets_nothing_through():
    score, confidence = torch.full((1, 6), 0.4), torch.full((1, 6), 0.01)
    score[0, 0], confidence[0, 0] = 1.0, 1000.0
    edges = torch.stack([torch.arange(5), torch.arange(1, 6)], dim=1)
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    found = grow(score, confidence, edges, weights, 1.0)[0]
    assert (found[:3] > 0.9).all()
    torch.testing.assert_close(found[3:], score[0, 3:])


def test_growing_where_nothing_is_seen():
    # Without a surface, every pixel is at the camera.
    view = replace(BallScene().render_view(camera()), points=torch.zeros(60, 80, 3))
    weights = edge_weights(view)
    score = torch.linspace(0, 1, len(view.region_features))[None]
    grown = grow(score, torch.ones_like(score), view.regions.edges, weights, 1.0)
    assert torch.isfinite(weights).all() and torch.isfinite(grown).all()


def test_supported_parts_are_kept():
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[0:2, 0:2] = mask[4:6, 4:8] = mask[3, 3] = True  # the last touches the second at a corner
    support = torch.zeros_like(mask)
    support[3, 3] = True
    kept = supported_parts(mask, support)
    assert kept.sum() == 9 and not kept[:2].any()
    assert torch.equal(supported_parts(mask, torch.zeros_like(mask)), mask)
    assert torch.equal(supported_parts(mask, torch.zeros_like(mask), min_pixels=5), kept)
    assert not supported_parts(torch.zeros_like(mask), support).any()


def test_small_holes_are_closed_and_bays_are_not():
    mask = torch.ones(9, 12, dtype=torch.bool)
    mask[2, 2] = mask[5:8, 5:9] = mask[0, 10] = False
    closed = without_holes(mask, 2)
    assert closed[2, 2] and not closed[5:8, 5:9].any() and not closed[0, 10]
    assert without_holes(mask, 12)[5:8, 5:9].all()
    assert not without_holes(torch.zeros_like(mask), 500).any()


# --- simulated strokes


def test_simulated_strokes_are_where_they_should_be_and_repeat_themselves():
    label, _ = BallScene().labels(camera())
    truth = (label == 1).numpy()
    strokes = simulate_strokes(truth, camera(), seed=4)
    assert [stroke.positive for stroke in strokes] == [True, False]
    for stroke in strokes:
        covered = Stroke(stroke.camera, stroke.points, width=1).pixels(60, 80).numpy()
        assert (truth[covered] == stroke.positive).all()
    assert strokes == simulate_strokes(truth, camera(), seed=4)
    assert strokes != simulate_strokes(truth, camera(), seed=5)


def test_no_stroke_without_an_object():
    with pytest.raises(SemfieldError, match="the true mask is empty"):
        simulate_strokes(np.zeros((10, 10), dtype=bool), camera(), seed=0)
