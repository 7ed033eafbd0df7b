"""Projection, warps and trajectories: everything in one coordinate system."""

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from semfield_ns.rendering.projection import gather_bilinear, project
from semfield_ns.semantic_flow.fields.warp import ContractionWarp, PerspectiveWarp, build_warp
from semfield_ns.semantic_flow.flow_attention.tracing import neighbouring_steps, trace, trace_neighbours
from semfield_ns.semantic_flow.frames import SourceFrames
from tests.semantic_flow.conftest import FRAMES, HEIGHT, WIDTH, make_cameras, make_model


def random_cameras(distortion: torch.Tensor | None = None) -> Cameras:
    """Five cameras with random small rotations."""
    torch.manual_seed(1)
    rotation = torch.linalg.qr(torch.eye(3) + 0.2 * torch.randn(FRAMES, 3, 3))[0]
    rotation = rotation * torch.sign(torch.diagonal(rotation, dim1=1, dim2=2))[:, None]
    poses = torch.cat([rotation, torch.randn(FRAMES, 3, 1)], dim=-1)
    return Cameras(
        poses,
        fx=14.0,
        fy=15.0,
        cx=7.5,
        cy=6.5,
        width=WIDTH,
        height=HEIGHT,
        camera_type=CameraType.PERSPECTIVE,
        times=torch.linspace(0, 1, FRAMES)[:, None],
        distortion_params=distortion,
    )


@pytest.mark.parametrize("distortion", [None, torch.tensor([0.05, 0.01, 0.0, 0.0, 0.01, -0.02])])
def test_a_point_on_a_ray_projects_to_its_pixel_in_every_frame(distortion):
    cameras = random_cameras(None if distortion is None else distortion.repeat(FRAMES, 1))
    frames = SourceFrames(cameras, torch.zeros(FRAMES, 2, 2, 1))
    coords = torch.rand(FRAMES, 2) * torch.tensor([HEIGHT, WIDTH])
    for step in (-1, 0, 1):
        camera = (torch.arange(FRAMES) + step).clamp(0, FRAMES - 1)
        bundle = cameras.generate_rays(camera_indices=camera[:, None], coords=coords)
        points = bundle.origins + bundle.directions * 3.0
        pixels, depth = frames.project(points, camera)
        assert torch.allclose(pixels, coords.flip(-1), atol=2e-3)
        assert torch.allclose(depth * bundle.metadata["directions_norm"][:, 0], torch.full_like(depth, 3.0), atol=1e-4)


def test_projection_marks_points_behind_the_camera():
    pose = torch.eye(4)[:3]
    _, depth = project(torch.tensor([0.0, 0.0, 2.0]), pose, torch.tensor([10.0, 10.0, 5.0, 5.0]))
    assert depth < 0


def test_gather_agrees_with_grid_sample():
    torch.manual_seed(0)
    table = torch.randn(3, 5, 7, 4)
    index = torch.randint(3, (50,))
    xy = torch.rand(50, 2) * torch.tensor([8.0, 6.0]) - 1.0
    ours = gather_bilinear(table, index, xy)
    normal = (xy + 0.5) / torch.tensor([7.0, 5.0]) * 2 - 1
    for i in range(50):
        grid = table[index[i]].permute(2, 0, 1)[None]
        theirs = torch.nn.functional.grid_sample(
            grid, normal[i].reshape(1, 1, 1, 2), align_corners=False, padding_mode="border"
        )
        assert torch.allclose(ours[i], theirs.reshape(-1), atol=1e-5)


@pytest.mark.parametrize("kind", ["perspective", "contraction"])
def test_warp_round_trip(kind):
    cameras = make_cameras()
    warp = build_warp(kind, cameras, near=1.0)
    assert isinstance(warp, PerspectiveWarp if kind == "perspective" else ContractionWarp)
    bundle = cameras.generate_rays(camera_indices=torch.arange(FRAMES)[:, None], coords=torch.rand(FRAMES, 2) * 12)
    for distance in (1.2, 3.0, 50.0):
        points = bundle.origins + bundle.directions * distance
        cube = warp(points)
        assert cube.abs().max() <= 1.0 + 1e-5
        assert torch.allclose(warp.inverse(cube), points, rtol=1e-3, atol=1e-3 * distance)


def test_auto_warp_contracts_cameras_that_look_around():
    angle = torch.linspace(0, 2 * torch.pi, FRAMES + 1)[:-1]
    poses = torch.zeros(FRAMES, 3, 4)
    poses[:, 0, 0] = poses[:, 2, 2] = torch.cos(angle)
    poses[:, 0, 2], poses[:, 2, 0] = torch.sin(angle), -torch.sin(angle)
    poses[:, 1, 1] = 1
    cameras = Cameras(poses, 14.0, 14.0, 8.0, 6.0, WIDTH, HEIGHT)
    assert isinstance(build_warp("auto", cameras, 1.0), ContractionWarp)
    assert isinstance(build_warp("auto", make_cameras(), 1.0), PerspectiveWarp)


def test_zero_velocity_gives_zero_displacement_exactly():
    points = torch.randn(7, 3, 3)
    still = trace(points, torch.zeros(7, 1, 1), 1.0, lambda x, t: torch.zeros_like(x))
    assert torch.equal(still, points)


def test_constant_velocity_traced_there_and_back_returns():
    points, time = torch.randn(7, 3, 3), torch.full((7, 1, 1), 2.0)
    velocity = torch.tensor([0.3, -0.2, 0.1])

    def field(x, t):
        return velocity.expand_as(x)

    there = trace(points, time, 1.0, field)
    assert torch.allclose(there, points + velocity, atol=1e-6)
    assert torch.allclose(trace(there, time + 1, -1.0, field), points, atol=1e-6)


