"""Which frames an evaluation looks at. Alone, so that a command line can name it without importing torch."""

from typing import Literal

Protocol = Literal["auto", "held-out", "unlabelled", "train", "strokes"]
