"""Image embeddings of SAM and SAM 2, the grids that their mask decoders read."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.teachers.pretrained import PretrainedTeacher, resize

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SamTeacher(PretrainedTeacher):
    """SAM sees a square: the picture with its longer side at the square's, and nothing beside it, which is cut away.

    Arguments and errors are those of `PretrainedTeacher`.
    """

    model_types = ("sam",)

    def __init__(self, kind: str, source: str, device: torch.device | str = "cpu") -> None:
        super().__init__(kind, source, device)
        self.dim, self.stride = self.setting("output_channels"), self.setting("patch_size")
        self.input_size = self.setting("image_size")

    def load(self) -> "PreTrainedModel":
        """Encoder and decoder."""
        from transformers import SamModel

        return self.load_as(SamModel)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """The cells of the square that the picture fills."""
        cells, longest = self.input_size // self.stride, max(height, width)
        rows, columns = (max(round(cells * side / longest), 1) for side in (height, width))
        return rows, columns

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        rows, columns = self.grid_size(*images.shape[1:3])
        x = resize(self.normalised(images), (rows * self.stride, columns * self.stride))
        x = F.pad(x, (0, self.input_size - x.shape[3], 0, self.input_size - x.shape[2]))
        embedding = self.model.get_image_embeddings(x.to(self.dtype))
        return embedding[:, :, :rows, :columns].permute(0, 2, 3, 1).float().cpu()


class Sam2Teacher(PretrainedTeacher):
    """SAM 2 stretches the picture to a square; its coarsest map, as the decoder gets it, covers the whole picture.

    Arguments and errors are those of `PretrainedTeacher`.
    """

    model_types = ("sam2", "sam2_video")
    stride = 16

    def __init__(self, kind: str, source: str, device: torch.device | str = "cpu") -> None:
        super().__init__(kind, source, device)
        self.dim = self.setting("fpn_hidden_size")
        backbone = (self.config.get("vision_config") or {}).get("backbone_config") or {}
        self.input_size = (backbone.get("image_size") or [1024])[0]

    def load(self) -> "PreTrainedModel":
        """Encoder and decoder."""
        from transformers import Sam2Model

        return self.load_as(Sam2Model)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Those of the square, whatever the picture's size."""
        return self.input_size // self.stride, self.input_size // self.stride

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        x = resize(self.normalised(images), (self.input_size, self.input_size))
        embedding = self.model.get_image_embeddings(x.to(self.dtype))[-1]
        return embedding.permute(0, 2, 3, 1).float().cpu()
