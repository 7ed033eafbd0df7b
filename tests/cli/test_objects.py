"""`semfield objects` on a small run."""

import json

import numpy as np
import pytest
from PIL import Image

from semfield_ns.cli.objects import box, objects
from semfield_ns.errors import SemfieldError
from tests.runs import run_command


def test_a_box_holds_the_region_and_no_more():
    region = np.zeros((5, 7), dtype=bool)
    region[1, 2] = region[3, 5] = True
    assert box(region) == [2, 1, 6, 4]


@pytest.mark.parametrize("scale", [0.0, -1.0, 9.0])
def test_a_scale_that_makes_no_picture_is_one_sentence(trained_run, tmp_path, scale):
    with pytest.raises(SemfieldError, match="scale of id images"):
        objects(trained_run, tmp_path, scale)


@pytest.mark.slow
def test_ids_and_boxes_agree(trained_run, tmp_path):
    run_command(["semfield", "objects", "--load-config", str(trained_run), "--output-dir", str(tmp_path)])
    for entry in json.loads((tmp_path / "objects.json").read_text()):
        for frame, given in entry["frames"].items():
            ids = np.asarray(Image.open(tmp_path / "ids" / f"{int(frame):03d}.png"))
            # Of a later object in front, a part may be missing.
            left, top, right, bottom = box(ids == entry["id"])
            assert left >= given[0] and top >= given[1] and right <= given[2] and bottom <= given[3]
