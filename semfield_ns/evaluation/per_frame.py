"""A baseline that sees one picture at a time: a linear classifier of the frame encoder's features."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

LabelImage = Int[np.ndarray, "H W"]


def linear_head(
    features: Float[Tensor, "frames h w dim"],
    labels: Sequence[LabelImage | None],
    labelled: Sequence[int],
    num_classes: int,
    penalty: float = 1e-4,
    most_pixels: int = 60_000,
    seed: int = 0,
) -> list[LabelImage]:
    """Predicts each frame from its own features, by multinomial logistic regression on the labelled frames.

    Args:
        features: of the frame encoder, for every frame.
        labels: one label image a frame, negative where there is no label; only those of `labelled` frames are read.
        labelled: indices of the labelled frames.
        num_classes: classes.
        penalty: on the squared weights.
        most_pixels: drawn for the fit.
        seed: of the draw.

    Returns:
        A label image for each frame, also the labelled ones.

    Raises:
        ValueError: no pixel has a label.
    """
    given = {frame: labels[frame] for frame in labelled}
    sizes = [image.shape for image in given.values() if image is not None]
    if not sizes:
        raise ValueError("The linear head needs at least one labelled frame.")
    height, width = sizes[0]
    inputs, targets = [], []
    for frame, image in given.items():
        assert image is not None, "labelled frames have labels"
        truth = torch.from_numpy(np.ascontiguousarray(image))
        known = truth >= 0
        inputs.append(_full(features[frame], height, width)[known].half())
        targets.append(truth[known].long())
    x, y = torch.cat(inputs), torch.cat(targets)
    if len(y) == 0:
        raise ValueError("The linear head needs at least one labelled pixel.")
    drawn = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:most_pixels]
    x, y = x[drawn].float(), y[drawn]
    weight = torch.zeros(num_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y) + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return [
            (_full(frame, height, width) @ weight.T + bias).argmax(dim=-1).numpy().astype(np.int64)
            for frame in features
        ]


def _full(grid: Float[Tensor, "h w dim"], height: int, width: int) -> Float[Tensor, "H W dim"]:
    """Features at every pixel."""
    image = grid.float().permute(2, 0, 1)[None]
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
