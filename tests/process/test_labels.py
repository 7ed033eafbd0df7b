import json

import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.process.flow import flow_file
from semfield_ns.process.labels import import_labels
from semfield_ns.process.labels.clicks import carried, grow
from semfield_ns.process.labels.coco import coco_mask
from semfield_ns.process.labels.template import write_template
from semfield_ns.process.names import FrameNames, PickedFrames
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


# --- what tools leave out, round or rename ---------------------------------------------------------------------------


def coco(tmp_path, *annotations, name="0001.png", categories=({"id": 1, "name": "ball"},), size=SIZE):
    image = {"id": 1, "file_name": name, "width": size[0], "height": size[1]}
    listed = [{"id": i, "image_id": 1, "category_id": 1} | entry for i, entry in enumerate(annotations)]
    meta = {"images": [image], "categories": list(categories), "annotations": listed}
    (tmp_path / "coco.json").write_text(json.dumps(meta))
    return read(tmp_path / "coco.json", tmp_path)


@pytest.mark.parametrize("outline", [{}, {"segmentation": []}, {"segmentation": None}])
def test_boxes_without_an_outline_are_no_background(tmp_path, outline):
    inner = {"segmentation": [[12, 12, 16, 12, 16, 16, 12, 16]], "bbox": [12, 12, 4, 4]}
    found = coco(tmp_path, {"bbox": [10.5, 10, 9.5, 10]} | outline, inner)
    ids = found.labels[1]
    assert (ids[12:16, 12:16] == 1).all() and ids[0, 0] == 0
    assert ids[10, 10] == IGNORE and (ids == IGNORE).sum() == 100 - 16
    assert "1 boxes without an outline" in found.origin


@pytest.mark.parametrize(
    "polygon", [[10, 10, 30, 10, 30, 25, 10, 25], [10.4, 3.2, 30.9, 8.1, 17.5, 25.6], [-5, -5, 60, 2, 9, 50]]
)
def test_polygons_are_drawn_as_pycocotools_does(polygon):
    from pycocotools import mask as tool

    truth = tool.decode(tool.merge(tool.frPyObjects([polygon], *SIZE[::-1]))) > 0
    assert (coco_mask([polygon], *SIZE[::-1]) == truth).all()


