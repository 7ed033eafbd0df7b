"""`semfield objects` on a small run."""

import json

import numpy as np
import pytest
from PIL import Image

from semfield_ns.cli.evaluate import true_instances
from semfield_ns.cli.objects import box, followed, objects
from semfield_ns.errors import SemfieldError
from tests.runs import run_command


def test_a_box_holds_the_region_and_no_more():
    region = np.zeros((5, 7), dtype=bool)
    region[1, 2] = region[3, 5] = True
    assert box(region) == [2, 1, 6, 4]


@pytest.mark.parametrize("scale", [0.0, -1.0, 9.0])
def test_a_scale_that_makes_no_picture_is_one_sentence(trained_run, tmp_path, scale):
    with pytest.raises(SemfieldError, match="--scale must be above 0"):
        objects(trained_run, tmp_path, scale)


def seen_at(scene: dict, frame: str, point: list[float]) -> tuple[float, float]:
    """Pixel of a point of the scene's own world in the picture of a frame."""
    pose = np.array(
        next(f for f in scene["frames"] if f["file_path"].endswith(f"/{int(frame):03d}.png"))["transform_matrix"]
    )
    x, y, z = pose[:3, :3].T @ (np.array(point) - pose[:3, 3])
    return scene["cx"] + scene["fl_x"] * x / -z, scene["cy"] - scene["fl_y"] * y / -z


@pytest.mark.slow
def test_ids_and_boxes_agree(trained_run, tmp_path):
    run_command(["semfield", "objects", "--load-config", str(trained_run), "--output-dir", str(tmp_path)])
    scene = json.loads((trained_run.parents[3] / "scene" / "transforms.json").read_text())
    for entry in json.loads((tmp_path / "objects.json").read_text()):
        for frame, given in entry["frames"].items():
            ids = np.asarray(Image.open(tmp_path / "ids" / f"{int(frame):03d}.png"))
            # Of a later object in front, a part may be missing.
            left, top, right, bottom = box(ids == entry["id"])
            assert left >= given[0] and top >= given[1] and right <= given[2] and bottom <= given[3]
            x, y = seen_at(scene, frame, entry["centres"][frame])
            margin = 0.2 * (given[2] - given[0]), 0.2 * (given[3] - given[1])
            assert given[0] - margin[0] <= x <= given[2] + margin[0]
            assert given[1] - margin[1] <= y <= given[3] + margin[1]


@pytest.mark.slow
def test_objects_are_judged_by_the_instances_of_the_scene(trained_run, tmp_path):
    command = ["semfield", "evaluate", "--load-config", str(trained_run), "--output-dir", str(tmp_path)]
    result = run_command([*command, "--protocol", "objects"])
    found = json.loads((tmp_path / "instances.json").read_text())
    # The scene has a ball, a crate and a balloon that move, and pillars that do not.
    scene = json.loads((trained_run.parents[3] / "scene" / "transforms.json").read_text())
    moving = {c["name"] for c in scene["semantics"]["classes"] if c["dynamic"]}
    ids = [entry["id"] for entry in scene["synthetic"]["instances"] if entry["class"] in moving]
    assert [entry["id"] for entry in found["objects"]] == sorted(ids)
    assert 0 <= found["J"] <= 1 and found["J&F"] == pytest.approx((found["J"] + found["F"]) / 2)
    assert (tmp_path / "instances.md").read_text().strip() in result.stdout
    pipeline, _, images = followed(trained_run)
    truth = true_instances(pipeline, images)
    given = np.asarray(Image.open(trained_run.parents[3] / "scene" / "instances" / "000.png"))
    assert (truth[0] == np.where(np.isin(given, ids), given, 0)).all()
    for frame in pipeline.datamanager.train_dataset.metadata["frames"]:
        assert frame.semantic_path is None or frame.instance_path is not None