def test_tracing_sees_the_time():
    points, time = torch.zeros(1, 1, 3), torch.zeros(1, 1, 1)
    end = trace(points, time, 1.0, lambda x, t: t.expand_as(x), substeps=2)
    assert torch.allclose(end, torch.full_like(end, 0.25))


def test_missing_neighbours_repeat_the_nearest_frame():
    steps = neighbouring_steps(torch.tensor([[0.0], [2.0], [4.0]]), 5)
    assert steps.tolist() == [[0, 1, 0], [1, 3, 2], [3, 4, 4]]
    velocity = make_model().branches.flow.velocity
    points, time = torch.randn(2, 3, 3), torch.tensor([[0.0], [4.0]])
    trajectory = trace_neighbours(points, time, velocity, 5)
    assert torch.equal(trajectory.before[0], points[0])
    assert torch.equal(trajectory.after[1], points[1])


def test_features_at_traced_points_come_from_the_pixel_they_move_to():
    """A point that moves by a known velocity gathers, at t - 1 and t + 1, the feature of the pixel that shows it."""
    cameras = make_cameras()
    rows, columns = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    features = torch.stack([columns, rows], dim=-1).expand(FRAMES, HEIGHT, WIDTH, 2) * 1.0
    features = torch.cat([features, torch.arange(FRAMES)[:, None, None, None].expand(FRAMES, HEIGHT, WIDTH, 1)], dim=-1)
    frames = SourceFrames(cameras, features)
    velocity = torch.tensor([0.1, 0.05, -0.1])
    point = torch.tensor([[[0.1, -0.2, -3.0]]])
    for step in (1, 2, 3):
        for offset in (-1, 0, 1):
            moved = trace(point, torch.full((1, 1, 1), float(step)), float(offset), lambda x, t: velocity.expand_as(x))
            index = torch.full((1, 1), step + offset)
            found, visible = frames.gather(moved, index)
            x, y, z = (point[0, 0] + offset * velocity).tolist()
            camera_x = float(cameras.camera_to_worlds[step + offset, 0, 3])
            expected = [14 * (x - camera_x) / -z + WIDTH / 2, HEIGHT / 2 - 14 * y / -z, step + offset]
            assert visible.item() == 1
            assert torch.allclose(found[0, 0], torch.tensor(expected), atol=1e-3)


def test_times_map_to_frames_linearly_between_uneven_frames():
    cameras = make_cameras()
    cameras.times = torch.tensor([[0.0], [0.1], [0.5], [0.6], [1.0]])
    frames = SourceFrames(cameras, torch.zeros(FRAMES, 2, 2, 1))
    found = frames.to_frames(torch.tensor([[0.0], [0.05], [0.3], [1.0], [2.0]]))
    assert torch.allclose(found[:, 0], torch.tensor([0.0, 0.5, 1.5, 4.0, 4.0]), atol=1e-5)


def test_a_view_without_time_gets_that_of_the_nearest_camera():
    frames = SourceFrames(make_cameras(), torch.zeros(FRAMES, 2, 2, 1))
    pose = torch.eye(4)[:3].clone()
    pose[0, 3] = 0.1
    assert torch.allclose(frames.time_near(pose), torch.tensor([0.625]), atol=1e-5)


def test_covered_points_are_looked_up_where_they_are_seen():
    moving = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    moving[1:3, :, : WIDTH // 2] = True
    frames = SourceFrames(make_cameras(), torch.zeros(FRAMES, 2, 2, 1), moving=moving)
    step = torch.tensor([0, 1, 2, 2])
    # Far away, so that each is on the same side in all frames; the last one on the side that nothing covers.
    points = torch.tensor([[-20.0, 0, -90], [-20, 0, -90], [-20, 0, -90], [20, 0, -90]])
    assert frames.unobstructed(points, step).tolist() == [0, 0, 3, 2]
    moving[:, :, : WIDTH // 2] = True
    frames = SourceFrames(make_cameras(), torch.zeros(FRAMES, 2, 2, 1), moving=moving)
    assert frames.unobstructed(points, step).tolist() == step.tolist()
    moving = torch.rand(FRAMES, HEIGHT, WIDTH) < 0.5
    frames = SourceFrames(make_cameras(), torch.zeros(FRAMES, 2, 2, 1), moving=moving)
    many, steps = torch.randn(300, 3) - torch.tensor([0.0, 0, 5]), torch.randint(FRAMES, (300,))
    assert torch.equal(frames.unobstructed(many, steps), frames._uncovered(many, steps))  # as on a GPU
    assert SourceFrames(make_cameras(), torch.zeros(FRAMES, 2, 2, 1)).unobstructed(points, step).tolist() == [
        0,
        1,
        2,
        2,
    ]


def test_a_warp_that_is_loaded_maps_as_the_one_that_was_saved():
    points = torch.randn(20, 3) - torch.tensor([0.0, 0.0, 4.0])
    saved = PerspectiveWarp(torch.eye(4)[:3] + 0.1, (0.5, 0.4), 0.7)
    warp = PerspectiveWarp(torch.eye(4)[:3], (1.0, 1.0), 1.0)
    assert not torch.allclose(warp(points), saved(points))
    warp.load_state_dict(saved.state_dict())
    assert torch.equal(warp(points), saved(points))
