"""The teachers of a model: of each its tokens, their projection, and the colours that its features are shown in."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.tokens import TokenProjection, TokenStore
from semfield_ns.rendering.features import FixedPCA
from semfield_ns.rendering.rays import sent
from semfield_ns.teachers.registry import KINDS


class Distilled(NamedTuple):
    """One teacher that a model learns from."""

    output: str
    """name of the rendered features: "features" of the first teacher, "features_KIND" of the others"""
    projection: TokenProjection
    colors: FixedPCA
    tokens: TokenStore

    def absent(self) -> str:
        """Why the teacher is not available; empty if it is."""
        try:
            self.tokens.cache  # noqa: B018 (made here, where its weights are looked for)
        except SemfieldError as error:
            return str(error)
        return ""

    def prepare(self, images: int) -> None:
        """Fits the shared projection and the colours, unless a checkpoint brought them."""
        if not bool(self.projection.fitted):
            self.colors.fit(self.tokens.fit(images), seed=0)

    def at(self, scene: int, indices: Tensor) -> Float[Tensor, "R F"]:
        """The teacher's features at pixels, interpolated in the token grid.

        Args:
            scene: its index.
            indices: [R, 3], image (one for all), row, column.
        """
        image = int(indices[0, 0])
        frame = self.tokens.library.scenes[scene].frames[image]
        grid = self.tokens.grid(scene, image).float()
        size = torch.tensor([frame.width, frame.height])
        position = sent(2 * (indices[:, [2, 1]] + 0.5) / size - 1, grid.device)
        found = F.grid_sample(grid[None], position[None, None], padding_mode="border", align_corners=False)
        return found[0, :, 0].T

    def upright(self, scene: int, image: int, size: tuple[int, int]) -> Float[Tensor, "H W F"]:
        """The teacher's features of a whole image."""
        return self.tokens.upright(scene, image, size)


class Further(nn.Module):
    """Projection and colours of a further teacher, as checkpoints hold them.

    Args:
        teacher: channels of the teacher.
        dim: channels kept.
    """

    def __init__(self, teacher: int, dim: int) -> None:
        super().__init__()
        self.projection, self.colors = TokenProjection(teacher, dim), FixedPCA(dim)


def head_names(teachers: Sequence[str]) -> tuple[str, ...]:
    """Names of the heads of further teachers: dinov2:FOLDER is called dinov2, my_module:MyTeacher is MyTeacher.

    Raises:
        SemfieldError: two of them would have the same name.
    """
    kinds = (teacher.partition(":") for teacher in teachers)
    names = tuple(kind if kind in KINDS else own for kind, _, own in kinds)
    if len(set(names)) < len(names):
        raise SemfieldError(f"more-teachers: two of {', '.join(teachers)} would have the same name.")
    return names
