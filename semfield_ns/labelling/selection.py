"""Which classifier of image features a scene gets, and how far it is trusted: measured on labelled frames held out.

Colours tell classes apart where classes have colours of their own; a pretrained network's features do on real video,
and mislead where they only recognise the place. No rule knows beforehand, but the labelled frames do. Held out are runs
of them, and what is fitted to lies as far away as labelled frames lie from the frames without a label: neighbours look
alike, so every classifier is good at those.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.labelling.classifier import PLAIN, Recipe, Samples, fit

RECIPES = ((1.0, 1.0, 1e-3), (1.0, 1.0, 1e-4), (1.0, 4.0, 1e-3), (1.0, 4.0, 1e-2), (0.0, 4.0, 1e-3), (1.0, 0.0, 1e-4))
"""weights of colours and of each pretrained network, and penalty; the first where nothing can be held out"""
FOLDS = 3
PRIOR_PIXELS = 20.0


class Choice(NamedTuple):
    """A classifier, as it did on frames that it was not fitted on."""

    recipe: Recipe
    scale: float
    """times its logits are to count"""
    loss: float
    """cross-entropy together with what else is known of the pixels; not a number where nothing could be held out"""


def recipes(sources: int) -> list[Recipe]:
    """What can be chosen from where there are so many sources of features, of which the first is colours."""
    if sources == 1:
        return [PLAIN]
    return [Recipe((colors, *[pretrained] * (sources - 1)), penalty) for colors, pretrained, penalty in RECIPES]


def choose(samples: Samples, others: Float[Tensor, "N classes"], gap: int = 1) -> Choice:
    """The recipe that predicts held-out labelled frames best.

    Args:
        samples: labelled pixels.
        others: logits of what else is known of them, such as of carried labels.
        gap: frames, typically, between a frame without a label and the nearest one with a label.
    """
    choices = []
    for recipe in recipes(len(samples.features)):
        own, known = held_out_logits(samples, recipe, others.shape[1], gap)
        own, rest, truth = own[known], others[known], samples.labels[known]
        scale = fitting_scale(own, rest, truth)
        loss = float(F.cross_entropy(scale * own + rest, truth)) if len(truth) else float("nan")
        choices.append(Choice(recipe, scale, loss))
        if not len(truth):
            break
    return min(choices, key=lambda choice: choice.loss)


def held_out_logits(
    samples: Samples, recipe: Recipe, num_classes: int, gap: int = 1
) -> tuple[Float[Tensor, "N classes"], Bool[Tensor, "N"]]:
    """Logits of each sample by a classifier that was fitted to frames further away, and which samples have them.

    None has where there is one frame only; nor has a sample of a class that frames further away do not show.
    """
    logits, known = torch.zeros(len(samples.labels), num_classes), torch.zeros(len(samples.labels), dtype=torch.bool)
    frames = samples.frames.unique().tolist()
    if len(frames) < 2:
        return logits, known
    for held_out in np.array_split(frames, min(FOLDS, len(frames))):
        others = samples[torch.isin(samples.frames, torch.tensor(further_away(frames, held_out.tolist(), gap)))]
        asked = torch.isin(samples.frames, torch.from_numpy(held_out))
        linear = fit(others, recipe, num_classes)
        pairs = zip(samples.features, linear.weights, strict=True)
        logits[asked] = linear.bias + sum(source[asked].float() @ weight.T for source, weight in pairs)
        known |= asked & torch.isin(samples.labels, others.labels)
    return logits, known


def further_away(frames: Sequence[int], held_out: Sequence[int], gap: int) -> list[int]:
    """The frames at least `gap` from all that are held out; in any case the furthest third of all frames."""
    distance = {f: min(abs(f - other) for other in held_out) for f in frames if f not in held_out}
    least = sorted(distance.values(), reverse=True)[: -(-len(frames) // 3)][-1]
    return [frame for frame in distance if distance[frame] >= min(gap, least)]


def fitting_scale(
    own: Float[Tensor, "N classes"],
    others: Float[Tensor, "N classes"],
    truth: Tensor,
    prior_pixels: float = PRIOR_PIXELS,
) -> float:
    """How many times a classifier's logits should count beside other logits: the most likely scale, at least 0.

    Args:
        own: logits of the classifier, of samples that it was not fitted on.
        others: the other logits.
        truth: classes.
        prior_pixels: weight of the prior that it is 1, which is also the result without any sample.
    """
    if not len(truth):
        return 1.0
    scale = torch.ones((), requires_grad=True)
    weight = prior_pixels / len(truth)
    _minimise(lambda: F.cross_entropy(scale * own + others, truth) + weight * (scale - 1).square(), [scale], 50)
    return max(float(scale.detach()), 0.0)


def _minimise(loss: Callable[[], Tensor], parameters: list[Tensor], iterations: int) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
