"""Patch tokens of vision transformers: DINO, DINOv2 and SigLIP 2, and whatever has their shape."""

from inspect import signature
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.teachers.pretrained import PretrainedTeacher, resize

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MODEL_TYPES = {
    "dino": ("vit",),
    "dinov2": ("dinov2", "dinov2_with_registers", "dinov3_vit"),
    "siglip2": ("siglip", "siglip2"),
}


class ViTTeacher(PretrainedTeacher):
    """The tokens of the last block after its LayerNorm, without those that belong to no patch (CLS, registers).

    Images keep their shape: position embeddings are interpolated to floor(size / patch) tokens along each axis, and the
    image is stretched by less than a patch to fit them.

    Arguments and errors are those of `PretrainedTeacher`.
    """

    def __init__(self, kind: str, source: str, device: torch.device | str = "cpu") -> None:
        self.model_types = _MODEL_TYPES[kind]
        super().__init__(kind, source, device)
        if kind == "siglip2":
            self.default_mean = self.default_std = (0.5, 0.5, 0.5)
        self.stride, self.dim = self.setting("patch_size"), self.setting("hidden_size")

    def load(self) -> "PreTrainedModel":
        """The vision part alone, if the weights are those of a model of pictures and words."""
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
        return self.load_as(AutoModel, config=getattr(config, "vision_config", config))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Whole patches."""
        return max(height // self.stride, 1), max(width // self.stride, 1)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        rows, columns = self.grid_size(*images.shape[1:3])
        x = resize(self.normalised(images), (rows * self.stride, columns * self.stride)).to(self.dtype)
        tokens = self._tokens(x, rows, columns)[:, -rows * columns :]
        return tokens.unflatten(1, (rows, columns)).float().cpu()

    def _tokens(self, x: Float[Tensor, "batch 3 height width"], rows: int, columns: int) -> Tensor:
        accepted = signature(self.model.forward).parameters
        if "spatial_shapes" in accepted:  # SigLIP 2 of any aspect ("naflex") takes patches
            patch = self.stride
            cells = x.unflatten(3, (columns, patch)).unflatten(2, (rows, patch))  # batch 3 rows patch columns patch
            patches = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
            shapes = torch.tensor([[rows, columns]] * len(x), device=x.device)
            mask = torch.ones(patches.shape[:2], dtype=torch.long, device=x.device)
            return self.model(patches, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state
        extra = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}
        return self.model(x, **extra).last_hidden_state
