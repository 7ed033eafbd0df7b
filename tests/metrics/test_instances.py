"""J and F by hand."""

import numpy as np
import pytest

from semfield_ns.metrics.instances import (
    at_size,
    boundary,
    boundary_accuracy,
    instance_score,
    moving_instances,
    region_similarity,
)


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
    assert (found.region, found.boundary, found.mean) == (1, 1, 1)
    assert [(entry.id, entry.found) for entry in found.objects] == [(1, 7), (2, 5)]
    # Ids that change places in the second frame: each object is right in one of two frames.
    changed = {0: truth[0], 1: np.where(truth[1] == 1, 2, np.where(truth[1] == 2, 1, 0))}
    found = instance_score(changed, truth)
    assert found.region == pytest.approx(0.5) and found.boundary == pytest.approx(0.5)
    # An object that is not found counts as 0, one too many does not count.
    missed = {f: np.where(ids == 1, 1, 0) + 9 * square(0, 15, 3) for f, ids in truth.items()}
    found = instance_score(missed, truth)
    assert found.region == pytest.approx(0.5)
    table = found.table([f"ball#{number}" for number in range(1, 10)])
    assert "| 1 | ball#1 | 1.000 | 1.000 |" in table and "| mean | J&F 0.500 | 0.500 | 0.500 |" in table
    with pytest.raises(ValueError, match="no object"):
        instance_score({0: np.zeros((4, 4), dtype=int)}, {0: np.zeros((4, 4), dtype=int)})


def test_an_instance_is_of_the_class_that_most_of_its_pixels_have():
    ids = {0: np.array([[1, 1, 2, 0]]), 1: np.array([[1, 2, 2, 3]])}
    # Of 1, two pixels of class 1 and one of class 0; of 2, one and two; of 3, nothing is known.
    labels = {0: np.array([[1, 1, 0, 0]]), 1: np.array([[0, 0, 1, -1]])}
    found = moving_instances(ids, labels, np.array([False, True]))
    assert found[0].tolist() == [[1, 1, 0, 0]] and found[1].tolist() == [[1, 0, 0, 3]]


def test_ids_at_another_size_are_those_at_the_centres_of_pixels():
    ids = np.arange(12).reshape(3, 4)
    assert at_size(ids, (3, 4)).tolist() == ids.tolist()
    assert at_size(ids, (1, 2)).tolist() == [[5, 7]]
    assert at_size(ids, (6, 8))[::2, ::2].tolist() == ids.tolist()
