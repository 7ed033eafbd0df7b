"""Edits: read, composed, and rendered."""

import json

import numpy as np
import pytest
import torch

from semfield_ns.editing.edits import (
    Edit,
    ObjectState,
    Placement,
    apply_edits,
    edits_json,
    read_edits,
    require_classes,
)
from semfield_ns.editing.objects import FrameView, MovingObject, ObjectTracks, find_objects
from semfield_ns.errors import SemfieldError
from semfield_ns.semantic_flow.layered_edits.layers import carried_back, tint
from tests.semantic_flow.conftest import FRAMES, make_cameras, make_model

OBJECTS = {
    "ball#1": np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
    "ball#2": np.array([[5.0, 0.0, 0.0]]),
    "box#1": np.array([[5.0, 5.0, 5.0]]),
}
CLASSES = ["wall", "ball", "box"]


# ------------------------------------------------------------------------------------------------- values and files


@pytest.mark.parametrize(
    "text, message",
    [
        ("{kind: remove", "not JSON or YAML"),
        ("kind: remove", "not a list of edits"),
        ("[remove]", "edit 1: it is not a mapping"),
        ("[{kind: remove}, {kind: explode}]", "edit 2: There is no edit 'explode'"),
        ("[{kind: remove, targets: ball}]", "no field 'targets'"),
        ("[{kind: move, translation: [1, 2]}]", "three finite numbers"),
        ("[{kind: move, translation: [1, 2, .nan]}]", "three finite numbers"),
        ("[{kind: move, translation: up}]", "edit 1"),
        ("[{kind: move, scale: 0}]", "positive number"),
        ("[{kind: move, scale: big}]", "edit 1"),
        ("[{kind: mirror, axis: [0, 0, 0]}]", "is none"),
        ("[{kind: remove, box: [[0, 0, 0], [1, 1]]}]", "two corners of three"),
        ("[{kind: remove, box: [0, 0, 0, 1, 1, 1]}]", "edit 1"),
        ("[{kind: recolor, color: [255, 0, 0]}]", "RGB in \\[0, 1\\]"),
    ],
)
def test_a_bad_file_of_edits_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "edits.yml"
    path.write_text(text)
    with pytest.raises(SemfieldError, match=message) as caught:
        read_edits(path)
    assert not str(caught.value).endswith("..")


def test_a_misspelled_class_is_said_before_a_run_is_opened():
    known = [Edit("remove", target) for target in ("ball", "a#b", "a#b#1", "box#2", "")]
    require_classes(known, [*CLASSES, "a#b"], "e.yml")
    with pytest.raises(SemfieldError, match=r"^e.yml, edit 2: there is no 'bal'; the classes are .*ball"):
        require_classes([Edit("background"), Edit("remove", "bal")], CLASSES, "e.yml")


def test_an_absent_file_of_edits_is_named(tmp_path):
    with pytest.raises(SemfieldError, match=r"nothing.json cannot be read"):
        read_edits(tmp_path / "nothing.json")


def test_edits_survive_a_file(tmp_path):
    edits = (
        Edit("remove", "ball#2", box=((0, 1, 2), (3, 4, 5))),
        Edit("move", "box", translation=(1, 2, 3), degrees=30, scale=0.5),
    )
    path = tmp_path / "edits.json"
    path.write_text(edits_json(edits))
    assert read_edits(path) == edits
    assert json.loads(path.read_text())[1]["translation"] == [1.0, 2.0, 3.0]


def test_each_edit_sees_what_the_ones_before_left():
    edits = [
        Edit("duplicate", "ball#1", translation=(1, 0, 0)),
        Edit("move", "ball", translation=(0, 1, 0)),
        Edit("remove", "ball#2"),
        Edit("recolor", "box", color=(1, 0, 0)),
        Edit("background", color=(0, 0, 1)),
    ]
    state = apply_edits(edits, OBJECTS, CLASSES, 2 * np.eye(3, 4))
    first = state.objects["ball#1"]
    assert [placement.offset.tolist() for placement in first.placements] == [[0, 2, 0], [2, 2, 0]]
    assert state.objects["ball#2"].placements == ()
    assert state.objects["box#1"] == ObjectState(tint=(1.0, 0.0, 0.0))
    assert state.background == (0.0, 0.0, 1.0)


def test_turns_and_scales_keep_the_centre():
    edits = [
        Edit("move", "ball#1", axis=(0, 0, 1), degrees=90, scale=2.0),
        Edit("move", "ball#1", translation=(1, 0, 0)),
    ]
    (placement,) = apply_edits(edits, OBJECTS, CLASSES, np.eye(3, 4)).objects["ball#1"].placements
    centre, step = np.array([3.0, 4.0, 5.0]), np.array([1.0, 0.0, 0.0])
    matrix = placement.matrix(centre)
    moved = matrix[:, :3] @ centre + matrix[:, 3]
    np.testing.assert_allclose(moved, centre + step, atol=1e-12)
    beside = matrix[:, :3] @ (centre + step) + matrix[:, 3]
    np.testing.assert_allclose(beside - moved, [0, 2, 0], atol=1e-12)


