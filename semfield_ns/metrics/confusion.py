"""Figures of merit of labels, from counts: a data set's mIoU is not the mean of its images' mIoU."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semfield_ns.io import write_json

Labels = Tensor | np.ndarray


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column), over as many images as one likes.

    The figures of an empty matrix are NaN; `total` says whether there is anything in it.

    Args:
        num_classes: C.
    """

    counts: Int[Tensor, "C C"]

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, pred: Labels, truth: Labels) -> "ConfusionMatrix":
        """Adds the pixels of an image (or of any two arrays of one shape) whose truth is not negative.

        Raises:
            ValueError: the shapes differ, or an id is not below C, or a counted prediction is negative.
        """
        pred, truth = torch.as_tensor(pred), torch.as_tensor(truth)
        if pred.shape != truth.shape:
            raise ValueError(f"The prediction has shape {tuple(pred.shape)}, but the truth {tuple(truth.shape)}.")
        known = truth >= 0
        pred, truth = pred[known].long().cpu(), truth[known].long().cpu()
        for name, ids in (("predicted", pred), ("true", truth)):
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_classes:
                raise ValueError(
                    f"A {name} class id is outside 0 to {self.num_classes - 1}: "
                    f"the ids go from {int(ids.min())} to {int(ids.max())}."
                )
        flat = torch.bincount(truth * self.num_classes + pred, minlength=self.num_classes**2)
        self.counts += flat.reshape(self.num_classes, self.num_classes)
        return self

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Adds the counts of another matrix of as many classes.

        Raises:
            ValueError: the numbers of classes differ.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"A matrix of {other.num_classes} classes does not fit one of {self.num_classes}.")
        self.counts += other.counts
        return self

    @property
    def total(self) -> int:
        """Number of pixels counted."""
        return int(self.counts.sum())

    @property
    def per_class_iou(self) -> Float[Tensor, "C"]:
        """Intersection over union; NaN for a class that is neither in the truth nor in the prediction."""
        counts = self.counts.double()
        hits = counts.diagonal()
        return (hits / (counts.sum(dim=0) + counts.sum(dim=1) - hits)).float()

    @property
    def miou(self) -> float:
        """Mean IoU over the classes in the truth or in the prediction."""
        return float(self.per_class_iou.nanmean())

    @property
    def accuracy(self) -> float:
        """Share of pixels whose class is right."""
        return float(self.counts.diagonal().sum() / self.total) if self.total else math.nan

    @property
    def mean_class_accuracy(self) -> float:
        """Mean, over the classes in the truth, of the share of a class's pixels that are found."""
        counts = self.counts.double()
        return float((counts.diagonal() / counts.sum(dim=1)).nanmean())

    def summary(self) -> dict[str, float]:
        """`miou`, `accuracy` and `mean_class_accuracy`."""
        return {"miou": self.miou, "accuracy": self.accuracy, "mean_class_accuracy": self.mean_class_accuracy}

    def save(self, path: Path, class_names: tuple[str, ...] | list[str]) -> None:
        """Writes counts and class names as JSON."""
        write_json(path, {"classes": list(class_names), "counts": self.counts.tolist()})

    @classmethod
    def load(cls, path: Path) -> tuple["ConfusionMatrix", tuple[str, ...]]:
        """Reads what `save` wrote: the matrix and the class names."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        matrix = cls(len(stored["classes"]))
        matrix.counts = torch.tensor(stored["counts"], dtype=torch.int64).reshape(matrix.counts.shape)
        return matrix, tuple(stored["classes"])


def image_miou(pred: Labels, truth: Labels, num_classes: int) -> float:
    """Mean IoU of one image over the classes in its truth or prediction; NaN if no pixel has a label."""
    return ConfusionMatrix(num_classes).update(pred, truth).miou
