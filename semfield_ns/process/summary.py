"""What a user should know of a finished run: models, figures, warnings. For the log and the report."""

from typing import Any

from semfield_ns.io import read_json
from semfield_ns.process.models import ModelCard
from semfield_ns.process.workspace import Workspace

_LITTLE_PARALLAX = 1.0  # degrees
_FIGURES = {
    "rough": {"shift": "shift_of_width"},
    "motion": {"agreement": "motion_agreement"},
    "flow": {"agreeing": "flow_agreeing_share"},
    "masks": {
        "epipolar_error_px": "epipolar_error_px",
        "epipolar_error_90_px": "epipolar_error_90_px",
        "moving_share": "moving_share",
    },
    "depth": {"coverage": "depth_known_share", "relative_error_at_points": "depth_relative_error_at_points"},
    "labels": {"carried": "labels_carried_by_flow"},
}
MEANINGS = {
    "registered": "frames with a pose",
    "frames": "frames that were picked",
    "contradicted": "frames left out, since most of what is followed there contradicts their poses",
    "reprojection_error_px": "by which points miss their features, on average; good below 1",
    "camera_motion": "whether the camera went somewhere (moving), only turned (turning), or stood (still)",
    "turn_deg": "widest turn of the camera",
    "turns_explain": "share of the pixels followed far that arrive where the turns lead",
    "in_between": "of those that arrive there or near, the share that is only near; 0.3 and more shows a path",
    "zoom": "longest focal length by the shortest",
    "points": "sparse points",
    "mean_track_length": "frames that see a point, on average",
    "median_parallax_deg": "widest angle under which cameras see a point; good above 3",
    "focal_px": "focal length",
    "focal_given": "whether it was given",
    "focal_certain": "whether the pictures tell it",
    "distortion_k1": "radial distortion of the lens",
    "settings": "of structure from motion that worked",
    "shift_of_width": "farthest that still pixels were followed to, as a share of the width",
    "flow_agreeing_share": "pixels whose flow to the next frame and back ends where it began",
    "epipolar_error_px": "between flow of static pixels and their epipolar lines, median; good below 0.6",
    "epipolar_error_90_px": "the same, 90th percentile",
    "motion_agreement": "how well image features tell what the flow says moves, 0 to 1, in frames not learned from",
    "moving_share": "pixels that move, mean of the frames",
    "depth_known_share": "pixels with a depth",
    "depth_relative_error_at_points": "of depth against the sparse points, median; good below 0.03",
    "labels_carried_by_flow": "frames whose labels come from other frames",
}


def cards(work: Workspace) -> list[ModelCard]:
    """What made each part of the scene."""
    found = [work.registration.card]
    for step in ("flow", "masks", "depth", "labels"):
        record = read_json(work.record(step)) if work.record(step).is_file() else {}
        if "card" in record:
            found.append(ModelCard(**record["card"]))
    return found


def figures(work: Workspace) -> dict[str, Any]:
    """All measured quality, by name."""
    found = dict(work.registration.figures)
    for step, keys in _FIGURES.items():
        if work.record(step).is_file():
            record = read_json(work.record(step))
            found |= {name: record[key] for key, name in keys.items() if record.get(key) is not None}
    return found


def warnings(work: Workspace) -> list[str]:
    """What may be wrong with the result, worst first."""
    return [*_of_poses(work), *_of_motion(work), *work.picked.warnings]


def _of_poses(work: Workspace) -> list[str]:
    measured, count = work.registration.figures, len(work.picked.frames)
    found = [one_place(work)] if work.registration.one_place else []
    if len(work.kept) < count:
        contradicted = measured.get("contradicted", 0)
        why = (
            f" ({contradicted} of them because what is followed there contradicts their poses)" if contradicted else ""
        )
        found.append(f"{count - len(work.kept)} of {count} frames could not be registered and were left out{why}.")
    parallax = measured.get("median_parallax_deg")
    if parallax is not None and parallax < _LITTLE_PARALLAX:
        found.append(f"Little parallax (median {parallax:.2f}°): depth and camera path are uncertain. Walk further.")
    if not measured.get("focal_certain", True):
        bent = "" if work.registration.one_place else ", and depth may be stretched"
        found.append(
            f"The camera hardly turns, so the pictures do not tell its focal length: {measured['focal_px']:.0f} px is "
            f"a guess{bent}. Give it with --focal if you know it."
        )
    if (measured.get("reprojection_error_px") or 0) > 1.2:
        found.append(
            f"The points miss their pixels by {measured['reprojection_error_px']:.2f} px on average: moving things "
            "were taken for static ones, the camera zoomed, or its rows are exposed one after the other (rolling "
            "shutter)."
        )
    return found


def one_place(work: Workspace) -> str:
    """What a scene whose pictures are all of one place is good for, and why it is one."""
    registration = work.registration
    did = "stood still" if registration.figures["camera_motion"] == "still" else "only turned"
    why = f"No path of the camera could be found, so it is taken to have turned: {registration.card.note}"
    return (
        f"{why if registration.card.note else f'The camera {did}.'} Depth and other viewpoints are not known; labels, "
        "tracking, semantic videos and edits work in the video's own views. For others, walk while filming."
    )


def _of_motion(work: Workspace) -> list[str]:
    if work.settings.static:
        return []
    masks, found = read_json(work.record("masks")), []
    told = read_json(work.record("motion"))
    if not told["told"]:
        found.append(
            f"What moves cannot be told: {told['share']:.0%} of the picture would, too much to be believed "
            "without better evidence. Training goes on without motion masks; give some with --masks if you have them."
        )
    if (masks["epipolar_error_px"] or 0) > 0.6:
        found.append(f"Flow misses the epipolar lines by {masks['epipolar_error_px']:.2f} px in the median.")
    if (masks["moving_share"] or 0) > 0.5:
        found.append(f"{masks['moving_share']:.0%} of the picture moves: little is left to register the camera.")
    return found
