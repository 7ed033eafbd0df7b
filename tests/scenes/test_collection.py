"""Several scenes: finding them, and one class list for all."""

import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.collection import choose_scenes, find_scenes, merge_classes, shared_label_map
from semfield_ns.scenes.labels import IGNORE, LabelMap, SemanticClass

WALL, BALL, BOX = (
    SemanticClass("wall", (90, 90, 90)),
    SemanticClass("ball", (200, 0, 0), True),
    SemanticClass("box", (0, 0, 200), True),
)


def folder_of_scenes(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "transforms.json").write_text("{}")
    return root


def test_scenes_are_found_by_name_one_or_two_levels_down(tmp_path):
    root = folder_of_scenes(tmp_path, "b", "a", "more/c")
    assert list(find_scenes(root)) == ["a", "b", "more/c"]
    assert find_scenes(root / "a") == {"a": root / "a"}
    assert choose_scenes(root, ("b", "a")) == {"b": root / "b", "a": root / "a"}


def test_what_is_no_scene_is_said(tmp_path):
    folder_of_scenes(tmp_path / "root", "a")
    for names, words in ((("x",), "no scene x"), (("a", "a"), "named twice")):
        with pytest.raises(SemfieldError, match=words):
            choose_scenes(tmp_path / "root", names)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SemfieldError, match="holds no scene"):
        find_scenes(tmp_path / "empty")


def test_classes_are_merged_by_name_in_the_order_in_which_they_appear():
    assert merge_classes({"a": LabelMap((BALL, WALL)), "b": None, "c": LabelMap((WALL, BOX))}) == (BALL, WALL, BOX)


@pytest.mark.parametrize(
    ("other", "what"),
    [(SemanticClass("ball", (1, 2, 3), True), "colour"), (SemanticClass("ball", (200, 0, 0), False), "dynamic")],
)
def test_a_conflict_names_both_scenes_and_the_class(other, what):
    with pytest.raises(SemfieldError, match=rf"(?s)first.*second.*{what}.*ball"):
        merge_classes({"first": LabelMap((WALL, BALL)), "second": LabelMap((other,))})


def test_label_images_keep_their_own_ids(tmp_path):
    ids = np.array([[0, 1, 255]], dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "labels.png")
    shared = shared_label_map(LabelMap((BOX, WALL)), (WALL, BALL, BOX))
    assert shared.names == ["wall", "ball", "box"]
    assert shared.read(tmp_path / "labels.png").tolist() == [[2, 0, IGNORE]]


def test_a_class_that_the_shared_list_lacks_is_an_error():
    with pytest.raises(SemfieldError, match="box"):
        shared_label_map(LabelMap((BOX,)), (WALL, BALL))


def test_without_a_shared_list_nothing_changes():
    own = LabelMap((WALL,))
    assert shared_label_map(own, ()) is own
    assert shared_label_map(None, ()) is None
    assert shared_label_map(None, (WALL,)).names == ["wall"]
