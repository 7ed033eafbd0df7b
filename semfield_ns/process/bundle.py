"""The last word on a COLMAP model: bundle adjustment that wrong matches and moving things cannot pull, and whether the
path of the camera tells its focal length at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from semfield_ns.process.colmap import from_colmap
from semfield_ns.scenes.flow import Mask

_SCALES = (0.5, 0.3, 0.2)  # px; of the Cauchy loss, from round to round
_WRONG = 1.5  # px; an observation that misses by more is dropped between rounds
WRONG_CORNER = 0.7  # px; the same where there are followed corners, which are more exact
_FAR_OFF = 4.0  # times the median; what misses by less is never dropped
_MOVES = 0.3  # share of the observations of a point on moving things, above which it is dropped
_FEWEST_POINTS = 50  # a model that would keep fewer stays as it is
_PROBES = (0.8, 1.25)  # times the focal length found
_ALIKE = 0.002  # share by which the loss may grow for a focal length to fit as well
_USUAL = 0.05  # and for the focal length of ordinary cameras to be taken, once it is known to be a guess
PRIOR_FOCAL = 0.85
"""times the longer side of the picture: phones and action cameras, when they film, are between 0.7 and 1.0"""


@dataclass(frozen=True)
class Freedom:
    """Which intrinsics are estimated."""

    focal: bool
    distortion: bool


def polished(pycolmap: Any, model: Any, freedom: Freedom, wrong: float = _WRONG) -> Any:
    """A copy of the model after robust bundle adjustment in rounds; structure from motion itself trusts all it kept.

    What is left out decides which focal lengths fit alike: before that is settled, features are left out sparingly.
    """
    result = pycolmap.Reconstruction(model)
    for round_, scale in enumerate(_SCALES):
        if round_ > 0:
            drop_wrong(result, wrong)
        _adjust(pycolmap, result, freedom, scale)
    return result if len(result.points3D) >= min(_FEWEST_POINTS, len(model.points3D)) else model


def drop_wrong(model: Any, wrong: float = _WRONG) -> None:
    """Takes observations out that miss by more than `wrong` px and by far more than others, in place."""
    missed = list(_errors(model))
    if not any(np.isfinite(errors).any() for _, errors in missed):
        return
    limit = max(wrong, _FAR_OFF * float(np.nanmedian(np.concatenate([errors for _, errors in missed]))))
    for image, errors in missed:
        for place in np.flatnonzero(errors > limit):
            if image.point2D(int(place)).has_point3D():  # a point goes with its second last observation
                model.delete_observation(image.image_id, int(place))
    model.update_point_3d_errors()


def without_moving(pycolmap: Any, model: Any, moving: dict[str, Mask]) -> Any:
    """A copy of the model without the points that mostly lie on moving pixels; moving: name of the image -> mask."""
    on: dict[int, list[bool]] = {}
    for image in model.images.values():
        if (mask := moving.get(image.name)) is not None:
            for point in image.points2D:
                if point.has_point3D():
                    x, y = (int(v) for v in point.xy)
                    row, column = min(max(y, 0), mask.shape[0] - 1), min(max(x, 0), mask.shape[1] - 1)
                    on.setdefault(point.point3D_id, []).append(bool(mask[row, column]))
    wrong = [point for point, hits in on.items() if np.mean(hits) > _MOVES]
    if len(model.points3D) - len(wrong) < _FEWEST_POINTS:
        return model
    result = pycolmap.Reconstruction(model)
    for point in wrong:
        result.delete_point3D(point)
    return result


def settle_focal(pycolmap: Any, model: Any, freedom: Freedom) -> tuple[Any, bool]:
    """The model, and whether the pictures determine its focal length.

    A camera that moves without turning sees the same pictures with another focal length and depths stretched along. If
    a fifth more and a fifth less fit alike, the focal length is a guess; then that of ordinary cameras is taken, if it
    fits hardly worse.
    """
    if not freedom.focal:
        return model, True
    best = _loss(model)
    if min(_loss(_with_focal(pycolmap, model, factor, freedom)) for factor in _PROBES) > (1 + _ALIKE) * best:
        return model, True
    camera = next(iter(model.cameras.values()))
    factor = PRIOR_FOCAL * max(camera.width, camera.height) / camera.mean_focal_length()
    usual = _with_focal(pycolmap, model, factor, freedom)
    return (usual if _loss(usual) <= (1 + _USUAL) * best else model), False


def _with_focal(pycolmap: Any, model: Any, factor: float, freedom: Freedom) -> Any:
    """The model with another focal length that stays, and depths, poses and points that go with it."""
    result = pycolmap.Reconstruction(model)
    for camera in result.cameras.values():
        params = camera.params.copy()
        for index in camera.focal_length_idxs():
            params[index] *= factor
        camera.params = params
    # Begin with everything stretched along the mean viewing direction, which is the answer where nothing turns.
    rotations = [image.cam_from_world().rotation.matrix() for image in result.images.values() if image.has_pose]
    ahead = np.sum([rotation[2] for rotation in rotations], axis=0)
    ahead /= np.linalg.norm(ahead)
    stretch = np.eye(3) + (factor - 1) * np.outer(ahead, ahead)
    for point in result.points3D.values():
        point.xyz = stretch @ point.xyz
    for image in result.images.values():
        if image.has_pose:
            rotation = image.cam_from_world().rotation
            centre = stretch @ image.projection_center()
            pose = pycolmap.Rigid3d(rotation, -rotation.matrix() @ centre)
            result.frame(image.frame_id).set_cam_from_world(image.camera_id, pose)
    _adjust(pycolmap, result, Freedom(False, freedom.distortion), _SCALES[-1])
    return result


def _adjust(pycolmap: Any, model: Any, freedom: Freedom, scale: float) -> None:
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = freedom.focal
    options.refine_extra_params = freedom.distortion
    options.refine_principal_point = False
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = scale
    # Not pycolmap.bundle_adjustment, which writes to the terminal whatever one asks for.
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.images.values():
        if image.has_pose:
            config.add_image(image.image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()


def _errors(model: Any) -> Iterator[tuple[Any, Float[np.ndarray, "N"]]]:
    """Each image with the px by which the points miss its features; NaN for features without a point."""
    for image in model.images.values():
        if image.has_pose:
            errors = np.full(len(image.points2D), np.nan)
            places = [i for i, point in enumerate(image.points2D) if point.has_point3D()]
            if places:
                points = np.stack([model.points3D[image.points2D[i].point3D_id].xyz for i in places])
                pixels = np.stack([image.points2D[i].xy for i in places])
                matrix = image.cam_from_world().matrix()
                local = points @ matrix[:, :3].T + matrix[:, 3]
                local[:, 2] = np.where(local[:, 2] > 1e-6, local[:, 2], 1e-6)  # behind the camera: misses by far
                seen = from_colmap(model.cameras[image.camera_id]).project(local)
                errors[places] = np.linalg.norm(seen - pixels, axis=-1)
            yield image, errors


def _loss(model: Any) -> float:
    """Mean Cauchy loss of all observations."""
    errors = np.concatenate([errors for _, errors in _errors(model)])
    return float(np.nanmean(np.log1p((errors / _SCALES[-1]) ** 2)))
