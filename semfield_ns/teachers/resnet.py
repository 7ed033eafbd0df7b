"""Pixel-aligned features of a torchvision ResNet-18, the image backbone of the paper's static branch."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.teachers.base import Teacher

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ResNetTeacher(Teacher):
    """The outputs of conv1, layer1 and layer2 of ResNet-18, brought to one grid and concatenated (64 + 64 + 128).

    Args:
        pretrained: use the ImageNet weights of torchvision, from its cache or the network.
        device: where to run.

    Raises:
        SemfieldError: the weights are neither in the cache nor can they be downloaded.
    """

    stride = 4
    dim = 256

    def __init__(self, pretrained: bool = True, device: str | torch.device = "cpu") -> None:
        from torchvision.models import ResNet18_Weights, resnet18

        weights = ResNet18_Weights.IMAGENET1K_V1 if pretrained else None
        try:
            backbone = resnet18(weights=weights)
        except OSError as error:
            raise SemfieldError(
                f"The weights of ResNet-18 could not be fetched from {ResNet18_Weights.IMAGENET1K_V1.url} ({error}); "
                f"put the file into {torch.hub.get_dir()}/checkpoints or use the 'classical' encoder, which needs no "
                "weights."
            ) from error
        self.name = "resnet18-imagenet1k-v1" if pretrained else "resnet18-random"
        self.device = torch.device(device)
        # eval(): BatchNorm must not see the scene's statistics, or features would depend on the batch.
        self.backbone = backbone.eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        x = images.to(self.device).permute(0, 3, 1, 2)
        x = (x - x.new_tensor(IMAGENET_MEAN)[:, None, None]) / x.new_tensor(IMAGENET_STD)[:, None, None]
        net = self.backbone
        size = (math.ceil(x.shape[2] / self.stride), math.ceil(x.shape[3] / self.stride))
        stem = net.relu(net.bn1(net.conv1(x)))
        first = net.layer1(net.maxpool(stem))
        second = net.layer2(first)
        grids = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in (stem, first, second)]
        return torch.cat(grids, dim=1).permute(0, 2, 3, 1).cpu()
