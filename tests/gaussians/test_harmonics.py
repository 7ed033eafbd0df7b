import numpy as np
import pytest
import torch
from scipy.special import lpmv

from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.harmonics import coefficients_of, colours, harmonics


def directions(num: int = 20) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(num, 3, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )


def test_against_legendre_functions():
    towards = directions()
    x, y, z = towards.numpy().T
    angle = np.arctan2(y, x)
    expected = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            m = abs(order)
            ratio = np.prod(np.arange(degree - m + 1, degree + m + 1, dtype=float))
            size = np.sqrt((2 * degree + 1) / (4 * np.pi) / ratio)
            # scipy's functions have the sign (-1)^m, as the basis of 3-D Gaussian splatting has.
            wave = 1.0 if m == 0 else np.sqrt(2) * (np.cos(m * angle) if order > 0 else np.sin(m * angle))
            expected.append(size * lpmv(m, degree, z) * wave)
    np.testing.assert_allclose(harmonics(towards, 3).numpy(), np.stack(expected, -1), atol=1e-12)


def test_a_colour_is_the_same_from_every_side():
    colour = torch.rand(20, 3, generator=torch.Generator().manual_seed(1)).double()
    coefficients = torch.zeros(20, 16, 3).double()
    coefficients[:, 0] = coefficients_of(colour)
    torch.testing.assert_close(colours(coefficients, directions(), torch.eye(4).double()), colour)
    torch.testing.assert_close(colours(coefficients[:, :1], directions(), torch.eye(4).double()), colour)


def test_a_lower_degree_ignores_the_higher_coefficients():
    coefficients = 0.1 * torch.randn(20, 16, 3, generator=torch.Generator().manual_seed(2)).double()
    found = colours(coefficients, directions(), torch.eye(4).double(), degree=1)
    torch.testing.assert_close(found, colours(coefficients[:, :4], directions(), torch.eye(4).double()))


def test_gradients():
    coefficients = (0.1 * torch.randn(4, 16, 2, generator=torch.Generator().manual_seed(3))).double().requires_grad_()
    means = (directions(4) * 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, m: colours(c, m, torch.eye(4).double()), (coefficients, means))


def test_what_does_not_exist_is_said():
    with pytest.raises(SemfieldError, match="degree 4"):
        harmonics(directions(), 4)
    with pytest.raises(SemfieldError, match="5 coefficients"):
        colours(torch.zeros(20, 5, 3), directions(), torch.eye(4))
    with pytest.raises(SemfieldError, match="degree 2"):
        colours(torch.zeros(20, 4, 3), directions(), torch.eye(4), degree=2)
