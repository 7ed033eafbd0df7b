"""What pictures say together: on the ball scene, whose surface may be hidden from whoever segments."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from semfield_ns.segmentation.segment import segment
from semfield_ns.segmentation.silhouettes import silhouettes
from semfield_ns.segmentation.views import FeatureView, Pictures
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from tests.segmentation.scene import BallScene, camera, iou


class PicturedScene(BallScene):
    """The ball scene, and pictures of it from a ring of places; renders may be nonsense."""

    def __init__(self, wrong_depth: bool = False, smeared: bool = False) -> None:
        super().__init__()
        self.wrong_depth, self.smeared = wrong_depth, smeared
        cameras = [camera(x, -turn) for x, turn in ((x, 14 * x) for x in (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5))]
        features = torch.stack([BallScene.render_view(self, view).features for view in cameras])
        small = F.interpolate(features.permute(0, 3, 1, 2), scale_factor=0.5, mode="area").permute(0, 2, 3, 1)
        self.known = Pictures(cameras, F.normalize(small, dim=-1), 1.5, 7.0)

    def pictures(self) -> Pictures:
        return self.known

    def render_view(self, view) -> FeatureView:
        found = super().render_view(view)
        if view in self.known.cameras:
            return found
        if self.smeared:
            found = replace(found, features=F.normalize(torch.full_like(found.features, 0.5), dim=-1))
        if self.wrong_depth:
            places = torch.rand(found.points.shape[:2], generator=torch.Generator().manual_seed(1))[..., None]
            centre = found.points.new_tensor(view.camera_to_world).view(3, 4)[:, 3]
            found = replace(found, points=centre + (found.points - centre) * (0.3 + 1.2 * places))
        return found


def ball_by_strokes(scene: BallScene) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask in a new view of what was stroked in a picture, and the truth: the ball and its twin, which look alike."""
    session, drawn = Session(), camera(0.0, 0.0)
    number = session.add_object("ball")
    session.add_stroke(number, drawn, [(38.0, 30.0), (43.0, 31.0)])
    session.add_stroke(number, drawn, [(10.0, 10.0), (20.0, 50.0)], positive=False)
    asked = camera(0.25, 3.0)
    return Segmenter(session, scene).segment(asked).ids == 1, scene.labels(asked)[0] > 0


def test_a_true_surface_is_trusted_and_a_wrong_one_is_not():
    asked = camera(0.25, 3.0)
    trust = []
    for scene in (PicturedScene(), PicturedScene(wrong_depth=True)):
        trust.append(silhouettes(scene.render_view(asked), scene.known).trust)
    assert trust[1] < 0.35 < 0.5 < trust[0]


def test_outlines_find_what_the_pictures_see_whatever_was_rendered():
    scene, asked = PicturedScene(wrong_depth=True, smeared=True), camera(0.25, 3.0)
    view = scene.render_view(asked)
    session = Session()
    session.add_stroke(session.add_object("ball"), camera(), [(38.0, 30.0), (43.0, 31.0)])
    looks = Segmenter(session, scene).compile(session.state).objects
    scores, known = silhouettes(view, scene.known).scores(looks)
    assert bool((scores >= 0).all() and (scores <= 1).all()) and float(known.mean()) > 0.8
    inside = view.regions.mean((scene.labels(asked)[0] > 0).float()[..., None])[:, 0]
    assert float(scores[0, inside > 0.9].mean()) > float(scores[0, inside < 0.1].mean()) + 0.2


def test_a_smear_without_depth_is_segmented_by_the_pictures():
    scene = PicturedScene(wrong_depth=True, smeared=True)
    mask, truth = ball_by_strokes(scene)
    with_pictures = iou(mask, truth)
    scene.pictures = lambda: None  # type: ignore[method-assign]
    mask, truth = ball_by_strokes(scene)
    assert with_pictures > 0.4 and with_pictures > iou(mask, truth) + 0.2


def test_a_photo_is_matched_by_its_own_looks_whatever_its_depth():
    scene = PicturedScene()
    view = scene.render_view(camera(0.25, 3.0))
    outlines = silhouettes(view, scene.known)
    session = Session()
    session.add_stroke(session.add_object("ball"), camera(), [(38.0, 30.0), (43.0, 31.0)])
    looks = Segmenter(session, scene).compile(session.state).objects
    trusted, doubtful = (replace(outlines, trust=trust) for trust in (1.0, 0.0))

    def scores(view: FeatureView, outlines) -> torch.Tensor:
        return segment(view, looks, None, (), scene.trace, [0.0], outlines)[0]

    photo = replace(view, photo=True)
    assert torch.equal(scores(photo, trusted), scores(photo, doubtful))
    assert torch.equal(scores(photo, trusted), scores(view, trusted))
    # Of a render whose surface is wrong, only what the pictures say is left.
    drawn = torch.randn(view.features.shape, generator=torch.Generator().manual_seed(0))
    noise = replace(view, features=F.normalize(drawn, dim=-1))
    apart = (scores(noise, doubtful) - scores(view, doubtful)).abs()
    # Parts of the mask that hardly hang together may go.
    assert (apart > 1e-3).float().mean() < 0.05


def test_a_view_that_the_pictures_do_not_share_is_left_to_what_was_rendered():
    scene = PicturedScene()
    view = scene.render_view(camera(30.0))
    found = silhouettes(view, Pictures(scene.known.cameras[2:5], scene.known.features[2:5], 1.5, 7.0))
    session = Session()
    session.add_stroke(session.add_object("ball"), camera(), [(38.0, 30.0), (43.0, 31.0)])
    scores, known = found.scores(Segmenter(session, scene).compile(session.state).objects)
    assert found.trust == 1.0 and not bool(known.any()) and not bool(scores.any())
