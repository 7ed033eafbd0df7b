"""What a page looks at when it is opened."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FirstView:
    """A training camera, at a time."""

    camera: int | None = None
    """number of a training image; the earliest one if None"""
    time: float | None = None
    """0 to 1; that of the camera if None"""


_chosen = FirstView()


def choose(view: FirstView) -> None:
    """Pages that are opened from now on begin with this view."""
    global _chosen
    _chosen = view


def chosen() -> FirstView:
    """What pages begin with."""
    return _chosen
