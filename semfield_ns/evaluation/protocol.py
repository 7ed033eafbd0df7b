"""Which frames an evaluation looks at. Alone, so that a command line can name it without importing torch."""

from typing import Literal

Frames = Literal["auto", "held-out", "unlabelled", "train"]
Protocol = Literal[
    "auto", "held-out", "unlabelled", "train", "nvidia", "completion", "tracking", "adaptation", "strokes", "objects"
]

FRAMES: dict[Protocol, Frames] = {
    "held-out": "held-out",
    "unlabelled": "unlabelled",
    "train": "train",
    "nvidia": "held-out",
    "completion": "unlabelled",
    "tracking": "unlabelled",
}
"""which frames a protocol evaluates, as the data parser names them; "auto" where it does not say"""
SCHEDULES: dict[Protocol, str] = {"completion": "scattered-", "tracking": "first-"}
"""how the label schedule of a run begins that a protocol is made for"""
