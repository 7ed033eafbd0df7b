"""Labelled views of models that are played: whatever implements `scene_model` can be exported."""

import numpy as np

from semfield_ns.editing.editor import track_objects
from semfield_ns.export.sources import ClassViews, SessionViews
from semfield_ns.scenes.labels import LabelMap
from semfield_ns.sessions.masks import NamedView
from semfield_ns.sessions.segmenter import segment_model
from semfield_ns.viewer.live import LiveViews
from tests.segmentation.scene import SPEED, camera
from tests.viewer.played import BallModel, MovingBallModel

VIEWS = [NamedView(f"view_{step}", camera(0.1, time=step / 3)) for step in (2, 0, 3, 1)]


def test_an_object_is_followed_and_has_an_id_of_its_own():
    model = MovingBallModel()
    tracks = track_objects(model, 1.0)
    assert tracks.names == ["ball#1"]
    # What is seen of it changes a little as it rises.
    centres = tracks.centres["ball#1"]
    np.testing.assert_allclose(centres[-1] - centres[0], SPEED, atol=0.1)
    found = ClassViews(model, VIEWS)
    assert [label.name for label in found.labels] == ["wall", "ball", "twin", "ball#1"]
    written = list(found)
    assert [view.name for view in written] == [f"view_{step}" for step in range(4)]
    for view in written:
        truth, points = model.scene.labels(view.camera)
        assert np.array_equal(view.ids, np.array([1, 4, 3])[truth.numpy()])
        np.testing.assert_allclose(view.points, points.numpy(), atol=1e-5)


def test_without_what_moves_there_are_classes_alone():
    model = MovingBallModel()
    classes = model.label_map.classes
    model.label_map = LabelMap((classes[0], classes[2]))
    assert [label.name for label in ClassViews(model, VIEWS).labels] == ["wall", "twin"]


def test_masks_of_a_session_are_those_that_the_viewer_renders():
    model = BallModel()
    segmenter = segment_model(model, None)
    view = camera()
    segmenter.session.add_stroke(segmenter.session.add_object("ball"), view, [(38.0, 30.0), (42.0, 30.0)])
    (exported,) = SessionViews(segmenter, [NamedView("view", view)])
    truth = (model.scene.labels(view)[0] == 1).numpy()
    assert ((exported.ids == 1) & truth).sum() / ((exported.ids == 1) | truth).sum() > 0.8
    segmenter.provider = LiveViews(model)
    segmenter.forget()
    assert np.array_equal(segmenter.segment(view).ids.numpy(), exported.ids)
    outputs = model.get_outputs_for_camera(view.cameras())
    assert np.array_equal(outputs["segmentation"][..., 0].numpy(), exported.ids)
