"""J and F by hand."""

import numpy as np
import pytest

from semfield_ns.evaluation.instances import boundary, boundary_accuracy, instance_score, region_similarity


def square(row: int, column: int, size: int = 4, shape: tuple[int, int] = (20, 20)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[row : row + size, column : column + size] = True
    return mask


NOTHING = np.zeros((20, 20), dtype=bool)


def test_regions_by_hand():
    assert region_similarity(square(2, 2), square(2, 2)) == 1
    # 8 of 16 + 16 - 8 pixels.
    assert region_similarity(square(2, 2), square(2, 4)) == pytest.approx(8 / 24)
    assert region_similarity(NOTHING, NOTHING) == 1 and region_similarity(square(2, 2), NOTHING) == 0


def test_a_boundary_is_where_the_mask_changes():
    mask = np.zeros((3, 4), dtype=bool)
    mask[:, 2:] = True
    assert (boundary(mask) == [[False, True, False, False]] * 3).all()
    assert not boundary(np.ones((3, 4), dtype=bool)).any()


def test_boundaries_by_hand():
    assert boundary_accuracy(square(2, 2), square(2, 2)) == 1
    # The tolerance is one pixel here: moved by one is still near, except nothing; far away nothing is near.
    assert boundary_accuracy(square(2, 2), square(2, 3)) == 1
    assert boundary_accuracy(square(2, 2), square(12, 12)) == 0
    assert boundary_accuracy(NOTHING, NOTHING) == 1 and boundary_accuracy(square(2, 2), NOTHING) == 0
    # One of two equal squares is found: all of its boundary is right, half of the true one is found.
    assert boundary_accuracy(square(2, 2), square(2, 2) | square(12, 12)) == pytest.approx(2 / 3)


def test_objects_are_matched_once_for_the_video():
    truth = {0: 1 * square(2, 2) + 2 * square(12, 12), 1: 1 * square(3, 3) + 2 * square(13, 13)}
    swapped = {f: np.where(ids == 1, 7, np.where(ids == 2, 5, 0)) for f, ids in truth.items()}
    found = instance_score(swapped, truth)
    assert (found.region, found.boundary, found.mean, found.objects) == (1, 1, 1, 2)
    # Ids that change places in the second frame: each object is right in one of two frames.
    changed = {0: truth[0], 1: np.where(truth[1] == 1, 2, np.where(truth[1] == 2, 1, 0))}
    found = instance_score(changed, truth)
    assert found.region == pytest.approx(0.5) and found.boundary == pytest.approx(0.5)
    # An object that is not found counts as 0, one too many does not count.
    missed = {f: np.where(ids == 1, 1, 0) + 9 * square(0, 15, 3) for f, ids in truth.items()}
    assert instance_score(missed, truth).region == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no object"):
        instance_score({0: np.zeros((4, 4))}, {0: np.zeros((4, 4))})
