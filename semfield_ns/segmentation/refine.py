"""A mask made sharper by SAM 2: from a few spread points on and off the object, through transformers."""

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.errors import SemfieldError

SAM2 = "facebook/sam2.1-hiera-small"
POINTS = 3
"""on the object, and as many beside it: a decoder that gets ten or more dense points gives masks of textures"""


def spread_points(mask: Bool[Tensor, "H W"], count: int = POINTS) -> list[tuple[float, float]]:
    """Points (x, y) in a mask that are far from its border and from each other, in pixels.

    The first is where the mask is thickest. Each further one is where the distance to the border, or to the points so
    far if that is less, is greatest.
    """
    from scipy.ndimage import distance_transform_edt

    inner = distance_transform_edt(np.pad(mask.cpu().numpy(), 1))[1:-1, 1:-1]
    rows, columns = np.indices(inner.shape)
    points: list[tuple[float, float]] = []
    while len(points) < count and inner.max() > 0:
        row, column = np.unravel_index(int(inner.argmax()), inner.shape)
        points.append((float(column) + 0.5, float(row) + 0.5))
        inner = np.minimum(inner, np.hypot(rows - row, columns - column))
    return points


def refine(
    rgb: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"], model: str = SAM2, device: str | torch.device = "cpu"
) -> Bool[Tensor, "H W"]:
    """What SAM 2 takes the object of a mask for.

    Args:
        rgb: the picture, in [0, 1].
        mask: of the object; an empty one stays empty.
        model: a SAM 2 model on the hub, or a local folder with one.
        device: where it runs.

    Returns:
        Of the decoder's three masks the one that is most like `mask`; `mask` itself, where none has anything to do with
        it (IoU below 0.3).

    Raises:
        SemfieldError: transformers is not installed, or the weights are not found.
    """
    if not bool(mask.any()):
        return mask
    processor, network = load_sam2(model, str(device))
    inside, outside = spread_points(mask), spread_points(~mask)
    image = (rgb.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()
    points = [[[list(point) for point in (*inside, *outside)]]]
    labels = [[[1] * len(inside) + [0] * len(outside)]]
    inputs = processor(images=image, input_points=points, input_labels=labels, return_tensors="pt").to(device)
    with torch.no_grad():
        outputs = network(**inputs, multimask_output=True)
    found = processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"].cpu())[0][0].bool()
    truth = mask.cpu()
    overlap = (found & truth).sum(dim=(1, 2)) / (found | truth).sum(dim=(1, 2)).clamp(min=1)
    best = int(overlap.argmax())
    return found[best].to(mask.device) if float(overlap[best]) >= 0.3 else mask


@cache
def load_sam2(model: str, device: str) -> tuple[Any, Any]:
    """Processor and network, once a process.

    Raises:
        SemfieldError: transformers is not installed, or the weights are not found.
    """
    try:
        from transformers import Sam2Model, Sam2Processor
    except ImportError as error:
        raise SemfieldError("Refining masks needs transformers: pip install 'semfield-ns[teachers]'.") from error
    try:
        network = Sam2Model.from_pretrained(model)
        processor = Sam2Processor.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise SemfieldError(
            f"No SAM 2 weights were found at {model}: give a folder with a downloaded model, or use the masks as they "
            "are."
        ) from error
    return processor, network.eval().to(device)