@pytest.mark.parametrize(
    "target, message", [("wall", "no 'wall' moves"), ("dog", "there is no 'dog'"), ("ball#3", "ball#3")]
)
def test_an_edit_of_what_is_not_there_says_what_is(target, message):
    with pytest.raises(SemfieldError, match=message) as caught:
        apply_edits([Edit("remove", "ball"), Edit("remove", target)], OBJECTS, CLASSES, np.eye(3, 4))
    assert "Edit 2" in str(caught.value)
    assert "ball#1, ball#2, box#1" in str(caught.value)


def test_a_box_chooses_objects_by_where_they_are_in_the_scenes_own_world():
    world = np.concatenate([2 * np.eye(3), [[10.0], [0.0], [0.0]]], axis=1)  # own (x, y, z) is 2 (x, y, z) + (10, 0, 0)
    # The first ball is at -5, then at -4.5; the second one at -2.5.
    first = Edit("remove", box=((-4.0, 1.0, 1.0), (-4.6, -1.0, -1.0)))
    state = apply_edits([first], OBJECTS, CLASSES, world)
    assert [name for name, entry in state.objects.items() if not entry.placements] == ["ball#1"]
    with pytest.raises(SemfieldError, match=r"Edit 2 \(move\).*ball#1 from \[-5, 0, 0\] to \[-4.5, 0, 0\], ball#2"):
        apply_edits([first, Edit("move", "ball", box=((0, 0, 0), (1, 1, 1)))], OBJECTS, CLASSES, world)


def test_a_tint_keeps_shading():
    target = torch.tensor([0.8, 0.2, 0.4])
    assert torch.allclose(tint(torch.full((3,), 0.5), target), target)
    assert torch.allclose(tint(torch.full((3,), 0.25), target), target / 2)


# ------------------------------------------------------------------------------------------------- objects


def make_views(hidden=()):
    """Two balls of one class that cross each other's path, and a box, on a plane at depth 5; 12 frames."""
    views = []
    rows, columns = np.meshgrid(np.arange(40.0), np.arange(60.0), indexing="ij")
    surface = np.stack([columns / 10, rows / 10, np.full_like(rows, -5.0)], axis=-1)
    for frame in range(12):
        labels = np.zeros((40, 60), dtype=int)
        forward = np.zeros((40, 60, 3))
        places = {"left": (10, 10 + 3 * frame, 1, 3), "right": (30, 50 - 3 * frame, 1, -3), "box": (20, 30, 2, 0)}
        for name, (row, column, class_id, speed) in places.items():
            if (name, frame) in hidden:
                continue
            region = (rows - row) ** 2 + (columns - column) ** 2 < 16
            labels[region] = class_id
            forward[region] = [speed / 10, 0, 0]
        views.append(FrameView(labels, labels > 0, surface, forward))
    return views


def paths(objects):
    return {
        (entry.class_id, frame): np.median(points, axis=0).round(1)
        for entry in objects
        for frame, points in entry.points.items()
    }


def test_objects_are_followed_past_each_other_and_through_gaps():
    for hidden in ((), {("left", 4), ("left", 5), ("right", 7)}):
        objects = find_objects(make_views(hidden), [1, 2])
        assert [entry.class_id for entry in objects] == [1, 1, 2]
        left = next(entry for entry in objects if np.median(entry.points[0][:, 1]) < 1.5)
        for frame, points in left.points.items():
            np.testing.assert_allclose(np.median(points, axis=0)[:2], [1 + 0.3 * frame, 1.0], atol=0.11)
    tracks = ObjectTracks(objects, CLASSES, 12)
    assert tracks.names == ["ball#1", "ball#2", "box#1"]
    index = objects.index(left)
    near_it = torch.tensor([[1.0 + 0.3 * 4, 1.0, -5.0]])
    # By class first; nothing here is of class 0, and the box is far away, which leaves the nearest of all.
    assert [tracks.nearest(near_it, torch.tensor([class_id]), 4).tolist() for class_id in (0, 1, 2)] == 3 * [[index]]
    beside_box = torch.as_tensor(np.median(objects[2].points[4], axis=0), dtype=torch.float32)[None]
    assert tracks.nearest(beside_box, torch.tensor([2]), 4).tolist() == [2]
    far_away = torch.tensor([[50.0, 50.0, -5.0]])  # near nothing: the class decides
    assert tracks.nearest(far_away, torch.tensor([2]), 4).tolist() == [2]
    np.testing.assert_allclose(tracks.centre(index, 4.5)[:2], [1 + 0.3 * 4.5, 1.0], atol=0.08)


def test_what_one_frame_alone_shows_is_no_object():
    views = make_views({("box", frame) for frame in range(1, 12)})
    assert {entry.class_id for entry in find_objects(views, [1, 2])} == {1}


# ------------------------------------------------------------------------------------------------- rendering


