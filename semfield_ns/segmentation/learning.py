"""What tells an object from the rest of its scene: a direction in feature space, learned from few strokes.

Strokes show little of an object and less of what is around it. What is surely like them elsewhere in the scene, or
surely not, shows more: a linear discriminant is fitted to it (least squares, both sides alike), says anew what is sure,
and is fitted again (self-training; Scudder 1965). What the strokes say of a feature goes on counting.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ROUNDS = 8
SURE = 0.65
"""similarity from which a feature is of the object; one less than the rest to 1 is of the background"""
PENALTY = 0.3
"""of squared weights, where features have a mean square of 1"""
SAMPLES = 8192
"""features of a scene that it is learned from, at most"""
LEARNED, LIKENESS = 2.0, 0.5
"""what the discriminant, which is 1 for the object and -1 for the background, and the logit of likeness count"""
LIKENESS_LIMIT = 0.05
"""likeness counts as if it were no nearer to 0 and 1"""


def combined(likeness: Float[Tensor, "N"], margin: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Similarity in [0, 1] from likeness to the strokes and what the discriminant says."""
    told = likeness.clamp(LIKENESS_LIMIT, 1 - LIKENESS_LIMIT).logit()
    return torch.sigmoid(LEARNED * margin + LIKENESS * told)


def margins(features: Float[Tensor, "N F"], weights: Float[Tensor, "inputs"]) -> Float[Tensor, "N"]:
    """About 1 for features of the object, and -1 for those of the background."""
    return features.shape[1] ** 0.5 * (features @ weights[:-1]) + weights[-1]


def learn(
    scene: Float[Tensor, "N F"],
    likeness: Float[Tensor, "N"],
    positive: Float[Tensor, "K F"],
    negative: Float[Tensor, "M F"],
) -> Float[Tensor, "inputs"] | None:
    """The weights of the features, and a constant.

    Args:
        scene: features from all over the scene, of unit norm.
        likeness: of them to the strokes, in [0, 1].
        positive: under the strokes, whose side is known.
        negative: likewise.

    Returns:
        For `margins`; None where one side has nothing to learn from.
    """
    features = torch.cat([scene, positive, negative])
    inputs = torch.cat([features.shape[1] ** 0.5 * features, features.new_ones(len(features), 1)], dim=1)
    drawn = torch.cat([likeness, likeness.new_ones(len(positive)), likeness.new_zeros(len(negative))])
    found, weights = drawn, None
    for _ in range(ROUNDS):
        found[len(scene) :] = drawn[len(scene) :]
        object_, background = found > SURE, found < 1 - SURE
        if not bool(object_.any()) or not bool(background.any()):
            return weights
        weights = fitted(inputs, object_, background)
        found = combined(drawn, inputs @ weights)
    return weights


def fitted(
    inputs: Float[Tensor, "N inputs"], first: Bool[Tensor, "N"], second: Bool[Tensor, "N"]
) -> Float[Tensor, "inputs"]:
    """Least squares to 1 for the first and -1 for the second, which count alike however many they are."""
    share = 0.5 * (first / first.sum() + second / second.sum())
    weighted = inputs * share[:, None]
    penalty = PENALTY * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    return torch.linalg.solve(weighted.T @ inputs + penalty, weighted.T @ (first.to(inputs) - second.to(inputs)))
