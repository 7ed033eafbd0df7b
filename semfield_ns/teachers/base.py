"""What a teacher is: a 2-D feature extractor that is run once per image and then frozen."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class Teacher(ABC):
    """A frozen 2-D feature extractor.

    Attributes:
        name: identifies the extractor and its revision; part of the cache key.
        dim: channels of a feature.
        stride: pixels of the image per feature cell, along each axis.
    """

    name: str
    dim: int
    stride: int

    @abstractmethod
    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        """Features of a batch of images.

        Args:
            images: RGB in [0, 1].

        Returns:
            A grid of h = ceil(height / stride) by w = ceil(width / stride) cells. Cell (i, j) covers the pixels from
            (i * height / h, j * width / w) on, so that bilinear sampling uses `align_corners=False`.
        """
