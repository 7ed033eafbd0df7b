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
_GRADIENT_NOISE = 4.0  # (grey levels per px)^2 below which texture does not tell where a pixel went
_SMOOTHING = 4.0  # px at a width of 480: evidence is averaged over its neighbourhood
_SMALLEST = 2e-4  # of the image: smaller islands are noise
_COVERED = 0.1  # share of a thing seen to move, from which all of it does
_SURE, _UNLIKELY = 0.5, -0.6  # evidence beyond which the colours may not overrule it

# --- two frames without poses ----------------------------------------------------------------------------------------


def fit_camera_motion(
    flow: FlowMap, valid: Mask, seed: int = 0
) -> tuple[Float[np.ndarray, "3 3"] | None, Float[np.ndarray, "3 3"] | None]:
    """(fundamental matrix, homography) that most of the valid flow follows; None where there is too little of it."""
    places = np.flatnonzero(valid)
    if len(places) < 50:
        return None, None
    places = np.random.default_rng(seed).choice(places, min(_SAMPLES, len(places)), replace=False)
    start = pixel_grid(*valid.shape).reshape(-1, 2)[places]
    end = start + flow.reshape(-1, 2)[places]
    cv2.setRNGSeed(seed)
    fundamental, _ = cv2.findFundamentalMat(start, end, cv2.USAC_MAGSAC, 1.0, 0.999, 2000)
    homography, _ = cv2.findHomography(start, end, cv2.USAC_MAGSAC, 2.0, maxIters=2000, confidence=0.999)
    return None if fundamental is None else fundamental[:3], homography


def homography_distance(homography: Float[np.ndarray, "3 3"], flow: FlowMap) -> Float[np.ndarray, "H W"]:
    """Px between where the flow leads and where the homography does."""
    start = pixel_grid(*flow.shape[:2])
    mapped = np.concatenate([start, np.ones((*flow.shape[:2], 1))], axis=-1) @ homography.T
    scale = np.where(np.abs(mapped[..., 2:]) < 1e-9, 1e-9, mapped[..., 2:])
    return np.linalg.norm(mapped[..., :2] / scale - (start + flow), axis=-1)


def unexplained(flow: FlowMap, valid: Mask) -> Evidence:
    """Evidence of motion from one pair of frames without poses: the distance to the epipolar lines.

    Distance from a dominant plane does not count, however large: what stands before a wall is what poses hang on.
    """
    fundamental, _ = fit_camera_motion(flow, valid)
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


def looks_like_rotation(homography: Float[np.ndarray, "3 3"], width: int, height: int) -> float:
    """How far, relative, a homography is from that of a camera that only turns, for the focal length that suits best.

    Such a one is K R K^-1: with the right K what remains is orthonormal.
    """
    scaled = homography / np.cbrt(np.linalg.det(homography))
    best = np.inf
    for focal in np.geomspace(0.4, 4.0, 40) * max(width, height):
        k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        turn = np.linalg.inv(k) @ scaled @ k
        best = min(best, float(np.abs(turn.T @ turn - np.eye(3)).max()))
    return best


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
    seen = (xx * x * x + 2 * xy * x * y + yy * y * y) / (strength + _GRADIENT_NOISE)
    length = np.stack([np.linalg.norm(view.flow, axis=-1) for view in views])
    known = np.stack([view.valid for view in views])
    noise = _TOLERANCE**2 + (_RELATIVE * length) ** 2
    # The median over views: in some of them a static pixel is behind a moving thing, whose flow it then has.
    each = np.where(known, np.sqrt(seen / noise), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a view
        distance = np.nan_to_num(np.nanmedian(each, axis=0))
    # A point behind the camera is no point: what follows the camera, or overtakes it, seems to be there.
    distance = np.where(fit.inverse_depth < -3 * fit.sigma * _TOLERANCE, np.maximum(distance, 2.0), distance)
    evidence = np.where(fit.count > 0, np.clip(distance - 1, -1, 1), 0.0)
    return evidence, np.where(fit.count > 0, strength / (strength + _GRADIENT_NOISE), 0.1)


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
