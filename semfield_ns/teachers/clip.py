"""CLIP: the embedding of every window of a picture, and of words."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.teachers.base import TextTeacher
from semfield_ns.teachers.pretrained import PretrainedTeacher, resize

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ClipTeacher(PretrainedTeacher, TextTeacher):
    """CLIP looks at windows that slide over the picture; the embedding of a window, of unit norm, is one token.

    There are floor((size - window) / stride) + 1 windows along an axis, one in the middle of each cell, or as near to
    it as the edge of the picture allows.

    Args:
        kind: the teacher's name, "clip".
        source: a folder of weights, or an id on the hub.
        device: where it runs.
        window: side of a window, px; of a smaller picture the whole.
        stride: px.

    Raises:
        SemfieldError: the weights are not found, or are not CLIP's.
    """

    model_types = ("clip",)
    default_mean = (0.48145466, 0.4578275, 0.40821073)
    default_std = (0.26862954, 0.26130258, 0.27577711)

    def __init__(
        self, kind: str, source: str, device: torch.device | str = "cpu", window: int = 96, stride: int = 48
    ) -> None:
        super().__init__(kind, source, device)
        self.window, self.stride = window, stride
        self.dim, self.input_size = self.setting("projection_dim"), self.setting("image_size")
        self.name += f"-{window}-{stride}"

    def load(self) -> "PreTrainedModel":
        """Both halves of CLIP."""
        from transformers import CLIPModel

        return self.load_as(CLIPModel)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Whole windows."""
        rows, columns = (max(side - self.window, 0) // self.stride + 1 for side in (height, width))
        return rows, columns

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        height, width = images.shape[1:3]
        rows, columns = self.grid_size(height, width)
        tall, wide = min(self.window, height), min(self.window, width)
        x = self.normalised(images)
        grid = []
        for top in _starts(height, rows, tall):
            windows = [x[:, :, top : top + tall, left : left + wide] for left in _starts(width, columns, wide)]
            batch = resize(torch.cat(windows), (self.input_size, self.input_size)).to(self.dtype)
            grid.append(self._unit(self.model.get_image_features(batch)).unflatten(0, (columns, len(images))))
        return torch.stack(grid).permute(2, 0, 1, 3)

    @cached_property
    def tokenizer(self) -> Any:
        """Splits words."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise SemfieldError(
                f"{self.folder} lacks the files of CLIP's tokenizer: copy tokenizer.json, or vocab.json and "
                "merges.txt, into it."
            ) from error

    @torch.no_grad()
    def encode_text(self, words: list[str]) -> Float[Tensor, "n dim"]:
        tokens = self.tokenizer(words, padding=True, truncation=True, return_tensors="pt").to(self.device)
        return self._unit(
            self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        )

    @staticmethod
    def _unit(output: Any) -> Float[Tensor, "n dim"]:
        features = output if isinstance(output, Tensor) else output.pooler_output
        return F.normalize(features.float(), dim=-1).cpu()


def _starts(size: int, count: int, window: int) -> list[int]:
    """First pixel of each window along an axis."""
    return [min(max(round((cell + 0.5) * size / count - window / 2), 0), size - window) for cell in range(count)]
