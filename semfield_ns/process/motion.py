"""What moves by itself: pixels whose flow no motion of the camera explains.

Before poses are known, a fundamental matrix is fitted to the flow of two frames and what is off its lines is suspect;
that is only good enough to keep moving things out of the registration. With poses, a pixel is suspect if no single
static point explains its flow into several frames before and after (geometry.fit_depth), which also finds motion along
epipolar lines.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from semfield_ns.process.frames import Rgb
from semfield_ns.process.geometry import Fit, View, pixel_grid, sampson
from semfield_ns.scenes.flow import FlowMap, Mask

Evidence = Float[np.ndarray, "H W"]
"""-1 surely static to 1 surely moving; 0 where nothing is known"""

_SAMPLES = 4000  # of the flow, for the robust fits
_TOLERANCE = 0.7  # px; noise of flow that is right
_RELATIVE = 0.01  # and of its length
_USUAL = 0.5  # times that noise, which half of what stands still misses by
GRADIENT_NOISE = 4.0  # (grey levels per px)^2 below which texture does not tell where a pixel went
_FAR = 0.1  # of the inverse depth of what is near: so much less than 0 may be an error of the poses
_FLEETING = 0.5  # evidence that something stands still whose flow does not last
_SMOOTHING = 4.0  # px at a width of 480: evidence is averaged over its neighbourhood
_SMALLEST = 2e-4  # of the image: smaller islands are noise
_COVERED = 0.1  # share of a thing seen to move, from which all of it does
_SURE, _UNLIKELY = 0.5, -0.6  # evidence beyond which the colours may not overrule it

# --- two frames without poses ----------------------------------------------------------------------------------------


def epipolar_geometry(flow: FlowMap, valid: Mask, seed: int = 0) -> Float[np.ndarray, "3 3"] | None:
    """The fundamental matrix that most of the valid flow follows; None where there is too little of it."""
    places = np.flatnonzero(valid)
    if len(places) < 50:
        return None
    places = np.random.default_rng(seed).choice(places, min(_SAMPLES, len(places)), replace=False)
    start = pixel_grid(*valid.shape).reshape(-1, 2)[places]
    cv2.setRNGSeed(seed)
    try:
        found, _ = cv2.findFundamentalMat(start, start + flow.reshape(-1, 2)[places], cv2.USAC_MAGSAC, 1.0, 0.999, 2000)
    except cv2.error:  # its way to say that the matches suit none
        return None
    return None if found is None else found[:3]


def unexplained(flow: FlowMap, valid: Mask) -> Evidence:
    """Evidence of motion from one pair of frames without poses: the distance to the epipolar lines.

    Distance from a dominant plane does not count, however large: what stands before a wall is what poses hang on.
    """
    fundamental = epipolar_geometry(flow, valid)
    if fundamental is None:
        return np.zeros(valid.shape)
    start = pixel_grid(*valid.shape)
    tolerance = 2 * (_TOLERANCE + _RELATIVE * np.linalg.norm(flow, axis=-1))
    distance = sampson(fundamental, start, start + flow) / tolerance
    return np.where(valid, np.clip(distance - 1, -1, 1), 0.0)


def joined(evidence: Sequence[Evidence]) -> Evidence:
    """Evidence of several pairs: the mean of those that know something."""
    stack = np.stack(evidence)
    known = (stack != 0).sum(0)
    return np.where(known > 0, stack.sum(0) / np.maximum(known, 1), 0.0)


# --- several posed frames --------------------------------------------------------------------------------------------


def texture(rgb: Rgb) -> Float[np.ndarray, "3 H W"]:
    """Structure tensor (xx, xy, yy) of the grey levels, (levels per px)^2, averaged over some pixels."""
    gray = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.stack([cv2.GaussianBlur(product, (0, 0), 2.5) for product in (dx * dx, dx * dy, dy * dy)])


def strongest(tensor: Float[np.ndarray, "3 H W"]) -> Float[np.ndarray, "H W"]:
    """The larger eigenvalue of each pixel's structure tensor."""
    xx, xy, yy = tensor
    return np.asarray((xx + yy) / 2 + np.sqrt(((xx - yy) / 2) ** 2 + xy**2))


