"""Places to look at Gaussians from, where nobody says where the cameras were."""

import math

import pytest
import torch

from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.rasterize import render
from semfield_ns.gaussians.values import Gaussians
from semfield_ns.gaussians.viewpoints import covering, intrinsics, looking, viewpoints

UP = torch.tensor([0.0, 0.0, 1.0])


def gaussians(points: torch.Tensor, scale: float = 0.06) -> Gaussians:
    count = len(points)
    quaternions = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    return Gaussians(
        points, quaternions, torch.full((count, 3), scale), torch.full((count,), 0.95), torch.ones(count, 1)
    )


def ball(count: int = 4000) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=1)


def corner() -> torch.Tensor:
    """A floor and two walls, each 4 by 4, and a ball in the corner: from behind the walls one sees walls only."""
    flat = 4 * torch.rand(3, 3000, 2, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros(3000, 1)
    floor = torch.cat([flat[0], zero], dim=1)
    left, back = torch.cat([zero, flat[1]], dim=1), torch.cat([flat[2][:, :1], zero, flat[2][:, 1:]], dim=1)
    return torch.cat([floor, left, back, 0.5 * ball(1500) + torch.tensor([1.2, 1.2, 0.5])])


def test_a_thing_is_seen_from_all_around_and_upright():
    poses = viewpoints(gaussians(ball()), UP)
    assert len(poses) >= 8
    places = poses[:, :, 3]
    assert (places.norm(dim=1) > 1.05).all(), "none is inside of the ball"
    bearing = torch.atan2(places[:, 1], places[:, 0])
    assert (bearing.cos().min(), bearing.sin().min()) < (-0.5, -0.5) and bearing.cos().max() > 0.5
    assert (poses[:, 2, 1] > 0).all() and torch.allclose(poses[:, 2, 0], torch.zeros(len(poses)), atol=1e-5)
    rotation = poses[:, :, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(len(poses)), atol=1e-5)


def test_rooms_are_seen_from_their_open_side_first():
    poses = viewpoints(gaussians(corner()), UP)
    first = poses[: max(3, len(poses) // 2), :, 3]
    assert (first[:, 0] > 0).all() and (first[:, 1] > 0).all() and (first[:, 2] > 0).all()


def test_floaters_do_not_matter():
    points = corner()
    far = 500 * torch.randn(300, 3, generator=torch.Generator().manual_seed(2))
    poses = viewpoints(gaussians(torch.cat([points, far])), UP)
    assert (poses[:, :, 3] - points.mean(dim=0)).norm(dim=1).max() < 15


def test_pictures_show_the_thing_where_it_is_and_the_right_way_up():
    """A red ball on top of a blue one."""
    points = ball(2000)
    whole = gaussians(torch.cat([points, points + torch.tensor([0.0, 0.0, 2.0])]))
    colors = torch.tensor([[0.0, 0, 1]]).repeat(2000, 1)
    whole = whole.with_channels(torch.cat([colors, colors.flip(1)]))
    for pose in viewpoints(whole, UP)[:6]:
        picture = render(whole, pose, intrinsics(64, 48), 64, 48).channels
        rows = torch.arange(48.0)[:, None]
        red, blue = ((rows * picture[..., i]).sum() / picture[..., i].sum().clamp(min=1e-6) for i in (0, 2))
        if picture[..., 0].sum() > 20 and picture[..., 2].sum() > 20:
            assert red < blue


def test_the_direction_that_is_up_may_be_any():
    for up in (torch.tensor([0.0, -1.0, 0.0]), torch.tensor([3.0, 0.0, 0.0])):
        poses = viewpoints(gaussians(ball()), up, count=4)
        assert ((poses[:, :, 1] @ up) > 0).all()


def test_each_further_place_adds_most_of_what_few_saw():
    seen = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]).bool()
    assert covering(seen, 2) == [0, 2]
    assert sorted(covering(seen, 9)) == [0, 1, 2]


def test_nothing_to_look_at_is_one_sentence():
    with pytest.raises(SemfieldError, match="at one place"):
        viewpoints(gaussians(torch.zeros(10, 3)), UP)
    faint = gaussians(ball())
    faint = Gaussians(faint.means, faint.quaternions, faint.scales, faint.opacities * 1e-3, faint.channels)
    with pytest.raises(SemfieldError, match="No surface is seen"):
        viewpoints(faint, UP)


def test_cameras_look_where_they_should():
    pose = looking(torch.tensor([0.0, -2.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), UP)
    assert torch.allclose(pose[:, :3], torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), atol=1e-6)
    fx, _, cx, _ = intrinsics(200, 100)
    assert math.isclose(2 * math.degrees(math.atan(cx / fx)), 60.0)
