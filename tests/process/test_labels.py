import json

import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.process.flow import flow_file
from semfield_ns.process.labels import carried, coco_mask, grow, import_labels, write_template
from semfield_ns.process.names import FrameNames
from semfield_ns.scenes.flow import write_flow
from semfield_ns.scenes.labels import IGNORE

SIZE = (40, 30)
FRAMES = [FrameNames(n, 10 * n, "") for n in range(4)]


@pytest.fixture
def box():
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[5:15, 10:20] = 1
    return mask


def read(path, tmp_path, frames=FRAMES):
    return import_labels(path, frames, SIZE, tmp_path / "images", tmp_path / "flow")


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, **options).save(path)


def test_cvat_masks(tmp_path, box):
    colors = np.array([[0, 0, 0], [250, 50, 83]], np.uint8)
    save(tmp_path / "cvat" / "SegmentationClass" / "0002.png", colors[box])
    (tmp_path / "cvat" / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nperson:250,50,83::\n"
    )
    found = read(tmp_path / "cvat", tmp_path)
    assert list(found.labels) == [2] and (found.labels[2] == box).all()
    assert found.label_map.names == ["background", "person"] and found.label_map.dynamic.tolist() == [False, True]


@pytest.mark.parametrize("kind", ["polygon", "counts", "compressed"])
def test_coco(tmp_path, box, kind):
    counts, values = [], box.T.reshape(-1)
    edges = np.flatnonzero(np.diff(values)) + 1
    counts = np.diff([0, *edges, values.size]).tolist()
    segmentation = {
        "polygon": [[10, 5, 20, 5, 20, 15, 10, 15]],
        "counts": {"size": [30, 40], "counts": counts},
        "compressed": {"size": [30, 40], "counts": compressed(box)},
    }[kind]
    meta = {
        "images": [{"id": 5, "file_name": "a/frame_30.jpg", "height": 30, "width": 40}],
        "categories": [{"id": 3, "name": "car"}, {"id": 9, "name": "tree"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 9, "segmentation": segmentation, "area": 100}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(meta))
    found = read(tmp_path / "coco.json", tmp_path)
    assert found.label_map.names == ["background", "car", "tree"]
    assert (found.labels[3] == 2 * box).all()


def compressed(mask):
    coder = pytest.importorskip("pycocotools.mask", reason="pycocotools writes the reference")
    return coder.encode(np.asfortranarray(mask))["counts"].decode()


def test_run_lengths_are_decoded_as_coco_encodes_them():
    generator = np.random.default_rng(0)
    for _ in range(5):
        mask = (generator.random((23, 31)) < 0.3).astype(np.uint8)
        text = compressed(mask)
        assert (coco_mask({"size": [23, 31], "counts": text}, 23, 31) == mask).all()


def test_label_studio_brush(tmp_path, box):
    save(tmp_path / "ls" / "task-12-annotation-3-by-1-tag-Person-0.png", box * 255)
    save(tmp_path / "ls" / "task-12-annotation-3-by-1-tag-Tree-0.png", np.roll(box, 15, axis=1) * 255)
    with pytest.raises(SemfieldError, match=r"1 tasks for 4 frames: put a tasks.json"):
        read(tmp_path / "ls", tmp_path)
    (tmp_path / "ls" / "tasks.json").write_text('{"12": "0001.png"}')
    found = read(tmp_path / "ls", tmp_path)
    assert found.label_map.names == ["background", "Person", "Tree"]
    assert (found.labels[1] == box + 2 * np.roll(box, 15, axis=1)).all()


def test_sam_tracks_as_folders_and_as_object_ids(tmp_path, box):
    save(tmp_path / "tracks" / "001" / "0000.png", box * 255)
    save(tmp_path / "tracks" / "002" / "0000.png", np.roll(box, 15, axis=1) * 255)
    (tmp_path / "tracks" / "names.json").write_text('{"1": "person"}')
    save(tmp_path / "ids" / "0000.png", box + 2 * np.roll(box, 15, axis=1))
    for name, names in (
        ("tracks", ["background", "person", "object 2"]),
        ("ids", ["background", "object 1", "object 2"]),
    ):
        found = read(tmp_path / name, tmp_path)
        assert found.label_map.names == names and found.label_map.dynamic.tolist() == [False, True, True]
        assert (found.labels[0] == box + 2 * np.roll(box, 15, axis=1)).all()


def test_clicks_grow_to_things_and_are_carried_by_flow(tmp_path):
    for n in range(4):
        rgb = np.full((30, 40, 3), 40, np.uint8)
        rgb[5:15, 10 + n : 20 + n] = [220, 60, 60]
        save(tmp_path / "images" / f"{n:04d}.png", rgb)
    flow, everywhere = np.zeros((30, 40, 2), np.float32), np.ones((30, 40), bool)
    flow[..., 0] = 1
    for n in range(3):
        write_flow(flow_file(tmp_path / "flow", n, n + 1), flow, everywhere)
        write_flow(flow_file(tmp_path / "flow", n + 1, n), -flow, everywhere)
    clicks = {
        "classes": [{"name": "wall", "color": [0, 0, 0]}, {"name": "ball", "color": [255, 0, 0], "dynamic": True}],
        "clicks": {"0000": [["ball", 15, 10], ["wall", 35, 25], ["wall", 3, 3]]},
    }
    (tmp_path / "clicks.json").write_text(json.dumps(clicks))
    found = read(tmp_path / "clicks.json", tmp_path)
    assert sorted(found.labels) == [0, 1, 2, 3] and found.carried == 3
    for n in range(4):
        ball = found.labels[n] == 1
        assert ball[7:13, 12 + n : 18 + n].all() and ball.sum() < 160
    assert (found.labels[0][:, 25:] == 0).all()

    for wrong, message in (
        ([["cat", 1, 1]], 'names the class "cat"'),
        ([["ball", 99, 1]], "outside of the 40x30 pixels"),
        ([["ball"]], r"is not \[class, x, y\]"),
    ):
        (tmp_path / "clicks.json").write_text(json.dumps(clicks | {"clicks": {"0000": wrong}}))
        with pytest.raises(SemfieldError, match=message):
            read(tmp_path / "clicks.json", tmp_path)


def test_sides_that_disagree_leave_no_label():
    still = lambda a, b: (np.zeros((2, 2, 2), np.float32), np.ones((2, 2), bool))  # noqa: E731
    first, last = np.array([[0, 1], [1, IGNORE]]), np.array([[0, 0], [1, 1]])
    found = carried({0: first, 2: last}, 3, still)
    assert found[1].tolist() == [[0, IGNORE], [1, 1]]


def test_regions_stop_at_other_colours():
    rgb = np.full((30, 40, 3), 40, np.uint8)
    rgb[:, 20:] = 200
    ids = grow(rgb, [(3, 5, 5)])
    assert (ids[:, :16] == 3).all() and (ids[:, 26:] == IGNORE).all()


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_unknown_json_is_an_error(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(SemfieldError, match="neither COCO"):
        read(tmp_path / "a.json", tmp_path)


def test_labels_of_no_frame_are_an_error(tmp_path, box):
    save(tmp_path / "ids" / "other.png", box)
    with pytest.raises(SemfieldError, match="no label of a picked frame"):
        read(tmp_path / "ids", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SemfieldError, match="no labels in a known format"):
        read(tmp_path / "empty", tmp_path)
    with pytest.raises(SemfieldError, match="do not exist"):
        read(tmp_path / "absent", tmp_path)


def test_the_template_names_frames_and_is_a_file_of_clicks(tmp_path):
    write_template(tmp_path, tmp_path / "images", 20)
    meta = json.loads((tmp_path / "clicks.json").read_text())
    assert list(meta["clicks"]) == ["0000", "0006", "0013", "0019"]
    assert "0013" in (tmp_path / "README.txt").read_text()
