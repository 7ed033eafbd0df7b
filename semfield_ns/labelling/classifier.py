"""A linear classifier of the frame encoder's features: a baseline that sees one picture at a time, and what
semantic heads correct.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

LabelImage = Int[np.ndarray, "H W"]
Linear = tuple[Float[Tensor, "classes dim"], Float[Tensor, "classes"]]
"""weight and bias"""
UNSEEN = -20.0
"""logit of a class that no label shows"""


def fit_linear(
    features: Float[Tensor, "frames h w dim"],
    labels: Mapping[int, LabelImage],
    num_classes: int,
    penalty: float = 1e-4,
    most_pixels: int = 60_000,
    seed: int = 0,
) -> Linear:
    """Multinomial logistic regression on the pixels of the labelled frames.

    Args:
        features: of the frame encoder, for every frame.
        labels: labelled frame -> class ids, negative where there is no label.
        num_classes: classes.
        penalty: on the squared weights.
        most_pixels: drawn for the fit.
        seed: of the draw.

    Raises:
        ValueError: no pixel has a label.
    """
    inputs, targets = [], []
    for frame, image in labels.items():
        truth = torch.from_numpy(np.ascontiguousarray(image))
        known = truth >= 0
        inputs.append(_full(features[frame], *image.shape)[known].half())
        targets.append(truth[known].long())
    if not sum(map(len, targets)):
        raise ValueError("The linear head needs at least one labelled pixel.")
    x, y = torch.cat(inputs), torch.cat(targets)
    drawn = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:most_pixels]
    x, y = x[drawn].float(), y[drawn]
    return _logistic_regression(x, y, num_classes, penalty)


def _logistic_regression(x: Float[Tensor, "N dim"], y: Int[Tensor, "N"], num_classes: int, penalty: float) -> Linear:
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


def fit_folds(
    features: Float[Tensor, "frames h w dim"], labels: Mapping[int, LabelImage], num_classes: int, folds: int = 3
) -> Iterator[tuple[int, Linear]]:
    """Cross-validation: each labelled frame with a classifier fitted to the labels of frames further away.

    Args:
        features: of the frame encoder, for every frame.
        labels: labelled frame -> class ids, negative where there is no label.
        num_classes: classes.
        folds: so many runs of successive labelled frames are held out in turn. A single frame cannot be held out.
    """
    frames = sorted(labels)
    if len(frames) < 2:
        return
    for held_out in np.array_split(frames, min(folds, len(frames))):
        linear = fit_linear(features, {frame: labels[frame] for frame in frames if frame not in held_out}, num_classes)
        yield from ((int(frame), linear) for frame in held_out)


def fitting_scale(
    held_out: Iterable[tuple[Float[Tensor, "N classes"], Float[Tensor, "N classes"], Int[np.ndarray, "N"]]],
    prior_pixels: float = 20.0,
) -> float:
    """How many times a classifier's logits should count beside other logits: the most likely scale, at least 0.

    Args:
        held_out: logits of the classifier and the other logits, with the truth (negative where there is none) of
            frames that the classifier was not fitted on.
        prior_pixels: weight of the prior that it is 1, which is also the result without any held-out frame.
    """
    parts = [
        (own[truth >= 0], other[truth >= 0], torch.from_numpy(truth[truth >= 0])) for own, other, truth in held_out
    ]
    if not sum(len(truth) for *_, truth in parts):
        return 1.0
    own, other, truth = (torch.cat(entries) for entries in zip(*parts, strict=True))
    scale = torch.ones((), requires_grad=True)
    weight = prior_pixels / len(truth)
    _minimise(lambda: F.cross_entropy(scale * own + other, truth) + weight * (scale - 1).square(), [scale], 50)
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


def linear_head(
    features: Float[Tensor, "frames h w dim"], labels: Mapping[int, LabelImage], num_classes: int
) -> list[LabelImage]:
    """Predicts each frame, also the labelled ones, from its own features.

    Args:
        features: of the frame encoder, for every frame.
        labels: labelled frame -> class ids, negative where there is no label.
        num_classes: classes.

    Raises:
        ValueError: no pixel has a label.
    """
    linear = fit_linear(features, labels, num_classes)
    shape = next(iter(labels.values())).shape
    return [classify(frame, linear, shape).argmax(dim=-1).numpy().astype(np.int64) for frame in features]


def classify(
    features: Float[Tensor, "h w dim"], linear: Linear, shape: tuple[int, ...]
) -> Float[Tensor, "height width classes"]:
    """Logits of a frame at a size, by a fitted classifier."""
    weight, bias = linear
    return _full(features, *shape) @ weight.T + bias


def _full(grid: Float[Tensor, "h w dim"], height: int, width: int) -> Float[Tensor, "H W dim"]:
    """Features at every pixel."""
    image = grid.float().permute(2, 0, 1)[None]
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
