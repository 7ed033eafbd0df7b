"""Probabilities drawn to the edges of a picture."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

RADIUS = 4
"""px"""
SMOOTHNESS = 1e-3
"""variance of colours, of 1, below which a neighbourhood is taken to be one surface"""


class GuidedFilter:
    """The guided filter of He, Sun and Tang (2010): in each neighbourhood a value is an affine function of the colour.

    Args:
        rgb: the picture that guides.
        radius: of neighbourhoods, px.
        smoothness: see `SMOOTHNESS`.
    """

    def __init__(self, rgb: UInt8[np.ndarray, "H W 3"], radius: int = RADIUS, smoothness: float = SMOOTHNESS) -> None:
        self._radius = radius
        self._colors = rgb.astype(np.float32) / 255
        self._mean = self._average(self._colors)
        products = self._average((self._colors[..., :, None] * self._colors[..., None, :]).reshape(*rgb.shape[:2], 9))
        covariance = products.reshape(*rgb.shape[:2], 3, 3) - self._mean[..., :, None] * self._mean[..., None, :]
        self._inverse = np.linalg.inv(covariance + smoothness * np.eye(3, dtype=np.float32))

    def __call__(self, values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        """The values, smooth where the picture is and with edges where it has them."""
        mean = self._average(values)
        together = self._average(self._colors * values[..., None]) - self._mean * mean[..., None]
        slope = np.einsum("hwij,hwj->hwi", self._inverse, together)
        offset = mean - (slope * self._mean).sum(-1)
        return (self._average(slope) * self._colors).sum(-1) + self._average(offset)

    def _average(self, values: np.ndarray) -> np.ndarray:
        side = 2 * self._radius + 1
        return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT))
