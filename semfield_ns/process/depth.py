"""Depth of each frame: triangulated from flow where nothing moves, or a learned relative depth fitted to sparse points.

Depth is z-depth in the units of the poses, float32, 0 where it is not known.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.process.frames import Rgb
from semfield_ns.process.geometry import Fit
from semfield_ns.process.models import Choice, ModelCard, choose, from_local
from semfield_ns.scenes.flow import Mask

DepthMap = Float[np.ndarray, "H W"]

DEPTH_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
DEPTH_LICENCE = "Apache-2.0"

_FLOW_NOISE = 0.5  # px, of flow that agrees both ways
_RELATIVE_ERROR = 0.1  # of inverse depth, for that noise, beyond which a depth is not kept
_RESIDUAL = 1.5  # px
_TEXTURE = 0.3  # least weight of a pixel's texture (motion.not_static)
_SPARSE = 0.05  # share of pixels with a depth, below which a preview shows dots that can be seen
_FEWEST_POINTS = 8  # sparse points that the learned depth of a frame can be fitted to


@dataclass(frozen=True)
class DepthTool:
    """Depth of one picture; `predict` is None for the classical way, which needs no picture but flow and poses."""

    card: ModelCard
    predict: Callable[[Rgb], DepthMap] | None = None
    metric: bool = False
    """whether `predict` gives depths, to be scaled, and not disparities, to be scaled and shifted"""


def depth_tool(choice: Choice, name: str = DEPTH_MODEL, device: str = "cpu", photos: bool = False) -> DepthTool:
    """Depth Anything V2 where its weights are in the local cache, otherwise triangulation, or of photos the points."""
    classical = sparse_points if photos else triangulation
    tool, note = choose(choice, "depth", lambda: depth_anything(name, device), classical)
    return replace(tool, card=replace(tool.card, note=note))


def triangulation() -> DepthTool:
    """Depth from flow and poses; no weights."""
    return DepthTool(ModelCard("depth", "triangulated flow of static pixels", "1", "Apache-2.0"))


def sparse_points() -> DepthTool:
    """Depth at the points of structure from motion only; for photos, between which there is no flow."""
    return DepthTool(ModelCard("depth", "sparse points", "1", "Apache-2.0"))


def depth_anything(name: str = DEPTH_MODEL, device: str = "cpu") -> DepthTool:
    """A depth estimator of transformers from the local cache or a local folder.

    Raises WeightsAbsent where it is not there.
    """

    def load(folder: str) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        return AutoImageProcessor.from_pretrained(folder), AutoModelForDepthEstimation.from_pretrained(folder)

    (processor, model), revision = from_local(load, name, DEPTH_LICENCE, "--depth-model")
    model = model.eval().requires_grad_(False).to(device)

    def predict(rgb: Rgb) -> DepthMap:
        import torch

        inputs = processor(images=rgb, return_tensors="pt").to(device)
        with torch.no_grad():
            values = model(**inputs).predicted_depth[None].float()
        resized = torch.nn.functional.interpolate(values, rgb.shape[:2], mode="bicubic", align_corners=False)
        return resized[0, 0].cpu().numpy()

    metric = getattr(model.config, "depth_estimation_type", "relative") == "metric"
    return DepthTool(ModelCard("depth", name, revision, DEPTH_LICENCE), predict, metric)


def triangulated(fit: Fit, moving: Mask, trust: Float[np.ndarray, "H W"]) -> DepthMap:
    """Depth of static pixels with enough parallax, texture and agreement.

    trust: weight of each pixel's texture, 0 to 1.
    """
    sure = (fit.sigma * _FLOW_NOISE < _RELATIVE_ERROR * fit.inverse_depth) & (fit.inverse_depth > 0)
    with np.errstate(invalid="ignore"):
        sure &= (fit.residual < _RESIDUAL) & (trust > _TEXTURE) & ~moving
    depth = np.where(sure, 1 / np.where(sure, fit.inverse_depth, 1), 0).astype(np.float32)
    return without_outliers(depth)


def without_outliers(depth: DepthMap, size: int = 5, ratio: float = 1.25) -> DepthMap:
    """Without depths that differ from the median around them by more than a factor."""
    medians = _median_of_known(depth, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        wrong = (depth > ratio * medians) | (depth * ratio < medians)
    return np.where(wrong, 0, depth).astype(np.float32)


def _median_of_known(depth: DepthMap, size: int) -> DepthMap:
    """Median over a window of the depths that are known; 0 where none is."""
    from numpy.lib.stride_tricks import sliding_window_view

    padded = np.pad(np.where(depth > 0, depth, np.nan), size // 2, constant_values=np.nan)
    # Row by row of blocks, so that the windows of a large image do not all exist at once.
    result = np.zeros_like(depth)
    for start in range(0, len(depth), 64):
        block = padded[start : start + 64 + size - 1]
        windows = sliding_window_view(block, (size, size)).reshape(-1, depth.shape[1], size * size)
        ordered = np.sort(windows, axis=-1)  # NaN last
        count = np.isfinite(ordered).sum(-1)
        middle = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)[..., 0]
        result[start : start + len(middle)] = np.where(count > 0, middle, 0)
    return result


def from_points(pixels: Float[np.ndarray, "K 2"], depths: Float[np.ndarray, "K"], height: int, width: int) -> DepthMap:
    """A depth map that is known at sparse points only."""
    result = np.zeros((height, width), dtype=np.float32)
    order = np.argsort(-depths)  # the nearest of a pixel is written last
    x, y = pixels[order].astype(int).T if len(pixels) else (np.zeros(0, int), np.zeros(0, int))
    result[y.clip(0, height - 1), x.clip(0, width - 1)] = depths[order]
    return result


def fit_to_points(
    predicted: DepthMap,
    pixels: Float[np.ndarray, "K 2"],
    depths: Float[np.ndarray, "K"],
    metric: bool,
    iterations: int = 20,
) -> DepthMap:
    """Scale (and, of disparity, shift) a predicted map so that it agrees with sparse depths, robustly.

    Raises SemfieldError where there are too few points, or the fit turns near into far.
    """
    if len(depths) < _FEWEST_POINTS:
        raise SemfieldError(f"{len(depths)} sparse points are too few to fit a depth map to: use --models classical.")
    x, y = np.floor(pixels).astype(int).T
    height, width = predicted.shape
    values = predicted[y.clip(0, height - 1), x.clip(0, width - 1)].astype(np.float64)
    if metric:
        known = values > 0
        return (predicted * np.median(depths[known] / values[known])).astype(np.float32)
    design = np.stack([values, np.ones_like(values)], axis=-1)
    target = 1 / depths
    weight = np.ones_like(target)
    for _ in range(iterations):
        root = np.sqrt(weight)
        solution = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
        distance = np.abs(design @ solution - target)
        weight = 1 / (1 + (distance / max(1.5 * np.median(distance), 1e-9)) ** 2)
    if solution[0] <= 0:
        # The picture told nothing about depth here: a flat map at the points' median is the honest answer.
        solution = np.array([0.0, float(np.median(target))])
    disparity = predicted * solution[0] + solution[1]
    farthest = 4 * float(depths.max())  # the shift may push the sky behind infinity
    return (1 / np.maximum(disparity, 1 / farthest)).astype(np.float32)


def relative_error(
    depth: DepthMap, pixels: Float[np.ndarray, "K 2"], depths: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "k"]:
    """|depth / sparse - 1| at the sparse points where the map knows a depth."""
    if not len(depths):
        return np.zeros(0)
    x, y = np.floor(pixels).astype(int).T
    values = depth[y.clip(0, depth.shape[0] - 1), x.clip(0, depth.shape[1] - 1)]
    known = values > 0
    return np.abs(values[known] / depths[known] - 1)


def reduced(errors: Sequence[np.ndarray]) -> float | None:
    """Median over all frames; None where nothing was measured."""
    together = np.concatenate(list(errors)) if errors else np.zeros(0)
    return float(np.median(together)) if len(together) else None


def preview(depth: DepthMap) -> Rgb:
    """Colours from near (warm) to far (cold); black where nothing is known."""
    known = depth > 0
    if not known.any():
        return np.zeros((*depth.shape, 3), dtype=np.uint8)
    low, high = np.percentile(1 / depth[known], [2, 98])
    share = np.clip((1 / np.where(known, depth, np.inf) - low) / max(high - low, 1e-12), 0, 1)
    colors = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    picture = np.where(known[..., None], colors, 0).astype(np.uint8)
    if known.mean() < _SPARSE:
        picture = np.asarray(cv2.dilate(picture, np.ones((5, 5), np.uint8)), dtype=np.uint8)
    return picture
