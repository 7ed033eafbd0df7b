"""Optical flow: files, estimation between the frames of a video, and labels carried along it.

Flow is (H,W,2) float32, (dx, dy) in px: what is at pixel p of one frame is at p + flow[p] of the other.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import cache_root, capital, read_npz, read_rgb, write_npz
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.scenes.scene import Frame

FlowMap = Float[np.ndarray, "H W 2"]
Mask = Bool[np.ndarray, "H W"]

_ESTIMATOR, _OF_TWO_SIZES = "dis-1", "blurred-1"  # part of the cache key: change it with the algorithm
_SMALLEST = 16  # px; DIS compares patches of 8 px over a pyramid

# --- files -----------------------------------------------------------------------------------------------------------


def read_flow(path: Path, where: str = "optical flow") -> tuple[FlowMap, Mask]:
    """Read an npz with `flow` (H,W,2) px and, if present, `mask` (H,W), not 0 where the flow may be trusted.

    Flow that is NaN or infinite is 0 and not valid. Raises SemfieldError naming `where` and the file.
    """
    arrays = read_npz(path, where)
    flow = arrays.get("flow")
    if flow is None or flow.ndim != 3 or flow.shape[2] != 2 or flow.dtype.kind not in "fiu":
        found = "no array" if flow is None else f"an array {flow.shape} of {flow.dtype}"
        raise SemfieldError(f'{capital(where)}: {path} has {found} "flow", numbers of the shape (H, W, 2) are wanted.')
    flow = flow.astype(np.float32)
    valid = np.isfinite(flow).all(axis=-1)
    if "mask" in arrays:
        if arrays["mask"].shape != valid.shape:
            raise SemfieldError(f'{capital(where)}: "mask" in {path} is {arrays["mask"].shape}, not {valid.shape}.')
        valid &= arrays["mask"].astype(bool)
    return np.where(np.isfinite(flow), flow, np.float32(0)), valid


def write_flow(path: Path, flow: FlowMap, valid: Mask) -> None:
    """Write flow as read_flow reads it, atomically, as 16-bit floats (exact to 1/16 px up to 128 px)."""
    write_npz(path, flow=flow.astype(np.float16), mask=valid.astype(bool))


# --- pure functions --------------------------------------------------------------------------------------------------


def estimate_flow(rgb_a: UInt8[np.ndarray, "H W 3"], rgb_b: UInt8[np.ndarray, "H W 3"]) -> FlowMap:
    """Flow from image a to image b by dense inverse search (OpenCV DIS) down to the finest scale."""
    height, width = rgb_a.shape[:2]
    gray_a, gray_b = (cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY) for rgb in (rgb_a, rgb_b))
    border = max(0, _SMALLEST - height), max(0, _SMALLEST - width)
    gray_a, gray_b = (np.pad(gray, ((0, border[0]), (0, border[1])), mode="edge") for gray in (gray_a, gray_b))
    estimator: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0)
    flow = estimator.calc(gray_a, gray_b, None)
    return np.asarray(flow, dtype=np.float32)[:height, :width]


def consistency_mask(forward: FlowMap, backward: FlowMap, relative: float = 0.01, absolute: float = 0.5) -> Mask:
    """Where going along `forward` and back along `backward` ends near the start.

    |forward + backward|^2 < relative (|forward|^2 + |backward|^2) + absolute (px^2), and inside the image:
    what is occluded or leaves the picture fails.
    """
    height, width = forward.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    u, v = x + forward[..., 0], y + forward[..., 1]
    returned = _looked_up(backward, forward)
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    gap = np.square(forward + returned).sum(axis=-1)
    return inside & (gap < relative * (np.square(forward).sum(-1) + np.square(returned).sum(-1)) + absolute)


def consistency_gap(forward: FlowMap, backward: FlowMap) -> Float[np.ndarray, "H W"]:
    """Px between a pixel and where going along `forward` and back along `backward` ends."""
    return np.asarray(np.linalg.norm(forward + _looked_up(backward, forward), axis=-1))


def _looked_up(values: FlowMap, flow: FlowMap) -> FlowMap:
    """values[p + flow[p]]."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    u, v = x + flow[..., 0], y + flow[..., 1]
    return cv2.remap(values.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def follow(
    flows: Iterable[tuple[FlowMap, Mask | None]], shape: tuple[int, int]
) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, "H W"], Mask]:
    """Where the pixels of a frame are after a chain of flows: columns and rows, and where that is doubtful.

    A chain that leaves the image goes on along its border, and flow that is not valid is followed: both make it
    doubtful. Flow that is not finite is no motion, and not valid.

    Args:
        flows: of consecutive frames, px, each to the next on the way, with their validity (None: valid everywhere).
        shape: height and width of the frames.
    """
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    doubtful = np.zeros(shape, bool)
    for flow, valid in flows:
        known = np.isfinite(flow).all(axis=-1) & (True if valid is None else valid)
        channels = (*np.moveaxis(np.nan_to_num(flow, nan=0.0, posinf=0.0, neginf=0.0), -1, 0), known)
        dx, dy, known = (
            cv2.remap(channel.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for channel in channels
        )
        x, y = x + dx, y + dy
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        doubtful |= ~((known > 0.5) & inside)
        x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    return np.rint(x).astype(np.int64), np.rint(y).astype(np.int64), doubtful


def warp_labels(labels: Int[np.ndarray, "H W"], flow: FlowMap, valid: Mask) -> Int[np.ndarray, "H W"]:
    """Labels of another frame seen from this one: out[p] = labels[round(p + flow[p])].

    flow goes from this frame to the one that is labelled. IGNORE (-1) where it is not valid or leaves the image.
    """
    columns, rows, doubtful = follow([(flow, valid)], labels.shape)
    return np.where(doubtful, IGNORE, labels[rows, columns])


# --- estimation for a whole scene ------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where estimated flow is kept: $SEMFIELD_CACHE/flow, or ~/.cache/semfield_ns/flow."""
    return cache_root() / "flow"


def ensure_flows(frames: Sequence[Frame], folder: Path | None = None) -> list[Frame]:
    """Estimate the flow that a scene lacks between consecutive frames of each camera.

    Results are kept in `folder` (cache_folder() if None) under the content of the two images, so a scene's own folder
    is never written to, an interrupted run resumes where it stopped, and a second one only looks files up.

    Args:
        frames: frames of one scene; consecutive means consecutive in time for the same camera_id.
        folder: the cache.
    Returns: the frames, in the same order, with flow paths wherever a neighbour in time exists.
    Raises: SemfieldError for an image that cannot be read, or a cache that cannot be written (naming the file).
    """
    folder = cache_folder() if folder is None else Path(folder)
    result = list(frames)
    pairs = [
        (i, j)
        for i, j in _neighbours(frames)
        if frames[i].size == frames[j].size and not (frames[i].flow_fwd_path and frames[j].flow_bwd_path)
    ]
    digests = {i: _digest(frames[i]) for i in sorted({i for pair in pairs for i in pair})}
    files = {
        (i, j): _cache_files(folder, digests[i], digests[j], _pixel(frames[i]) == _pixel(frames[j])) for i, j in pairs
    }
    missing = [pair for pair in pairs if not all(file.is_file() for file in files[pair])]
    if missing:
        _estimate_pairs(frames, missing, files, folder)
    for i, j in pairs:
        forward, backward = files[i, j]
        result[i] = replace(result[i], flow_fwd_path=result[i].flow_fwd_path or forward)
        result[j] = replace(result[j], flow_bwd_path=result[j].flow_bwd_path or backward)
    return result


def _neighbours(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Index pairs of frames that follow one another in the video of one camera."""
    cameras: dict[str, list[int]] = {}
    for i in sorted(range(len(frames)), key=lambda i: frames[i].time):
        cameras.setdefault(frames[i].camera_id, []).append(i)
    return [pair for video in cameras.values() for pair in pairwise(video)]


def _digest(frame: Frame) -> bytes:
    try:
        return hashlib.sha256(frame.image_path.read_bytes()).digest()
    except OSError as error:
        raise SemfieldError(f"{capital(frame.where)}: cannot read {frame.image_path} ({error.strerror}).") from error


def _cache_files(folder: Path, digest_a: bytes, digest_b: bytes, one_size: bool) -> tuple[Path, Path]:
    estimator = _ESTIMATOR if one_size else _ESTIMATOR + _OF_TWO_SIZES
    key = hashlib.sha256(estimator.encode() + digest_a + digest_b).hexdigest()[:32]
    return folder / f"{key}_fwd.npz", folder / f"{key}_bwd.npz"


def _estimate_pairs(
    frames: Sequence[Frame],
    pairs: Sequence[tuple[int, int]],
    files: dict[tuple[int, int], tuple[Path, Path]],
    folder: Path,
) -> None:
    from nerfstudio.utils.rich_utils import CONSOLE
    from rich.progress import track

    CONSOLE.log(f"Estimating optical flow (OpenCV DIS) for {len(pairs)} pairs of frames into {folder}")
    for i, j in track(pairs, description="Optical flow", console=CONSOLE, transient=True):
        blurred = max(_pixel(frames[i]), _pixel(frames[j]))
        rgb_a, rgb_b = (_read(frame, blurred) for frame in (frames[i], frames[j]))
        forward, backward = estimate_flow(rgb_a, rgb_b), estimate_flow(rgb_b, rgb_a)
        write_flow(files[i, j][0], forward, consistency_mask(forward, backward))
        write_flow(files[i, j][1], backward, consistency_mask(backward, forward))


def _pixel(frame: Frame) -> float:
    """Width of a pixel of the file, px of the frame: above 1 where the picture is made larger when it is read."""
    return 1.0 if frame.stored_size is None else frame.width / frame.stored_size[1]


def _read(frame: Frame, pixel: float) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as blurred as one with pixels of this width: details are not to be looked for where there are none."""
    rgb = read_rgb(frame.image_path, f"{frame.where}, image", frame.size, Image.Resampling.BICUBIC)
    more = pixel**2 - _pixel(frame) ** 2
    return rgb if more <= 0 else np.asarray(cv2.GaussianBlur(rgb, (0, 0), 0.5 * more**0.5))
