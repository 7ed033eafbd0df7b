import numpy as np
import pytest
import torch
from nerfstudio.utils.colormaps import ColormapOptions, apply_colormap

from semfield_ns.rendering.palette import STANDING_OUT, colorize_labels, default_palette, hex_color, object_color


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


# Machado, Oliveira and Fernandes 2009: what people without green and without red receptors see, in linear RGB.
NO_GREEN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
NO_RED = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]


@pytest.mark.parametrize("eye", [np.eye(3), NO_GREEN, NO_RED])
def test_the_first_objects_are_told_apart_by_everybody(eye):
    from skimage.color import rgb2lab

    colors = np.array([object_color(number) for number in range(1, len(STANDING_OUT) + 1)]) / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.transpose(eye)).clip(0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[~np.eye(len(lab), dtype=bool)]
    assert apart.min() > 30


def test_further_objects_have_colors_of_their_own():
    assert len({object_color(number) for number in range(1, 256)}) == 255