def solid_model(**changes):
    """Everything moves: an opaque dynamic branch, and next to nothing that stands still."""
    model = make_model(**changes).eval()
    with torch.no_grad():
        model.branches.dynamic.density.layer.bias.fill_(4.0)
        model.branches.dynamic.blending_head.bias.fill_(6.0)
        model.branches.static.density.layer.bias.fill_(-30.0)
        model.branches.static.density.layer.weight.zero_()
    ball = MovingObject(1, {frame: np.array([[0.0, 0.0, -5.0], [0.5, 0.5, -5.0]]) for frame in range(FRAMES)})
    model.editor._tracks = ObjectTracks([ball], CLASSES, FRAMES)
    return model


def test_a_moved_object_looks_the_same_to_a_camera_that_moved_with_it():
    model = solid_model()
    camera = make_cameras()[2:3]
    before = model.raw_outputs_for_camera(camera)
    shift = (0.3, -0.2, 0.4)
    model.editor.change([Edit("move", "ball", translation=shift)])
    followed = make_cameras()[2:3]
    followed.camera_to_worlds[:, :, 3] += torch.tensor(shift)
    after = model.raw_outputs_for_camera(followed)
    for name in ("rgb", "depth", "dynamic_weight", "logits", "scene_flow_forward"):
        assert torch.allclose(after[name], before[name], atol=2e-2), name
    assert torch.allclose(after["surface"] - torch.tensor(shift), before["surface"], atol=5e-2)
    # It is not where it was: a camera that stayed sees something else.
    assert not torch.allclose(model.raw_outputs_for_camera(camera)["rgb"], before["rgb"], atol=2e-2)


def test_what_is_removed_leaves_nothing_of_itself():
    model = solid_model()
    camera = make_cameras()[2:3]
    model.editor.change([Edit("remove", "ball#1")])
    removed = model.raw_outputs_for_camera(camera)
    assert float(removed["dynamic_weight"].max()) < 1e-2
    assert float(removed["accumulation"].max()) < 2e-2
    assert all(bool(torch.isfinite(value).all()) for value in removed.values())
    model.editor.change(())
    assert float(model.raw_outputs_for_camera(camera)["dynamic_weight"].min()) > 0.5


def test_scaled_and_mirrored_copies_stand_beside_the_original():
    model = solid_model()
    camera = make_cameras()[2:3]
    plain = model.raw_outputs_for_camera(camera)
    model.editor.change(
        [Edit("duplicate", "ball", translation=(0, 0, 1), degrees=20, scale=0.5), Edit("mirror", axis=(1, 0, 0))]
    )
    assert len(model.editor.scene().copies) == 2
    edited = model.raw_outputs_for_camera(camera)
    assert all(bool(torch.isfinite(value).all()) for value in edited.values())
    assert not torch.allclose(edited["rgb"], plain["rgb"], atol=1e-2)


def test_rays_carried_back_meet_the_points_that_were_placed():
    linear = 0.5 * np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    matrix = torch.tensor(Placement(linear, np.array([1.0, 2.0, 3.0])).matrix(np.array([0.0, 0.0, -4.0]))).float()
    bundle = make_cameras().generate_rays(camera_indices=1).flatten()
    bundle.nears, bundle.fars = torch.full((len(bundle), 1), 1.0), torch.full((len(bundle), 1), 9.0)
    back, stretch = carried_back(bundle, matrix)
    assert torch.allclose(back.directions.norm(dim=-1), torch.ones(len(bundle)), atol=1e-5)
    for ours, theirs in ((back.nears, bundle.nears), (back.fars, bundle.fars)):
        source = back.origins + ours * back.directions
        assert torch.allclose(
            source @ matrix[:, :3].T + matrix[:, 3], bundle.origins + theirs * bundle.directions, atol=1e-4
        )
    assert float(stretch) == pytest.approx(2.0)


def test_edits_that_cannot_be_applied_change_nothing():
    model = solid_model()
    model.editor.change([Edit("remove", "ball")])
    with pytest.raises(SemfieldError, match="no 'wall' moves"):
        model.editor.change([Edit("remove", "wall")])
    assert model.editor.edits == (Edit("remove", "ball"),)
    model.train()
    with pytest.raises(SemfieldError, match="after its training"):
        model.editor.change([Edit("remove", "ball")])


def test_a_click_tells_the_object_that_is_seen_there_also_where_it_was_put():
    model = solid_model()
    camera, middle = make_cameras()[2:3], (0.5, 0.5)
    assert model.editor.object_at(camera, middle) == "ball#1"
    model.editor.change([Edit("remove", "ball")])
    with pytest.raises(SemfieldError, match="Nothing that moves"):
        model.editor.object_at(camera, middle)
    model.editor.change([Edit("move", "ball", translation=(0.3, -0.2, 0.4))])
    assert model.editor.object_at(camera, middle) == "ball#1"
    model.train()
    with pytest.raises(SemfieldError, match="after training"):
        model.editor.object_at(camera, middle)