def not_static(fit: Fit, views: Sequence[View], tensor: Float[np.ndarray, "3 H W"]) -> tuple[Evidence, Evidence]:
    """Evidence that no static point explains a pixel's flow, and how much the evidence of each pixel weighs, 0 to 1.

    An offset counts as far as it could be seen: e^T S e, with S the structure tensor, is the change of grey levels that
    it means; along an edge, and on a blank wall, flow is a guess and tells nothing.
    """
    if not views:
        zero = np.zeros(fit.residual.shape)
        return zero, zero
    x, y = fit.offsets[..., 0], fit.offsets[..., 1]
    xx, xy, yy = tensor
    strength = strongest(tensor)
    seen = (xx * x * x + 2 * xy * x * y + yy * y * y) / (strength + GRADIENT_NOISE)
    length = np.stack([np.linalg.norm(view.flow, axis=-1) for view in views])
    known = np.stack([view.valid for view in views])
    noise = _TOLERANCE**2 + (_RELATIVE * length) ** 2
    # The median over views: in some of them a static pixel is behind a moving thing, whose flow it then has.
    each = np.where(known, np.sqrt(seen / noise), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a view
        distance = np.nan_to_num(np.nanmedian(each, axis=0))
    # Where most of the picture misses by more, the poses do, or its rows were exposed one after the other.
    sure = (fit.count > 0) & (strength > GRADIENT_NOISE)
    distance = distance / max(1.0, float(np.median(distance[sure])) / _USUAL) if sure.any() else distance
    # A point behind the camera is no point: what follows the camera, or overtakes it, seems to be there. Where poses
    # are not exact, so does what is very far, by a little.
    near = float(np.percentile(fit.inverse_depth[sure], 90)) if sure.any() else 0.0
    behind = -np.maximum(3 * fit.sigma * _TOLERANCE, _FAR * max(near, 0.0))
    distance = np.where(fit.inverse_depth < behind, np.maximum(distance, 2.0), distance)
    evidence = np.where(fit.count > 0, np.clip(distance - 1, -1, 1), 0.0)
    return evidence, np.where(fit.count > 0, strength / (strength + GRADIENT_NOISE), 0.1)


def doubted(evidence: Evidence, views: Sequence[View]) -> Evidence:
    """The evidence without that of motion where flow does not last: it is lost in half of the views or more.

    For pictures of which too much seems to move. Of ripples and reflections flow is a guess, another one each time. But
    limbs in a dance are lost as soon, so this is not for all pictures.
    """
    if not views:
        return evidence
    grid = pixel_grid(*evidence.shape)
    inside = [((grid + v.flow > 0) & (grid + v.flow < grid.shape[1::-1])).all(axis=-1) for v in views]
    share = np.sum([view.valid for view in views], axis=0) / np.maximum(np.sum(inside, axis=0), 1)
    lasting = np.clip(2 * share - 1, 0, 1)
    return np.where(evidence > 0, lasting * evidence - (1 - lasting) * _FLEETING, evidence)


# --- evidence to mask ------------------------------------------------------------------------------------------------


def smoothed(evidence: Evidence, weight: Evidence | None = None) -> Evidence:
    """Weighted mean over the neighbourhood, drawn to 0 where nothing weighs."""
    weight = np.ones_like(evidence) if weight is None else weight
    sigma = _SMOOTHING * max(evidence.shape) / 480
    mean = cv2.GaussianBlur((evidence * weight).astype(np.float32), (0, 0), sigma)
    return np.asarray(mean / (cv2.GaussianBlur(weight.astype(np.float32), (0, 0), sigma) + 0.05))


def to_quick_mask(evidence: Evidence, rgb: UInt8[np.ndarray, "H W 3"], longest: int = 320) -> Mask:
    """to_mask at a reduced size, px, for what need not be exact."""
    height, width = evidence.shape
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(evidence.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mask = to_mask(np.asarray(small), np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
    return np.asarray(cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def to_mask(evidence: Evidence, rgb: UInt8[np.ndarray, "H W 3"]) -> Mask:
    """Mask of what moves: smoothed evidence carried to the edges of things by their colours (GrabCut), no islands.

    Colours decide where the evidence is undecided; where nothing is surely moving there is no mask.
    """
    sure = evidence > _SURE
    if sure.sum() < _SMALLEST * evidence.size:
        return np.zeros(evidence.shape, dtype=bool)
    guess = np.where(
        sure,
        cv2.GC_FGD,
        np.where(evidence > 0, cv2.GC_PR_FGD, np.where(evidence > _UNLIKELY, cv2.GC_PR_BGD, cv2.GC_BGD)),
    ).astype(np.uint8)
    if (guess == cv2.GC_FGD).all() or not ((guess == cv2.GC_BGD) | (guess == cv2.GC_PR_BGD)).any():
        return sure
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cut: Any = cv2.grabCut  # its stubs want a rectangle, which a given mask makes superfluous
    cut(np.ascontiguousarray(rgb), guess, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    return without_islands((guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD), round(_SMALLEST * evidence.size))


def completed(mask: Mask, things: Mask) -> Mask:
    """The mask with those connected parts of `things` whole that it covers a share of.

    For things of classes that may move: a parked car is one of them, and stays out.
    """
    count, parts = cv2.connectedComponents(things.astype(np.uint8), connectivity=4)
    size = np.bincount(parts.ravel(), minlength=count)
    covered = np.bincount(parts[mask], minlength=count)
    moving = covered > _COVERED * size
    moving[0] = False
    return mask | moving[parts]


def without_islands(mask: Mask, smallest: int) -> Mask:
    """Without connected parts, and holes, of fewer pixels."""
    result = mask.copy()
    for value in (True, False):
        _, parts, statistics, _ = cv2.connectedComponentsWithStats((result == value).astype(np.uint8), connectivity=4)
        small = statistics[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False
        result[small[parts]] = not value
    return result
