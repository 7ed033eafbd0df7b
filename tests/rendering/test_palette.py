import numpy as np
import pytest
import torch
from nerfstudio.utils.colormaps import ColormapOptions, apply_colormap

from semfield_ns.rendering.palette import colorize_labels, default_palette, hex_color


def test_default_palette_is_distinct_and_repeatable():
    palette = default_palette(256)
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == 256
    assert palette.sum(axis=1).min() > 0
    np.testing.assert_array_equal(default_palette(10), palette[:10])
    assert default_palette(0).shape == (0, 3)


def test_labels_come_back_from_their_colors():
    palette = default_palette(11)
    labels = torch.randint(0, 11, (7, 9), generator=torch.Generator().manual_seed(0))
    colors = colorize_labels(labels, palette)
    distances = (colors[..., None, :] - torch.as_tensor(palette) / 255.0).norm(dim=-1)
    assert torch.equal(distances.argmin(dim=-1), labels)
    assert distances.min(dim=-1).values.max() == 0


@pytest.mark.parametrize(
    "colors", [np.array([[255, 0, 51], [0, 255, 0]], np.uint8), torch.tensor([[1, 0, 0.2], [0, 1, 0]])]
)
def test_values_by_hand(colors):
    painted = colorize_labels(torch.tensor([[0, 1], [-1, -7]]), colors)
    expected = torch.tensor([[[1.0, 0.0, 0.2], [0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    torch.testing.assert_close(painted, expected)
    assert painted.dtype == torch.float32


def test_an_id_beyond_the_palette_is_an_error():
    with pytest.raises(IndexError):
        colorize_labels(torch.tensor([3]), default_palette(3))


@pytest.mark.parametrize("normalize", [False, True])
def test_survives_the_colormap_of_nerfstudio(normalize):
    painted = colorize_labels(torch.tensor([[0, 1, -1]]), default_palette(2))
    assert torch.equal(apply_colormap(painted, ColormapOptions(normalize=normalize)), painted)


def test_hex_color():
    assert hex_color((255, 0, 10)) == "#ff000a"
    assert hex_color(np.array([1, 2, 3], np.uint8)) == "#010203"
