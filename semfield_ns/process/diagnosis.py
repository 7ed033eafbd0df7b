"""Whether the camera moved so that there is a path to be found, judged by optical flow.

Structure from motion cannot be trusted to say so: it explains a camera that only turns by a bent lens and a path that
never was.
"""

from typing import Any

import numpy as np

from semfield_ns.io import read_json
from semfield_ns.process import motion
from semfield_ns.process.flow import FlowWindow
from semfield_ns.process.workspace import Workspace, read_mask

_PAIRS = 12  # of frames that the camera's motion is judged by
_STILL = 0.004  # of the width: less motion over the whole video is a camera that stands
_FLAT = 0.95  # share of still pixels that a homography explains, if the camera only turns
_TURNS = 0.01  # and how far, at most, that homography is from a rotation


def diagnose(work: Workspace) -> dict[str, Any]:
    """How the camera moves, from flow over as many frames as can be followed."""
    count, width, height = len(work.picked.frames), *work.picked.size
    step = max(1, count // _PAIRS)
    window = FlowWindow(work.images, work.flow)
    shifts, turns, flats = [], [], []
    for i in range(0, count - step, step):
        window.forget(i)
        flow, valid = window.between(i, i + step)
        still = valid & ~read_mask(work.rough_mask_file(i))
        _, homography = motion.fit_camera_motion(flow, still)
        if homography is None:
            continue
        # Not the median: a camera that turns about a thing keeps most of it in place.
        shifts.append(float(np.percentile(np.linalg.norm(flow[still], axis=-1), 95)) / width)
        flats.append(float((motion.homography_distance(homography, flow) < 1.5)[still].mean()))
        turns.append(motion.looks_like_rotation(homography, width, height))
    middle = lambda values: float(np.median(values)) if values else 0.0  # noqa: E731
    return {"shift": middle(shifts), "flat_share": middle(flats), "rotation_misfit": middle(turns), "step": step}


def no_path(work: Workspace) -> str:
    """A sentence on why there is no path of the camera to be found; empty if there may be one."""
    seen = read_json(work.record("rough"))
    if seen["shift"] < _STILL:
        return "the camera hardly moves, and without parallax there is neither depth nor a path to be found."
    if seen["flat_share"] > _FLAT and seen["rotation_misfit"] < _TURNS:
        return "the camera only turns on the spot, and without parallax there is neither depth nor a path to be found."
    return ""
