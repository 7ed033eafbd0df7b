"""Which frames an evaluation looks at. Alone, so that a command line can name it without importing torch."""

from typing import Literal

Frames = Literal["auto", "held-out", "unlabelled", "train"]
Protocol = Literal["auto", "held-out", "unlabelled", "train", "nvidia", "completion", "tracking", "adaptation"]

FRAMES: dict[Protocol, Frames] = {
    "nvidia": "held-out",
    "completion": "unlabelled",
    "tracking": "unlabelled",
    "adaptation": "auto",
}
"""frames of the protocols that have a name of their own; the others are names of frames"""
SCHEDULES: dict[Protocol, str] = {"completion": "scattered-", "tracking": "first-"}
"""how the label schedule of a run begins that a protocol is made for"""


def frames_of(protocol: Protocol) -> Frames:
    """Which frames a protocol evaluates."""
    return FRAMES.get(protocol, protocol)  # type: ignore[return-value]
