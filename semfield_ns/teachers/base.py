"""What a teacher is: a 2-D feature extractor that is run once per image and then frozen."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor


class Teacher(ABC):
    """A frozen 2-D feature extractor.

    Attributes:
        name: identifies the extractor, its weights and its arguments; part of the cache key.
        dim: channels of a feature.
        stride: pixels of the image per feature cell, along each axis.
        batch_size: images that are encoded at once when many are.
    """

    name: str
    dim: int
    stride: int
    batch_size: int = 1

    @property
    def parts(self) -> tuple[int, ...]:
        """Channels of each of the maps that a feature joins, one after the other."""
        return (self.dim,)

    @property
    def shares(self) -> Float[Tensor, "dim"]:
        """Weights of standardised channels with which each map counts as much as any other.

        Without them, the map with the most channels decides: usually the coarsest, which tells what is there, but not
        where it ends.
        """
        return torch.cat([torch.full((size,), size**-0.5) for size in self.parts])

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the grid of an image; where it is not the ceiling of size / stride, a subclass says so.

        Args:
            height: of the image, px.
            width: of the image, px.
        """
        return math.ceil(height / self.stride), math.ceil(width / self.stride)

    @abstractmethod
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        """Features of a batch of images; whatever preparation the extractor wants is done here.

        Args:
            images: RGB in [0, 1], on the CPU.

        Returns:
            A grid of h by w cells (`grid_size`), float32 on the CPU. Cell (i, j) covers the pixels from
            (i * height / h, j * width / w) on, so that bilinear sampling uses `align_corners=False`. What an image gets
            does not depend on the other images of the batch.
        """


class TextTeacher(Teacher):
    """A teacher whose features and those of words lie in one space."""

    @abstractmethod
    def encode_text(self, words: list[str]) -> Float[Tensor, "n dim"]:
        """Features of unit norm, one a phrase; their product with an image's features says how well they agree."""
