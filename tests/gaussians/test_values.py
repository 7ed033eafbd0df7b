import torch

from semfield_ns.gaussians.values import concatenate, covariances, multiply, rotation_matrices
from tests.gaussians.scenes import NAMES, gaussians


def test_a_quarter_turn():
    turn = torch.tensor([2.0, 0.0, 0.0, 2.0])
    expected = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(rotation_matrices(turn), expected)


def test_products_of_quaternions_are_products_of_rotations():
    a, b = gaussians(2, seed=1).quaternions
    torch.testing.assert_close(rotation_matrices(multiply(a, b)), rotation_matrices(a) @ rotation_matrices(b))


def test_moved_gaussians_have_moved_covariances():
    scene = gaussians(10)
    turns = gaussians(10, seed=3).quaternions
    moved = scene.transformed(rotations=turns, translations=torch.tensor([1.0, 2.0, 3.0]), factors=2.0)
    matrices = rotation_matrices(turns)
    torch.testing.assert_close(
        covariances(moved.quaternions, moved.scales),
        4 * matrices @ covariances(scene.quaternions, scene.scales) @ matrices.transpose(1, 2),
    )
    places = (matrices @ scene.means[..., None])[..., 0] * 2 + torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(moved.means, places)
    assert moved.opacities is scene.opacities and moved.channels is scene.channels


def test_one_turn_for_all_and_a_factor_for_each():
    scene = gaussians(4)
    moved = scene.transformed(rotations=torch.tensor([1.0, 0, 0, 0]).double(), factors=torch.arange(1, 5))
    torch.testing.assert_close(moved.scales, scene.scales * torch.arange(1, 5)[:, None])
    torch.testing.assert_close(moved.quaternions, scene.quaternions)


def test_parts_that_were_chosen_and_put_together_are_the_whole():
    scene = gaussians(20)
    mask = scene.opacities > 0.5
    both = concatenate([scene.select(mask), scene.select((~mask).nonzero()[:, 0])])
    assert len(both) == 20
    order = torch.cat([mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]])
    for name in NAMES:
        assert torch.equal(getattr(both, name), getattr(scene, name)[order])
    assert scene.with_channels(scene.channels[:, :2]).channels.shape == (20, 2)
