import numpy as np
import pytest

from semfield_ns.process.bundle import Freedom, polished


def test_points_that_are_wrong_in_all_views_go_and_the_others_stay():
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, 6, 200
    options.num_points2D_without_point3D = 5
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    right, images = set(model.points3D), list(model.images.values())
    # The two cameras that are nearest to each other look at the middle of the scene; the points are behind both.
    pairs = [(a, b) for a in images for b in images if a.image_id < b.image_id]
    first, second = max(pairs, key=lambda pair: pair[0].projection_center() @ pair[1].projection_center())
    behind = 5 * (first.projection_center() + second.projection_center())
    for a, b in zip(_free(first), _free(second), strict=True):
        elements = [pycolmap.TrackElement(first.image_id, a), pycolmap.TrackElement(second.image_id, b)]
        model.add_point3D(behind, pycolmap.Track(elements), np.zeros(3, np.uint8))
    assert len(model.points3D) == 205
    result = polished(pycolmap, model, Freedom(focal=False, distortion=False))
    assert set(result.points3D) == right and result.compute_mean_reprojection_error() < 0.01


def _free(image) -> list[int]:
    return [i for i, point in enumerate(image.points2D) if not point.has_point3D()]
