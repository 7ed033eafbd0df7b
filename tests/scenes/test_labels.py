import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.labels import IGNORE, LabelMap, SemanticClass
from tests.scenes.helpers import CLASSES, PALETTE, class_ids, save_png

SEMANTICS = {"classes": CLASSES, "ignore_index": 255}


@pytest.fixture
def label_map():
    return LabelMap.from_transforms(SEMANTICS)


def test_lists_and_round_trip(label_map):
    assert label_map.names == ["ground", "cat", "tree"]
    assert label_map.dynamic.tolist() == [False, True, False]
    assert label_map.colors.tolist() == PALETTE.tolist()
    assert label_map.colors.dtype == np.uint8
    assert LabelMap.from_transforms(label_map.to_transforms()) == label_map


def test_ids_may_be_listed_in_any_order(label_map):
    assert LabelMap.from_transforms({"classes": CLASSES[::-1]}) == label_map


def test_colours_may_be_left_out():
    classes = [{"id": i, "name": str(i)} for i in range(20)]
    assert len(np.unique(LabelMap.from_transforms({"classes": classes}).colors, axis=0)) == 20


@pytest.mark.parametrize(
    "classes",
    [
        [],
        [{"id": 0}],
        [{"id": 1, "name": "a", "color": [0, 0, 0]}],
        [{"id": 0, "name": "a", "color": [0, 0, 0]}, {"id": 0, "name": "b", "color": [1, 0, 0]}],
        [{"id": 0, "name": "a", "color": [0, 0, 300]}],
        [{"id": 0, "name": "a", "color": "red"}],
        [{"id": i, "name": "a", "color": [0, 0, 0]} for i in range(2)],
        ["a"],
    ],
)
def test_bad_class_lists(classes):
    with pytest.raises(SemfieldError) as error:
        LabelMap.from_transforms({"classes": classes}, "scene/transforms.json")
    assert "\n" not in str(error.value)


def test_ignore_index_is_no_class():
    with pytest.raises(SemfieldError, match="ignore_index 1"):
        LabelMap((SemanticClass("a", (0, 0, 0)), SemanticClass("b", (1, 0, 0))), ignore_index=1)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA"])
def test_every_kind_of_label_image_gives_the_same_ids(tmp_path, label_map, mode):
    ids = class_ids(0)
    if mode == "P":
        image = Image.fromarray(ids)
        image.putpalette(PALETTE.ravel().tolist())
    elif mode in ("RGB", "RGBA"):
        image = Image.fromarray(PALETTE[ids]).convert(mode)
    else:
        image = Image.fromarray(ids.astype(np.uint16 if mode == "I;16" else np.uint8))
    image.save(tmp_path / "a.png")
    read = label_map.read(tmp_path / "a.png", ids.shape)
    assert read.dtype == np.int64
    assert np.array_equal(read, ids)


def test_ignored_pixels(tmp_path, label_map):
    save_png(tmp_path / "a.png", np.array([[0, 255], [2, 1]], np.uint8))
    assert label_map.read(tmp_path / "a.png").tolist() == [[0, IGNORE], [2, 1]]


def test_unknown_id_names_file_value_and_pixel(tmp_path, label_map):
    save_png(tmp_path / "a.png", np.array([[0, 0], [0, 7]], np.uint8))
    with pytest.raises(SemfieldError, match=r"Frame 3: .*a\.png has the unknown class id 7 at pixel x=1, y=1"):
        label_map.read(tmp_path / "a.png", where="frame 3")


def test_unknown_colour_names_file_value_and_pixel(tmp_path, label_map):
    image = PALETTE[np.array([[0, 1, 2], [0, 1, 2]])]
    image[1, 0] = (1, 2, 3)
    save_png(tmp_path / "a.png", image)
    with pytest.raises(SemfieldError, match=r"a\.png has the colour \(1, 2, 3\) of no class at pixel x=0, y=1"):
        label_map.read(tmp_path / "a.png")


def test_size_must_agree_unless_resizing_is_asked_for(tmp_path, label_map):
    save_png(tmp_path / "a.png", np.array([[0, 1], [2, 0]], np.uint8))
    with pytest.raises(SemfieldError, match="2x2 pixels, its image 8x4"):
        label_map.read(tmp_path / "a.png", (4, 8))
    resized = label_map.read(tmp_path / "a.png", (4, 8), resize=True)
    assert np.array_equal(resized, np.kron([[0, 1], [2, 0]], np.ones((2, 4))))


def test_two_classes_of_one_colour_cannot_be_read_from_colours(tmp_path):
    label_map = LabelMap((SemanticClass("a", (0, 0, 0)), SemanticClass("b", (0, 0, 0))))
    save_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(SemfieldError, match="share a colour"):
        label_map.read(tmp_path / "a.png")


def test_nvidia_lists(tmp_path):
    (tmp_path / "l.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\n\n")
    (tmp_path / "f.txt").write_text("cat\n")
    label_map = LabelMap.from_nvidia(tmp_path / "l.txt", tmp_path / "f.txt")
    assert label_map.classes == (SemanticClass("background", (0, 0, 0)), SemanticClass("cat", (128, 0, 0), True))


@pytest.mark.parametrize(
    ("labelmap", "foreground", "message"),
    [
        ("# header\ncat\n", "", "line 2"),
        ("# header\ncat:1,2::\n", "", "line 2"),
        ("# header\n", "", "no class"),
        ("# header\ncat:1,2,3::\n", "dog\n", "dog"),
    ],
)
def test_bad_nvidia_lists(tmp_path, labelmap, foreground, message):
    (tmp_path / "l.txt").write_text(labelmap)
    (tmp_path / "f.txt").write_text(foreground)
    with pytest.raises(SemfieldError, match=message):
        LabelMap.from_nvidia(tmp_path / "l.txt", tmp_path / "f.txt")
