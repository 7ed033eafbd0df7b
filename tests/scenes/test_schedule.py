import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.schedule import labelled_frames


@pytest.mark.parametrize(
    ("schedule", "num_frames", "expected"),
    [
        ("all", 3, [0, 1, 2]),
        ("none", 3, []),
        ("first-25%", 12, [0, 1, 2]),
        ("first-50%", 5, [0, 1]),
        ("first-1%", 12, [0]),
        ("scattered-25%", 12, [0, 1, 11]),
        ("scattered-50%", 12, [0, 1, 2, 9, 10, 11]),
        ("scattered-75%", 12, [0, 1, 2, 3, 4, 8, 9, 10, 11]),
        ("scattered-100%", 12, list(range(12))),
        ("scattered-25%", 26, [0, 1, 11, 12, 13, 23, 24, 25]),
        ("every-2", 5, [0, 2, 4]),
        ("0,1,11", 12, [0, 1, 11]),
        (" 11, 0,0 ", 12, [0, 11]),
    ],
)
def test_schedules(schedule, num_frames, expected):
    assert labelled_frames(schedule, num_frames) == expected


@pytest.mark.parametrize(
    "schedule", ["", "half", "every-0", "first-0%", "scattered-101%", "first-25", "0,12", "1,,2", "-1"]
)
def test_bad_schedules_say_so(schedule):
    with pytest.raises(SemfieldError, match="Label schedule") as error:
        labelled_frames(schedule, 12)
    assert "\n" not in str(error.value)
