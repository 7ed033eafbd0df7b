"""Which frames to label next: those that a run is least certain of, spread over the video."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

REACH = 4.0
"""frames from a label at which it still helps half as much as in its own frame"""


def uncertainty(logits: Float[Tensor, "*image classes"]) -> float:
    """Entropy of a frame's pixels, in [0, 1]: the mean over its predicted classes of the mean over their pixels.

    Small things count as much as large ones, as they do in mean IoU.
    """
    probability = logits.flatten(end_dim=-2).double().softmax(dim=-1)
    entropy = -(probability * probability.clamp(min=1e-12).log()).sum(dim=-1)
    predicted = probability.argmax(dim=-1)
    means = torch.stack([entropy[predicted == c].mean() for c in predicted.unique()])
    return float(means.mean() / torch.log(torch.tensor(max(logits.shape[-1], 2), dtype=torch.float64)))


def suggest(uncertain: Mapping[int, float], count: int, reach: float = REACH) -> list[int]:
    """The frames to label next, the most useful one first.

    Taken one by one: the frame of the highest uncertainty, where that of frames near a chosen one counts less.

    Args:
        uncertain: unlabelled frame -> uncertainty.
        count: how many; fewer where there are fewer frames.
        reach: frames from a chosen one at which half of the uncertainty is left.
    """
    left = dict(uncertain)
    chosen: list[int] = []
    while left and len(chosen) < count:
        # The earlier one of two that are equal.
        best = max(left, key=lambda frame: (left[frame], -frame))
        chosen.append(best)
        del left[best]
        left = {frame: value * (1 - 0.5 ** (abs(frame - best) / reach)) for frame, value in left.items()}
    return chosen
