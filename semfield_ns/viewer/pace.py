"""How long pictures take: some time each, however small they are, and some for each pixel."""

from collections import deque

import numpy as np

FIRST_RATE = 2000.0
"""pixels a second, before there is anything to go by"""
KNOWN = 8
"""pictures that are remembered, the last ones"""
MOST = 0.75
"""share of the time of a picture, at most, that is taken to be the same for all sizes"""


class Pace:
    """Learns from pictures what larger and smaller ones would take.

    Without the share that does not depend on the size, pictures of a busy machine would get smaller and smaller: each
    would seem to have fewer pixels a second than the one before.
    """

    def __init__(self) -> None:
        self._taken: deque[tuple[float, float]] = deque(maxlen=KNOWN)

    def learn(self, pixels: int, seconds: float) -> None:
        """A picture of so many pixels has taken so long."""
        self._taken.append((float(pixels), seconds))

    def seconds(self, pixels: float) -> float:
        """About how long a picture will take."""
        each, by_pixel = self._line()
        return each + pixels * by_pixel

    def pixels(self, seconds: float) -> float:
        """How many can be drawn in some seconds. Where a picture takes longer than that, however small it is: so many
        that it takes twice as long as the smallest.
        """
        each, by_pixel = self._line()
        return max(seconds - each, each) / by_pixel

    def _line(self) -> tuple[float, float]:
        """Seconds of each picture, and of each pixel: least squares."""
        if not self._taken:
            return 0.0, 1 / FIRST_RATE
        pixels, seconds = np.array(self._taken).T
        ratio = seconds.mean() / pixels.mean()
        apart = pixels - pixels.mean()
        spread = (apart**2).sum()
        by_pixel = (apart * seconds).sum() / spread if spread > 0 else ratio
        by_pixel = float(np.clip(by_pixel, (1 - MOST) * ratio, ratio))
        return max(0.0, float(seconds.mean() - by_pixel * pixels.mean())), by_pixel
