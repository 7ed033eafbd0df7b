"""The image encoder: a truncated ResNet-34 with a small decoder, one feature map a source image.

Parameters are named as in the official code (IBRNet's ResUNet), so that its checkpoints load by name.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semfield_ns.errors import SemfieldError

MIN_SIDE = 17
"""px; the deepest features have a sixteenth of the picture's size"""


def _conv(inner: int, outer: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, kernel, stride, (kernel - 1) // 2, bias=bias, padding_mode="reflect")


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inner, outer, 3, stride), _norm(outer)
        self.conv2, self.bn2 = _conv(outer, outer, 3), _norm(outer)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), _norm(outer))

    def forward(self, x: Float[Tensor, "V inner H W"]) -> Float[Tensor, "V outer h w"]:
        """The block's output, rectified."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class DecoderConv(nn.Module):
    """Convolution, InstanceNorm, ELU."""

    def __init__(self, inner: int, outer: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv, self.bn = _conv(inner, outer, kernel, bias=True), _norm(outer)

    def forward(self, x: Float[Tensor, "V inner h w"]) -> Float[Tensor, "V outer h w"]:
        """Same resolution, other channels."""
        return F.elu(self.bn(self.conv(x)), inplace=True)


class UpConv(nn.Module):
    """Bilinear up-sampling by 2, then a `DecoderConv`."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = DecoderConv(inner, outer)

    def forward(self, x: Float[Tensor, "V inner h w"]) -> Float[Tensor, "V outer h2 w2"]:
        """Twice the resolution."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class ImageEncoder(nn.Module):
    """A feature map for every source image, at about a quarter of its resolution.

    Images are RGB in [0, 1] as they are: no ImageNet statistics. 378x504 pixels give 96x128 cells; sizes that 16 does
    not divide are padded on the way, so a map may reach a little beyond its image (as in the official code).

    Args:
        out_dim: channels of the map.
        width: channels of the first stage; the next two have twice and four times as many.
        blocks: residual blocks of the three stages.
    """

    def __init__(self, out_dim: int = 32, width: int = 64, blocks: Sequence[int] = (3, 4, 6)) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.conv1, self.bn1 = _conv(3, width, 7, 2), _norm(width)
        self.layer1 = _stage(width, width, blocks[0])
        self.layer2 = _stage(width, 2 * width, blocks[1])
        self.layer3 = _stage(2 * width, 4 * width, blocks[2])
        self.upconv3, self.iconv3 = UpConv(4 * width, 2 * width), DecoderConv(4 * width, 2 * width)
        self.upconv2, self.iconv2 = UpConv(2 * width, width), DecoderConv(2 * width, out_dim)
        self.out_conv = nn.Conv2d(out_dim, out_dim, 1)

    def forward(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V out_dim h w"]:
        """Feature maps of images in [0, 1].

        Raises:
            SemfieldError: the images are so small that the deepest features would be a single cell, which has no norm.
        """
        height, width = images.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise SemfieldError(
                f"A source picture of {width}x{height} px is too small for gsn: each side needs at least {MIN_SIDE} px."
            )
        first = self.layer1(F.relu(self.bn1(self.conv1(images)), inplace=True))
        second = self.layer2(first)
        x = self.iconv3(_join(self.upconv3(self.layer3(second)), second))
        x = self.iconv2(_join(self.upconv2(x), first))
        return self.out_conv(x)


def _stage(inner: int, outer: int, count: int) -> nn.Sequential:
    blocks = [ResidualBlock(inner if i == 0 else outer, outer, 2 if i == 0 else 1) for i in range(count)]
    return nn.Sequential(*blocks)


def _join(x: Float[Tensor, "V a h w"], skip: Float[Tensor, "V b h2 w2"]) -> Float[Tensor, "V c h w"]:
    """Channels of both; the skip is padded by zeros to the size of x, which may be a cell larger."""
    dy, dx = x.shape[2] - skip.shape[2], x.shape[3] - skip.shape[3]
    return torch.cat([x, F.pad(skip, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))], dim=1)
