from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.parts import part_ids, part_prototypes
from semfield_ns.segmentation.refine import load_sam2, refine, spread_points
from semfield_ns.segmentation.views import FeatureView
from semfield_ns.sessions.actions import SetParts
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from tests.segmentation.scene import BallScene, camera, iou


def halves(turn: float) -> tuple[FeatureView, torch.Tensor]:
    """A view of the ball whose left half looks different from its right one, and which half is which."""
    scene, view = BallScene(noise=0.02), camera(0.1 * turn, turn)
    label, points = scene.labels(view)
    side = torch.where(label == 1, 1 + (points[..., 0] > 0).long(), 0)
    looks = F.normalize(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0.3, 0], [0, 0.3, 1.0, 0]]), dim=-1)
    colors = torch.tensor([[0.3, 0.4, 0.5], [0.8, 0.2, 0.2], [0.2, 0.8, 0.2]])
    return FeatureView(view, colors[side], looks[side], points), side


def test_parts_are_the_same_in_every_view():
    (first, first_side), (second, second_side) = halves(0), halves(4)
    centroids = part_prototypes([first], [first_side > 0], 2)
    assert centroids.shape == (2, 4)
    ids = [part_ids(view, side > 0, centroids) for view, side in ((first, first_side), (second, second_side))]
    left = int(ids[0][first_side == 1].mode().values)
    for found, side in zip(ids, (first_side, second_side), strict=True):
        assert iou(found == left, side == 1) > 0.85
        assert iou(found == 3 - left, side == 2) > 0.85
        assert not found[side == 0].any()


def test_parts_of_nothing():
    view, side = halves(0)
    nothing = torch.zeros_like(side, dtype=torch.bool)
    assert part_prototypes([view], [nothing], 3).shape == (0, 4)
    assert not part_ids(view, side > 0, torch.zeros(0, 4)).any()


def test_a_session_divides_an_object_and_shows_it():
    class Halves(BallScene):
        def render_view(self, view):
            return halves(0)[0]

    session = Session()
    ball = session.add_object("ball", (200, 100, 50))
    session.add_stroke(ball, camera(), [(34.0, 30.0), (46.0, 30.0)], width=2)
    session.add_stroke(ball, camera(), [(5.0, 5.0), (60.0, 8.0)], positive=False)
    segmenter = Segmenter(session, Halves())
    whole = segmenter.segment(camera())
    assert not whole.parts.any()
    session.do(SetParts(ball, 2))
    found = segmenter.segment(camera())
    assert torch.equal(found.masks, whole.masks)
    assert set(found.parts.unique().tolist()) == {0, 1, 2}
    assert torch.equal(found.parts > 0, found.masks[0])
    assert not torch.equal(found.overlay, whole.overlay)


def test_spread_points_are_inside_and_far_from_each_other():
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[5:35, 5:55] = True
    points = np.array(spread_points(mask, 3))
    assert all(mask[int(y), int(x)] for x, y in points)
    distances = [np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[i + 1 :]]
    assert min(distances) > 8
    assert spread_points(torch.zeros(4, 4, dtype=torch.bool)) == []


def test_masks_are_refined_by_sam2(tmp_path: Path):
    """With random weights: the whole way through processor, decoder and choice of a mask."""
    transformers = pytest.importorskip("transformers")
    from tests.teachers.models import _sam2_config

    torch.manual_seed(0)
    transformers.Sam2Model(_sam2_config()).save_pretrained(tmp_path)
    processor = transformers.Sam2Processor(
        transformers.Sam2ImageProcessor(size={"height": 128, "width": 128}), target_size=128
    )
    processor.save_pretrained(tmp_path)
    label, _ = BallScene().labels(camera())
    view = BallScene().render_view(camera())
    found = refine(view.rgb, label == 1, str(tmp_path))
    assert found.shape == label.shape and found.dtype == torch.bool
    # A network that knows nothing finds something else, and the mask stays; or it is like the mask.
    assert iou(found, label == 1) >= 0.3
    assert not refine(view.rgb, torch.zeros_like(label, dtype=torch.bool), str(tmp_path)).any()


def test_missing_weights_are_one_sentence(tmp_path: Path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SemfieldError, match="give a folder with a downloaded model"):
        load_sam2(str(tmp_path / "nothing"), "cpu")
