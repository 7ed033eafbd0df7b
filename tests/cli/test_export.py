"""`semfield export` on a small run: classes and objects of semantic-flow, and the objects of a session."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from semfield_ns.cli.export import export
from semfield_ns.cli.segment import segment
from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.formats.ply import write_ply
from semfield_ns.scenes.synthetic import make_scene
from tests.export.surface_splats import surface_splats
from tests.runs import run_command


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    scene = make_scene("demo", 0, 8, 64, 48)
    write_ply(folder / "splat.ply", surface_splats(scene, 3000, time=3.0)[0])
    run_command(
        [
            *("semfield", "export", "--load-config", str(trained_run), "--output-dir", str(folder / "out")),
            *("--formats", "masks", "video", "coco", "points", "--views", "train", "--at", "0.43", "--scale", "0.5"),
            *("--splat", str(folder / "splat.ply")),
        ]
    )
    return folder


def test_the_classes_of_a_run_come_home_in_every_format(exported):
    out = exported / "out"
    labels = {entry["name"]: entry for entry in json.loads((out / "labels.json").read_text())}
    assert {"wall", "ground", "pillar", "ball", "crate", "balloon"} <= set(labels)
    ids = np.array(Image.open(out / "masks" / "ids" / "000.png"))
    assert ids.shape == (24, 32) and ids.min() >= 1, "every pixel has a class"
    assert len(list((out / "masks" / "ids").iterdir())) == 8
    assert (out / "masks.mp4").stat().st_size > 0 and (out / "overlay.mp4").stat().st_size > 0
    coco = json.loads((out / "coco.json").read_text())
    assert len(coco["images"]) == 8 and all(image["time"] == pytest.approx(0.43) for image in coco["images"])
    points = PlyData.read(out / "points.ply")["vertex"].data
    assert set(np.unique(points["class"])) <= set(range(7)) and (points["class"] > 0).all()
    splat = PlyData.read(exported / "splat.ply")["vertex"].data
    found = np.load(out / "splats" / "labels.npy")
    assert len(found) == len(splat) and found.min() >= 1
    for name in ("wall", "ground"):
        part = PlyData.read(out / "splats" / f"{name}.ply")["vertex"].data
        rest = PlyData.read(out / "splats" / f"without_{name}.ply")["vertex"].data
        assert len(part) and len(part) + len(rest) == len(splat) and part.dtype == splat.dtype


def test_points_and_splats_are_in_the_world_of_the_scene(exported):
    """The room is where the analytic scene has it: its floor at z = 0, which a run of 40 steps knows roughly."""
    splat = PlyData.read(exported / "splat.ply")["vertex"].data
    low, high = (np.percentile([splat[axis] for axis in "xyz"], q, axis=1) for q in (5, 95))
    points = PlyData.read(exported / "out" / "points.ply")["vertex"].data
    middle = np.array([np.median(points[axis]) for axis in "xyz"])
    assert (middle > low - 0.5 * (high - low)).all() and (middle < high + 0.5 * (high - low)).all()


@pytest.mark.slow
def test_a_session_is_exported_from_its_run_and_from_its_masks(trained_run, tmp_path, monkeypatch):
    from semfield_ns.segmentation.prompts import Stroke
    from semfield_ns.sessions.actions import AddObject, AddPrompt
    from semfield_ns.sessions.masks import open_run, scene_views
    from semfield_ns.sessions.session import session_json

    opened = open_run(trained_run)
    monkeypatch.setattr("semfield_ns.sessions.masks.open_run", lambda _: opened)  # once is enough
    pipeline = opened[1]
    camera = scene_views(pipeline, "train")[0].camera
    stroke = Stroke(camera=camera, points=((20.0, 30.0), (30.0, 32.0)), positive=True)
    log = (AddObject(1, "thing", (255, 0, 0)), AddPrompt(1, 1, stroke))
    (tmp_path / "session.json").write_text(session_json(log))
    segment(trained_run, tmp_path / "session.json", tmp_path / "masks", views="test", scale=0.5)
    export(tmp_path / "a", segmentation=tmp_path / "masks", formats=("masks", "coco", "video"))
    export(
        tmp_path / "b", load_config=trained_run, session=tmp_path / "session.json", views="test",
        formats=("masks", "coco", "points"), scale=0.5,
    )  # fmt: skip
    assert (tmp_path / "a" / "coco.json").read_text() == (tmp_path / "b" / "coco.json").read_text()
    names = sorted(path.name for path in (tmp_path / "masks" / "masks").iterdir())
    for folder in ("a", "b"):
        for name in names:
            ids = np.array(Image.open(tmp_path / folder / "masks" / "ids" / name))
            assert np.array_equal(ids, np.array(Image.open(tmp_path / "masks" / "masks" / name)))
    assert (tmp_path / "a" / "overlay.mp4").is_file() and (tmp_path / "b" / "points.ply").is_file()
    with pytest.raises(SemfieldError, match="There is no label 'thin': choose from thing"):
        export(tmp_path / "c", segmentation=tmp_path / "masks", labels=("thin",))


def test_what_cannot_be_exported_is_said_at_once(tmp_path):
    with pytest.raises(SemfieldError, match="give --load-config RUN"):
        export(tmp_path)
    with pytest.raises(SemfieldError, match="nothing to export"):
        export(tmp_path, formats=())
    with pytest.raises(SemfieldError, match="reads images only"):
        export(tmp_path, segmentation=tmp_path, formats=("points",))
    with pytest.raises(SemfieldError, match=r"holds no segmentation\.json"):
        export(tmp_path, segmentation=tmp_path)
    with pytest.raises(SemfieldError, match="must be from 0 to 1"):
        export(tmp_path, load_config=tmp_path / "config.yml", at=2.0)
