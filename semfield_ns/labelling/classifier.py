"""A linear classifier of image features: a baseline that sees one picture at a time, and what semantic heads correct.

Features may come from several sources, such as colours and what a pretrained network sees; `selection` says how far
each of them counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

LabelImage = Int[np.ndarray, "H W"]
Stack = Float[Tensor, "frames _ _ _"]
"""rows, columns and channels are each source's own"""
UNSEEN = -20.0
"""logit of a class that no label shows"""


class Recipe(NamedTuple):
    """How a classifier is fitted."""

    weights: tuple[float, ...]
    """what the features of each source are multiplied by; 0 leaves a source out"""
    penalty: float
    """on the squared weights of the classifier"""


PLAIN = Recipe((1.0,), 1e-4)
"""of one source"""


class Linear(NamedTuple):
    """A fitted classifier. Its logits are log-probabilities, up to a constant."""

    weights: tuple[Float[Tensor, "classes _"], ...]
    """of each source"""
    bias: Float[Tensor, "classes"]

    def scaled(self, scale: float) -> "Linear":
        """The classifier whose logits are so many times as large."""
        return Linear(tuple(scale * weight for weight in self.weights), scale * self.bias)


@dataclass(frozen=True)
class Samples:
    """Labelled pixels."""

    features: tuple[Float[Tensor, "N _"], ...]
    """of each source"""
    labels: Int[Tensor, "N"]
    frames: Int[Tensor, "N"]
    pixels: Int[Tensor, "N"]
    """numbered row by row"""

    def __getitem__(self, which: Tensor) -> "Samples":
        """Some of them, by a mask or by number."""
        features = tuple(source[which] for source in self.features)
        return Samples(features, self.labels[which], self.frames[which], self.pixels[which])


def draw_samples(
    sources: Sequence[Stack], labels: Mapping[int, LabelImage], most_pixels: int = 60_000, seed: int = 0
) -> Samples:
    """Draws labelled pixels, all of them where there are not so many.

    Args:
        sources: image features of every frame.
        labels: labelled frame -> class ids, negative where there is no label.
        most_pixels: to draw.
        seed: of the draw.

    Raises:
        ValueError: no pixel has a label.
    """
    known = {frame: torch.from_numpy(np.flatnonzero(image >= 0)) for frame, image in labels.items()}
    total = sum(map(len, known.values()))
    if not total:
        raise ValueError("The linear head needs at least one labelled pixel.")
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:most_pixels].sort().values
    parts, start = [], 0
    for frame, places in known.items():
        pixels = places[drawn[(drawn >= start) & (drawn < start + len(places))] - start]
        start += len(places)
        truth = torch.from_numpy(np.ascontiguousarray(labels[frame]))
        shown = tuple(upsample(source[frame], *truth.shape).flatten(0, 1)[pixels].half() for source in sources)
        parts.append(Samples(shown, truth.flatten()[pixels].long(), torch.full_like(pixels, frame), pixels))
    return Samples(
        tuple(torch.cat([part.features[i] for part in parts]) for i in range(len(sources))),
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "frames", "pixels")),
    )


def fit(samples: Samples, recipe: Recipe, num_classes: int) -> Linear:
    """Multinomial logistic regression."""
    pairs = list(zip(recipe.weights, samples.features, strict=True))
    x = torch.cat([weight * source.float() for weight, source in pairs if weight], dim=1)
    joined, bias = _logistic_regression(x, samples.labels, num_classes, recipe.penalty)
    found, column = [], 0
    for weight, source in pairs:
        dim = source.shape[1]
        found.append(weight * joined[:, column : column + dim] if weight else torch.zeros(num_classes, dim))
        column += dim if weight else 0
    return Linear(tuple(found), bias)


def _logistic_regression(
    x: Float[Tensor, "N dim"], y: Int[Tensor, "N"], num_classes: int, penalty: float
) -> tuple[Float[Tensor, "classes dim"], Float[Tensor, "classes"]]:
    """Minimises the mean cross-entropy and `penalty` times the squared weights; unseen classes get `UNSEEN`."""
    from sklearn.linear_model import LogisticRegression  # takes seconds, of every command
    from threadpoolctl import threadpool_limits

    weight, bias = torch.zeros(num_classes, x.shape[1]), torch.full((num_classes,), UNSEEN)
    present = torch.unique(y)
    if len(present) == 1:
        bias[present] = 0.0
        return weight, bias
    strength = 1 / (2 * penalty * len(y))
    # Of two classes scikit-learn fits the difference of the logits, whose square is twice the sum of the squares.
    model = LogisticRegression(C=strength * (2 if len(present) == 2 else 1), max_iter=200)
    with threadpool_limits(1):  # so little to do at a time that threads wait for each other most of it
        model.fit(x.numpy(), y.numpy())
    found = [torch.from_numpy(part).float() for part in (model.coef_, model.intercept_)]
    weight[present], bias[present] = found if len(present) > 2 else (torch.cat([-p, p]) / 2 for p in found)
    return weight, bias


def linear_head(features: Stack, labels: Mapping[int, LabelImage], num_classes: int) -> list[LabelImage]:
    """Predicts each frame, also the labelled ones, from its own features.

    Args:
        features: of the frame encoder, for every frame.
        labels: labelled frame -> class ids, negative where there is no label.
        num_classes: classes.

    Raises:
        ValueError: no pixel has a label.
    """
    linear = fit(draw_samples([features], labels), PLAIN, num_classes)
    shape = next(iter(labels.values())).shape
    return [classify([frame], linear, shape).argmax(dim=-1).numpy().astype(np.int64) for frame in features]


def classify(
    sources: Sequence[Float[Tensor, "_ _ _"]], linear: Linear, shape: tuple[int, ...]
) -> Float[Tensor, "height width classes"]:
    """Logits of a frame at a size, by a fitted classifier of its features."""
    pairs = zip(sources, linear.weights, strict=True)
    # On each source's own grid, which is the same and quicker: what is linear may be interpolated later.
    return linear.bias + sum(upsample(source.float() @ weight.T, *shape) for source, weight in pairs)


def upsample(grid: Float[Tensor, "h w dim"], height: int, width: int) -> Float[Tensor, "H W dim"]:
    """Values at every pixel."""
    image = grid.float().permute(2, 0, 1)[None]
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
