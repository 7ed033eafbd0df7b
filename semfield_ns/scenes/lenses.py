"""Pictures of lenses that bend lines, as pinholes would see them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import capital
from semfield_ns.rendering.projection import distort, undistort
from semfield_ns.scenes.scene import Frame, Lens

STRAIGHT = 1e-8
"""coefficients that bend nothing"""
TINY = 1e-12
STEEPEST = 1.5
"""rad off the axis: the most that rays of a fisheye are"""
WIDEST = np.pi / 3
"""rad that the pinhole of a fisheye sees to each side, at most"""
NEWTON_STEPS = 12
MAX_MISS = 0.05
"""px by which a pixel may miss itself on its way through the lens and back"""


def bend(rays: Float[np.ndarray, "*shape 2"], lens: Lens) -> Float[np.ndarray, "*shape 2"]:
    """Pixels of rays (x right and y down at depth 1)."""
    if lens.fisheye:
        radius = np.linalg.norm(rays, axis=-1, keepdims=True)
        angle = np.arctan(radius)
        scale = np.where(radius > TINY, angle * _fisheye(angle, lens)[0] / np.maximum(radius, TINY), 1.0)
        return rays * scale * lens.intrinsics[:2] + lens.intrinsics[2:]
    bent = distort(torch.from_numpy(rays), torch.tensor(lens.distortion, dtype=torch.float64)).numpy()
    return bent * lens.intrinsics[:2] + lens.intrinsics[2:]


def straighten(pixels: Float[np.ndarray, "*shape 2"], lens: Lens) -> Float[np.ndarray, "*shape 2"]:
    """Rays of pixels: the inverse of `bend`; of a fisheye, none is more than `STEEPEST` off the axis."""
    if lens.fisheye:
        bent = (pixels - lens.intrinsics[2:]) / lens.intrinsics[:2]
        radius = np.linalg.norm(bent, axis=-1, keepdims=True)
        angle = np.minimum(radius, STEEPEST)
        for _ in range(NEWTON_STEPS):
            factor, slope = _fisheye(angle, lens)
            angle = np.clip(angle - (angle * factor - radius) / np.where(np.abs(slope) > TINY, slope, 1.0), 0, STEEPEST)
        return bent * np.where(radius > TINY, np.tan(angle) / np.maximum(radius, TINY), 1.0)
    bent = torch.from_numpy((pixels - lens.intrinsics[2:]) / lens.intrinsics[:2])
    return undistort(bent, torch.tensor(lens.distortion, dtype=torch.float64)).numpy()


def _fisheye(angle: np.ndarray, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """1 + k1 a^2 + k2 a^4 + k3 a^6 + k4 a^8 of angles to the optical axis, and the derivative of a times that."""
    square = angle * angle
    k1, k2, k3, k4 = lens.distortion[:4]
    factor = 1 + square * (k1 + square * (k2 + square * (k3 + square * k4)))
    slope = 1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * 9 * k4)))
    return factor, slope


def undistorted(frame: Frame) -> Frame:
    """The frame as a pinhole of the same place and picture size sees it; its `lens` says what its files show.

    The pinhole sees the largest upright rectangle that lies inside the lens's picture, so that no pixel is empty; of a
    fisheye at most `WIDEST` to each side, beyond which a pinhole's picture is all border.

    Raises:
        SemfieldError: the lens folds its picture back, so that a pixel belongs to two rays.
    """
    if not frame.fisheye and np.abs(frame.distortion).max() <= STRAIGHT:
        return frame
    lens = Lens(
        (frame.fx, frame.fy, frame.cx, frame.cy),
        tuple(float(value) for value in frame.distortion),
        frame.width,
        frame.height,
        frame.fisheye,
    )
    across, down = np.arange(frame.width + 1.0), np.arange(frame.height + 1.0)
    zero_x, zero_y = np.zeros_like(down), np.zeros_like(across)
    left = _rays(frame, lens, np.stack([zero_x, down], axis=-1))[:, 0].max()
    right = _rays(frame, lens, np.stack([zero_x + frame.width, down], axis=-1))[:, 0].min()
    top = _rays(frame, lens, np.stack([across, zero_y], axis=-1))[:, 1].max()
    bottom = _rays(frame, lens, np.stack([across, zero_y + frame.height], axis=-1))[:, 1].min()
    if frame.fisheye:
        left, right, top, bottom = np.clip([left, right, top, bottom], -np.tan(WIDEST), np.tan(WIDEST))
        corner = np.arctan(np.hypot(max(-left, right), max(-top, bottom)))
        if not (_fisheye(np.linspace(0, corner, 200), lens)[1] > 0).all():
            raise _folded(frame, lens)
    fx, fy = frame.width / (right - left), frame.height / (bottom - top)
    pinhole = replace(frame, fx=fx, fy=fy, cx=-left * fx, cy=-top * fy)
    return replace(pinhole, distortion=np.zeros(6), fisheye=False, lens=lens)


def _rays(frame: Frame, lens: Lens, pixels: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    rays = straighten(pixels, lens)
    missed = np.abs(bend(rays, lens) - pixels).max(axis=-1)
    if lens.fisheye:  # what is further off the axis than any ray is cut off anyway
        missed = missed[np.linalg.norm(rays, axis=-1) < 0.99 * np.tan(STEEPEST)]
    if len(missed) and not missed.max() < MAX_MISS:
        raise _folded(frame, lens)
    return rays


def _folded(frame: Frame, lens: Lens) -> SemfieldError:
    return SemfieldError(
        f"{capital(frame.where)}: its lens coefficients {lens.distortion} fold the picture back before its border: "
        "check them, or undistort the pictures with the program that found them."
    )


def undistorted_frames(frames: Sequence[Frame]) -> list[Frame]:
    """All frames as pinholes see them.

    Raises:
        SemfieldError: as `undistorted` does; a camera with optical flow changes its lens, so that where flow leads is
            not known.
    """
    found = [undistorted(frame) for frame in frames]
    of_camera: dict[str, Lens | None] = {}
    for frame in found:
        flows = frame.flow_fwd_path is not None or frame.flow_bwd_path is not None
        if flows and of_camera.setdefault(frame.camera_id, frame.lens) != frame.lens:
            raise SemfieldError(
                f"{capital(frame.where)}: its lens is not that of the frames before, so where their optical flow leads "
                "is not known: give every frame of a camera the same lens, or leave out optical flow."
            )
    return found


def pixels_in_file(frame: Frame) -> Float[np.ndarray, "H W 2"]:
    """Where the pixels of a frame with a lens lie in its files' pictures, px at the frame's size; centres at +0.5."""
    assert frame.lens is not None, "asked of frames with a lens"
    return _pixels(frame.lens, (frame.fx, frame.fy, frame.cx, frame.cy))


@lru_cache(maxsize=8)
def _pixels(lens: Lens, pinhole: tuple[float, float, float, float]) -> np.ndarray:
    x, y = np.meshgrid(np.arange(lens.width) + 0.5, np.arange(lens.height) + 0.5)
    rays = (np.stack([x, y], axis=-1) - pinhole[2:]) / pinhole[:2]
    return bend(rays, lens).astype(np.float32)


def resampled(values: np.ndarray, frame: Frame, interpolation: int) -> np.ndarray:
    """Values [H, W, ...] of a file at the frame's size, as the frame shows them; the same where it has no lens.

    Args:
        values: as read.
        frame: whose they are.
        interpolation: of OpenCV.
    """
    if frame.lens is None:
        return values
    places = pixels_in_file(frame) - 0.5
    return cv2.remap(values, places[..., 0], places[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE)


def resampled_flow(flow: Float[np.ndarray, "H W 2"], frame: Frame) -> Float[np.ndarray, "H W 2"]:
    """Optical flow between pictures of the frame's lens as flow between pinholes' pictures, px."""
    if frame.lens is None:
        return flow
    places = pixels_in_file(frame)
    there = places + resampled(flow, frame, cv2.INTER_NEAREST)
    rays = straighten(there.astype(np.float64), frame.lens)
    ends = rays * [frame.fx, frame.fy] + [frame.cx, frame.cy]
    x, y = np.meshgrid(np.arange(frame.width) + 0.5, np.arange(frame.height) + 0.5)
    return (ends - np.stack([x, y], axis=-1)).astype(np.float32)
