import pytest
import torch
from nerfstudio.utils.colormaps import apply_colormap

from semfield_ns.rendering.features import MAX_SAMPLES, FixedPCA


def samples(count=500, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator) * torch.linspace(0.1, 3, dim) + 5


def test_the_axis_of_most_variance_comes_first():
    features = torch.zeros(101, 5)
    features[:, 3] = torch.linspace(-1, 1, 101)
    features[:, 1] = 0.1 * torch.linspace(-1, 1, 101) ** 2
    pca = FixedPCA(5).fit(features)
    torch.testing.assert_close(pca.basis[:, 0].abs().argmax(), torch.tensor(3))
    colors = pca(features)
    assert colors[0, 0] == 0 and colors[-1, 0] == 1
    torch.testing.assert_close(colors[50, 0], torch.tensor(0.5))


def test_fit_is_the_same_twice_and_whatever_the_global_seed():
    features = samples(MAX_SAMPLES + 1000, 4)
    torch.manual_seed(0)
    first = FixedPCA(4).fit(features, seed=3)
    torch.manual_seed(1)
    second = FixedPCA(4).fit(features, seed=3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_colors_do_not_depend_on_the_rest_of_the_picture():
    pca = FixedPCA(8).fit(samples())
    picture = samples(64, seed=2).reshape(8, 8, 8)
    torch.testing.assert_close(pca(picture)[:4], pca(picture[:4]))


def test_state_dict_round_trip():
    pca = FixedPCA(8).fit(samples())
    other = FixedPCA(8)
    other.load_state_dict(pca.state_dict())
    assert torch.equal(other(samples(seed=1)), pca(samples(seed=1)))


@pytest.mark.parametrize("dim", [1, 2, 3, 64])
def test_output_contract(dim):
    pca = FixedPCA(dim)
    features = samples(200, dim) if dim > 1 else torch.linspace(0, 1, 200)[:, None]
    for module in (pca, pca.fit(features)):
        colors = module(features.reshape(10, 20, dim))
        assert colors.shape == (10, 20, 3) and colors.dtype == torch.float32
        assert colors.isfinite().all() and colors.min() >= 0 and colors.max() <= 1
        assert torch.equal(apply_colormap(colors), colors)


def test_constant_and_broken_features():
    pca = FixedPCA(4).fit(torch.ones(10, 4))
    assert torch.equal(pca(torch.ones(2, 4)), torch.full((2, 3), 0.5))
    features = samples(50, 4)
    features[0] = torch.nan
    pca = FixedPCA(4).fit(features)
    assert pca(features).isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match="4 channels"):
        FixedPCA(4).fit(torch.ones(10, 5))
    with pytest.raises(ValueError, match="finite"):
        FixedPCA(4).fit(torch.full((2, 4), torch.nan))