def test_background_may_be_any_category_and_names_may_repeat(tmp_path):
    categories = [{"id": 0, "name": "ball"}, {"id": 1, "name": "ball"}, {"id": 2, "name": "background"}]
    found = coco(tmp_path, {"segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}, categories=categories)
    assert found.label_map.names == ["ball", "background"]
    assert found.labels[1][0, 0] == 0 and found.labels[1][-1, -1] == 1


@pytest.mark.parametrize(
    "wrong",
    [[[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], {"size": [3, 3], "counts": [9]}, {"size": [30, 40], "counts": [9]}],
)
def test_outlines_that_are_none(tmp_path, wrong):
    with pytest.raises(SemfieldError, match="is not valid COCO"):
        coco(tmp_path, {"segmentation": wrong, "bbox": [0, 0, 1, 1]})


def test_labels_of_another_shape_are_refused(tmp_path, box):
    save(tmp_path / "ids" / "0001.png", box[:, :30])
    with pytest.raises(SemfieldError, match=r"0001\.png has 30x30 pixels, the frames 40x30.*cropped or turned"):
        read(tmp_path / "ids", tmp_path)
    with pytest.raises(SemfieldError, match="cropped or turned"):
        coco(tmp_path, {"segmentation": [[0, 0, 9, 0, 9, 9]]}, size=(30, 40))


def test_cvat_in_folders_of_its_own(tmp_path, box):
    inner = tmp_path / "unpacked" / "task"
    palette = Image.fromarray(box, "P")
    palette.putpalette([250, 50, 83, 0, 0, 0])  # the colours, in the order of another program
    (inner / "SegmentationClass" / "part").mkdir(parents=True)
    palette.save(inner / "SegmentationClass" / "part" / "0002.png")
    (inner / "labelmap.txt").write_text("background:0,0,0::\nperson:250,50,83::\n")
    assert (read(tmp_path / "unpacked", tmp_path).labels[2] == 1 - box).all()


def test_more_objects_than_a_byte_counts(tmp_path):
    save(tmp_path / "ids" / "0001.png", np.arange(1200, dtype=np.uint16).reshape(30, 40))
    found = read(tmp_path / "ids", tmp_path)
    assert len(found.label_map) == 1200 and found.label_map.ignore_index == 65535
    assert len(np.unique(found.labels[1])) == 1200


def test_numbers_count_alike_in_all_importers(tmp_path, box):
    """A video of 8 frames of which each is picked: a full set that counts from 1 is one frame late by its numbers."""
    frames = PickedFrames(tuple(FrameNames(n, n, "") for n in range(8)), (), 8)
    for n in range(1, 9):
        moved = np.roll(box, n - 1, axis=1)
        save(tmp_path / "ids" / f"frame_{n:05d}.png", moved)
        save(tmp_path / "tracks" / "1" / f"frame_{n:05d}.png", moved * 255)
        save(tmp_path / "classes" / f"frame_{n:05d}.png", moved)
        save(tmp_path / "cvat" / "SegmentationClass" / f"frame_{n:05d}.png", moved)
    listed = {"classes": [{"id": 0, "name": "background"}, {"id": 1, "name": "ball"}]}
    (tmp_path / "classes" / "classes.json").write_text(json.dumps(listed))
    (tmp_path / "cvat" / "labelmap.txt").write_text("background:0,0,0::\nball:250,50,83::\n")
    for kind in ("ids", "tracks", "classes", "cvat"):
        found = read(tmp_path / kind, tmp_path, frames)
        assert sorted(found.labels) == list(range(8))
        assert all((found.labels[n] == np.roll(box, n, axis=1)).all() for n in range(8))
        for file in sorted((tmp_path / kind).rglob("frame_*.png")):
            if file.stem[-1] not in "34":
                file.unlink()
        with pytest.raises(SemfieldError, match=r"frame_00003\.png may be .* or .*--frame-names"):
            read(tmp_path / kind, tmp_path, frames)


# --- bad input -------------------------------------------------------------------------------------------------------

SQUARE = {"segmentation": [[0, 0, 9, 0, 9, 9]]}
CLICKED = {"classes": [{"name": "wall"}], "clicks": {}}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "change, told",
    [
        ({"annotations": []}, "has no annotations"),
        ({"annotations": [{"image_id": 9, "category_id": 1} | SQUARE]}, '"image_id" 9, which is not listed'),
        ({"annotations": [{"image_id": 1, "category_id": 9} | SQUARE]}, '"category_id" 9, which is not listed'),
        ({"images": [{"id": 1, "file_name": "0001.png"}]}, "the key 'height' is missing"),
        ({"images": {"a": 1}}, "is not valid COCO"),
        ({"categories": [{"id": 1, "name": None}]}, "class without a name"),
        ([[float("nan")] * 6], "polygon with NaN"),
        ([[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]], "polygons in shares of the picture"),
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ({"size": [30, 40], "counts": "0"}, "0 run lengths for an image of 30 x 40"),
        ({"size": [30, 40], "counts": "words!"}, "run lengths for an image of 30 x 40"),
        ({"size": [30, 40], "counts": [-60, 60, 1200]}, "run lengths for an image of 30 x 40"),
        ({"size": [40, 30], "counts": [1200]}, r"run lengths of \[40, 30\]"),
    ],
)
def test_bad_coco(tmp_path, change, told):
    outline = change if isinstance(change, list) or "counts" in change else None
    annotation = {"image_id": 1, "category_id": 1, **SQUARE} | ({"segmentation": outline} if outline else {})
    meta = {
        "images": [{"id": 1, "file_name": "0001.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "ball"}],
        "annotations": [annotation],
    }
    (tmp_path / "coco.json").write_text(json.dumps(meta if outline else meta | change))
    with pytest.raises(SemfieldError, match=told) as caught:
        read(tmp_path / "coco.json", tmp_path)
    assert str(caught.value).count("coco.json") <= 1


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "name, content, told",
    [
        ("labels.xml", "<annotations/>", 'CVAT\'s XML: export its "Segmentation mask 1.1"'),
        ("labels.zip", "PK", "an archive: unpack it"),
        ("0001.jpg", "x", "JPEGs, which change labels: save them as PNG"),
        ("0001.npy", "x", "arrays: save them as PNG"),
        ("yolo/0001.txt", "0 0.5 0.5 0.1 0.1", "YOLO's: export COCO"),
        ("labelme/0001.json", "{}", "LabelMe's: convert them to one COCO file"),
        ("jpegs/0001.jpg", "x", "JPEGs, which change labels"),
        ("labelme.json", '{"shapes": [], "imagePath": "0001.png"}', "neither COCO .* nor clicks"),
        ("half.json", "{", "is not valid JSON"),
        ("clicks.json", json.dumps(CLICKED | {"clicks": [1]}), 'needs a list "classes" and an object "clicks"'),
        ("clicks.json", json.dumps(CLICKED | {"clicks": {"0000": None}}), "the clicks None are no list"),
        ("clicks.json", json.dumps(CLICKED | {"classes": [7, None]}), "clicks.json"),
        ("ids/names.json", "[1]", "names.json is not an object"),
        ("ids/classes.json", '{"classes": ["a"]}', "semantics.classes needs"),
        ("ids/labelmap.txt", "words", 'the line "words" is not of the form'),
        ("ids/labelmap.txt", "# nothing", "lists no class"),
    ],
)
def test_labels_of_other_formats(tmp_path, box, name, content, told):
    save(tmp_path / "ids" / "0001.png", box)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(SemfieldError, match=told):
        read(path if path.parent == tmp_path else path.parent, tmp_path)


def test_what_coco_programs_write_differently(tmp_path):
    """Numbers as text, one polygon without a list around it, a mark of the encoding, an address with a query."""
    square = {"segmentation": [0, 0, 9, 0, 9, 9, 0, 9], "category_id": "1"}
    found = coco(tmp_path, square, name="https://host/a/0001.png?token=5#2")
    assert (found.labels[1][:9, :9] == 1).all()
    (tmp_path / "coco.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "coco.json").read_bytes())
    assert list(read(tmp_path / "coco.json", tmp_path).labels) == [1]


def test_suffixes_of_masks_may_be_in_capitals(tmp_path, box):
    save(tmp_path / "ids" / "0001.PNG", box)
    save(tmp_path / "tracks" / "7" / "0001.PNG", box)
    assert list(read(tmp_path / "ids", tmp_path).labels) == list(read(tmp_path / "tracks", tmp_path).labels) == [1]
