"""Pictures for people who wait, without a viewer."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.link import ViewerLink
from semfield_ns.viewer.live import LiveSegmentation, LiveViews
from tests.gsn.builders import small_pipeline, write_scenes
from tests.segmentation.scene import camera
from tests.viewer.played import BallModel


class CountingModel(BallModel):
    """Counts how often everything is presented; "shade" is only known by presenting."""

    presented = 0

    def present(self, raw: dict[str, Tensor], camera: object = None) -> dict[str, Tensor]:
        self.presented += 1
        return super().present(raw, camera) | {"shade": 1 - raw["rgb"][..., :1]}


class ShowingLink(ViewerLink):
    """A viewer in which somebody has chosen an output."""

    shown = ("segmentation_overlay",)


def live(model: BallModel) -> tuple[LiveSegmentation, Session]:
    session, link = Session(), ShowingLink()
    chosen = session.add_object("ball")
    return LiveSegmentation(model, session, link, lambda: chosen, lambda _: None, lambda: None), session


def test_a_stroke_presents_only_what_is_shown_and_the_rest_when_it_is_asked_for():
    model = CountingModel()
    segmentation, session = live(model)
    view = ViewCamera.of(camera().cameras())
    nothing = segmentation.outputs(view.cameras(), lambda: None)
    assert model.presented == 1, "once, to know the names"
    middle = (view.width / 2, view.height / 2)
    session.add_stroke(1, view, [middle, (middle[0] + 3, middle[1])])
    session.add_stroke(1, view, [(2.0, 2.0), (10.0, 2.0)], positive=False)
    found = segmentation.outputs(view.cameras(), lambda: None)
    assert model.presented == 1 and list(found) == list(nothing)
    assert torch.equal(found["shade"], 1 - found["rgb"][..., :1]) and model.presented == 2
    assert {tuple(value.shape[:2]) for value in found.values()} == {(view.height, view.width)}
    mask = found["segmentation"][..., 0] > 0
    truth = model.scene.labels(view)[0] == 1
    assert bool(mask[int(middle[1]), int(middle[0])]) and (mask & truth).sum() / (mask | truth).sum() > 0.8
    changed = (found["segmentation_overlay"] != found["rgb"]).any(dim=-1)
    assert bool((changed == mask).all())


def test_pictures_can_be_added_and_taken_away_as_nerfstudio_does():
    model = CountingModel()
    segmentation, _ = live(model)
    found = segmentation.outputs(camera().cameras(), lambda: None)
    found["gl_z_buf_depth"] = found["depth"] * 2
    assert torch.equal(found["gl_z_buf_depth"], 2 * found["depth"])
    del found["gl_z_buf_depth"]
    assert "gl_z_buf_depth" not in found and len(found) == len(list(found))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_picture_that_was_interrupted_is_the_whole_one_bit_for_bit(tmp_path: Path, stride: int, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    model = small_pipeline(write_scenes(tmp_path / "scenes", 1), eval_num_rays_per_chunk=50).model
    model.config.rays.feature_stride = stride
    model.prepare_tokens()
    view, views, polls = ViewCamera.of(model.library.scenes[0].cameras, 0), LiveViews(model), 0
    views.pace.learn(48 * 7, 0.2)

    def interrupt() -> None:
        nonlocal polls
        polls += 1
        if polls % 2 == 0:
            raise InterruptedError

    raw = None
    while raw is None:
        try:
            raw = views.raw(view, interrupt)
        except InterruptedError:
            continue
    assert polls >= 5
    model.eval()
    whole = model.raw_outputs_for_camera(view.cameras())
    assert raw.keys() == whole.keys() == {"rgb", "depth", "features"}
    assert all(torch.equal(raw[name], value) for name, value in whole.items())
