import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_json
from semfield_ns.segmentation.prompts import Box, TextQuery
from semfield_ns.segmentation.views import view_of_outputs
from semfield_ns.sessions.actions import Clear, SetGrowth, SetThreshold
from semfield_ns.sessions.masks import NamedView, picture_size, write_masks
from semfield_ns.sessions.segmenter import Segmenter, outline
from semfield_ns.sessions.session import Session
from tests.segmentation.scene import BallScene, camera, iou

ON_BALL, ON_WALL, ON_TWIN = [(38.0, 28.0), (42.0, 32.0)], [(5.0, 5.0), (60.0, 8.0)], [(62.0, 24.0), (65.0, 26.0)]


def drawn(scene: BallScene, time: float | None = None) -> tuple[Segmenter, int]:
    """A ball that was marked, and the wall and the twin that are not it."""
    session = Session()
    ball = session.add_object("ball", (255, 0, 0))
    view = camera(time=time)
    session.add_stroke(ball, view, ON_BALL, width=2)
    session.add_stroke(ball, view, ON_WALL, positive=False, width=2)
    session.add_stroke(ball, view, ON_TWIN, positive=False, width=2)
    return Segmenter(session, scene), ball


@pytest.mark.parametrize("view", [camera(), camera(0.4, 5), camera(-0.5, -6)])
def test_strokes_in_one_view_find_the_object_in_others_and_not_its_twin(view):
    scene = BallScene()
    segmenter, _ = drawn(scene)
    label, _ = scene.labels(view)
    found = segmenter.segment(view)
    assert iou(found.masks[0], label == 1) > 0.85
    assert not found.masks[0][label == 2].any()
    assert torch.equal(found.ids == 1, found.masks[0])


def test_strokes_at_one_time_find_the_object_at_others():
    scene = BallScene(moves=True)
    segmenter, _ = drawn(scene, time=0.0)
    for time in (0.5, 1.0):
        view = camera(0.2, 2, time)
        label, _ = scene.labels(view)
        found = segmenter.segment(view)
        assert iou(found.masks[0], label == 1) > 0.8
        assert not found.masks[0][label == 2].any()


def test_undo_and_redo_give_the_same_masks_bit_for_bit():
    segmenter, ball = drawn(BallScene())
    view = camera(0.4, 5)
    before = segmenter.segment(view)
    segmenter.session.add_stroke(ball, view, [(10.0, 50.0), (20.0, 55.0)])
    after = segmenter.segment(view)
    assert not torch.equal(before.scores, after.scores)
    segmenter.session.undo()
    assert torch.equal(segmenter.segment(view).scores, before.scores)
    segmenter.session.redo()
    assert torch.equal(segmenter.segment(view).scores, after.scores)


def test_a_view_is_rendered_once_until_weights_change():
    scene = BallScene()
    segmenter, ball = drawn(scene)
    view = camera(0.4, 5)
    segmenter.segment(view)
    renders = scene.renders
    segmenter.session.add_stroke(ball, view, [(10.0, 50.0)])
    segmenter.session.do(SetThreshold(ball, 0.6))
    segmenter.segment(view)
    assert scene.renders == renders
    scene.weights += 1
    segmenter.segment(view)
    assert scene.renders > renders


def test_kept_views_stay_within_their_budget():
    scene = BallScene()
    segmenter = Segmenter(drawn(scene)[0].session, scene, budget=200_000)
    for x in range(6):
        segmenter.segment(camera(0.01 * x))
    assert sum(render.view.features.nbytes for render in segmenter._renders._kept.values()) < 200_000


def test_two_objects_share_no_pixel_and_a_stroke_of_one_is_not_the_other():
    scene = BallScene()
    session = Session()
    ball, twin = session.add_object("ball"), session.add_object("twin")
    session.add_stroke(ball, camera(), ON_BALL, width=2)
    session.add_stroke(twin, camera(), ON_TWIN, width=2)
    label, _ = scene.labels(camera(0.3))
    found = Segmenter(session, scene).segment(camera(0.3))
    assert not (found.masks[0] & found.masks[1]).any()
    assert iou(found.ids == 1, label == 1) > 0.8
    assert iou(found.ids == 2, label == 2) > 0.8


def test_threshold_and_growth_change_the_mask():
    segmenter, ball = drawn(BallScene(noise=0.3))
    sizes = []
    for value in (0.2, 0.5, 0.95):
        segmenter.session.do(SetThreshold(ball, value))
        sizes.append(int(segmenter.segment(camera(0.2)).masks.sum()))
    assert sizes[0] >= sizes[1] > sizes[2]
    segmenter.session.do(SetThreshold(ball, 0.5))
    scores = []
    for value in (0.0, 1.0):
        segmenter.session.do(SetGrowth(ball, value))
        scores.append(segmenter.segment(camera(0.2)).scores)
    assert not torch.equal(*scores)


def test_a_box_finds_what_is_in_it():
    scene = BallScene()
    session = Session()
    ball = session.add_object("ball")
    label, _ = scene.labels(camera())
    rows, columns = np.nonzero((label == 1).numpy())
    corners = ((columns.min() - 2.0, rows.min() - 2.0), (columns.max() + 3.0, rows.max() + 3.0))
    session.add_prompt(ball, Box(camera(), corners))
    assert iou(Segmenter(session, scene).segment(camera()).ids == 1, label == 1) > 0.85


def test_words_find_what_they_mean_or_say_that_the_model_knows_none():
    session = Session()
    session.add_prompt(session.add_object("ball"), TextQuery("ball"))
    scene = BallScene(words=True)
    label, _ = scene.labels(camera())
    assert iou(Segmenter(session, scene).segment(camera()).ids == 1, label > 0) > 0.9
    with pytest.raises(SemfieldError, match="does not support text queries"):
        Segmenter(session, BallScene()).segment(camera())


def test_an_object_without_strokes_is_nowhere():
    session = Session()
    session.add_object()
    found = Segmenter(session, BallScene()).segment(camera())
    assert not found.masks.any()
    assert torch.equal(found.overlay, found.rgb)
    assert Segmenter(Session(), BallScene()).segment(camera()).masks.shape == (0, 60, 80)


def test_a_coarse_mask_comes_first():
    segmenter, _ = drawn(BallScene())
    coarse, fine = segmenter.segment_coarse_first(camera(0.3), longest_side=40)
    assert coarse.ids.shape == (30, 40)
    assert fine.ids.shape == (60, 80)
    assert iou(coarse.ids > 0, fine.ids[::2, ::2] > 0) > 0.6


def test_outputs_of_a_model_are_those_of_the_contract_and_come_with_objects_only():
    scene = BallScene()
    view = scene.render_view(camera())
    raw = {"rgb": view.rgb, "features": view.features, "surface": view.points}
    segmenter, _ = drawn(scene)
    outputs = segmenter.annotate(camera().cameras(), raw)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "similarity": (60, 80, 1),
        "segmentation": (60, 80, 1),
        "segmentation_overlay": (60, 80, 3),
    }
    for value in outputs.values():
        assert value.dtype == torch.float32 and value.min() >= 0 and value.max() <= 1
    assert set(outputs["segmentation"].unique().tolist()) == {0.0, 1.0}
    assert segmenter.annotate(camera().cameras(), {"rgb": view.rgb}) == {}
    assert Segmenter(Session(), scene).annotate(camera().cameras(), raw) == {}


def test_a_render_that_is_kept_is_not_repeated():
    segmenter, ball = drawn(BallScene())
    view = BallScene().render_view(camera(0.2))
    calls = []

    def render(cameras):
        calls.append(cameras)
        return {"rgb": view.rgb, "features": view.features, "surface": view.points}

    cameras = camera(0.2).cameras()
    first = segmenter.annotate(cameras, segmenter.raw_outputs(cameras, render))
    segmenter.session.add_stroke(ball, camera(0.2), [(10.0, 50.0), (20.0, 55.0)])
    second = segmenter.annotate(cameras, segmenter.raw_outputs(cameras, render))
    assert len(calls) == 1
    assert not torch.equal(first["similarity"], second["similarity"])


def test_semantics_and_features_both_count():
    raw = {"rgb": torch.zeros(4, 5, 3), "surface": torch.zeros(4, 5, 3), "features": torch.randn(4, 5, 6)}
    small = camera().scaled(5 / 80)
    cameras = small.cameras()
    raw["logits"] = torch.randn(4, 5, 3)
    view = view_of_outputs({name: value[: small.height] for name, value in raw.items()}, cameras)
    assert view.features.shape[-1] == 9
    torch.testing.assert_close(view.features.norm(dim=-1), torch.ones(small.height, 5))
    with pytest.raises(SemfieldError, match="no features yet"):
        view_of_outputs({"rgb": raw["rgb"], "depth": raw["rgb"][..., :1]}, cameras)


def test_masks_are_written_with_a_manifest_and_are_the_same_again(tmp_path: Path):
    segmenter, _ = drawn(BallScene())
    views = [NamedView("a", camera()), NamedView("b", camera(0.3, 3), "images/b.png")]
    write_masks(segmenter, views, tmp_path / "first")
    segmenter.session.save(tmp_path / "session.json")
    session = Session()
    session.load(tmp_path / "session.json")
    write_masks(Segmenter(session, BallScene()), views[::-1], tmp_path / "second")
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.png"))
    assert [str(file) for file in files] == ["masks/a.png", "masks/b.png", "overlay/a.png", "overlay/b.png"]
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    manifest = read_json(tmp_path / "first" / "segmentation.json")
    assert manifest["objects"] == [{"id": 1, "name": "ball", "color": [255, 0, 0]}]
    assert [entry["image"] for entry in manifest["views"]] == [None, "images/b.png"]
    mask = Image.open(tmp_path / "first" / "masks" / "a.png")
    ids = np.array(mask)
    assert np.array_equal(np.array(mask.convert("RGB"))[ids == 1], np.tile((255, 0, 0), ((ids == 1).sum(), 1)))
    assert torch.equal(torch.from_numpy(ids).long(), segmenter.segment(camera()).ids)
    with pytest.raises(SemfieldError, match="called 'a'"):
        write_masks(segmenter, [views[0], views[0]], tmp_path / "third")
    with pytest.raises(SemfieldError, match="no object"):
        write_masks(Segmenter(Session(), BallScene()), views, tmp_path / "third")


def test_masks_that_are_stopped_leave_those_of_before_alone(tmp_path: Path):
    segmenter, _ = drawn(BallScene())
    write_masks(segmenter, [NamedView("a", camera())], tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def stopped(views):
        yield views[0]
        raise SemfieldError("Stopped.")

    moved = [NamedView("a", camera(0.3, 3)), NamedView("b", camera())]
    with pytest.raises(SemfieldError, match="Stopped"):
        write_masks(segmenter, moved, tmp_path, watch=stopped)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(SemfieldError, match="Stopped"):
        write_masks(segmenter, moved, tmp_path / "new", watch=stopped)
    assert not (tmp_path / "new").exists()
    write_masks(segmenter, moved, tmp_path)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(after) == len(before) + 2 and after[tmp_path / "masks" / "a.png"] != before[tmp_path / "masks" / "a.png"]
    assert not list(tmp_path.glob(".*"))


def test_masks_of_a_picture_that_the_model_sees_smaller_are_as_large_as_it(tmp_path: Path):
    segmenter, _ = drawn(BallScene())
    small = segmenter.segment(camera())
    height, width = 3 * camera().height - 1, 3 * camera().width
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    assert picture_size(tmp_path / "a.png", camera()) == (height, width)
    assert picture_size(tmp_path / "a.png", camera().at_size(height, width)) is None, "it is as large already"
    assert picture_size(tmp_path / "a.png", camera().at_size(camera().width, camera().height)) is None, "it was turned"
    assert picture_size(tmp_path / "b.png", camera()) is None
    manifest = write_masks(segmenter, [NamedView("a", camera(), size=(height, width))], tmp_path)
    ids = torch.from_numpy(np.array(Image.open(tmp_path / "masks" / "a.png"))).long()
    assert ids.shape == (height, width)
    blocks = F.interpolate(small.ids[None, None].float(), size=(height, width))[0, 0].long()
    shared, either = ((ids > 0) & (blocks > 0)).sum(), ((ids > 0) | (blocks > 0)).sum()
    assert shared / either > 0.9 and not torch.equal(ids, blocks), "about the same, with smoother outlines"
    assert Image.open(tmp_path / "overlay" / "a.png").size == (width, height)
    written = manifest["views"][0]["camera"]
    assert (written["height"], written["width"]) == (height, width)
    assert written["fx"] == pytest.approx(3 * camera().fx)


def test_fuzzed_actions_of_two_people_while_weights_change():
    scene = BallScene()
    segmenter = Segmenter(Session(), scene)
    failures: list[BaseException] = []

    def play(seed: int) -> None:
        random = np.random.default_rng(seed)
        session = segmenter.session
        try:
            for _ in range(40):
                objects = session.state.objects
                kind = random.integers(6)
                if kind == 0 or not objects:
                    session.add_object()
                elif kind == 1:
                    session.undo()
                elif kind == 2:
                    session.redo()
                elif kind == 3:
                    scene.weights += 1
                else:
                    number = objects[int(random.integers(len(objects)))].id
                    points = [tuple(p) for p in (random.uniform(-10, 90, (2, 2))).tolist()]
                    with suppress(SemfieldError):  # the other one may have taken the object back
                        session.add_stroke(number, camera(), points, bool(random.integers(2)))
                small = camera(float(random.choice([0.0, 0.1]))).scaled(0.3)
                found = segmenter.segment(small)
                assert int(found.ids.max()) <= len(found.objects)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not failures, failures[0]
    assert not any(thread.is_alive() for thread in threads)


def test_outlines_go_around_objects():
    ids = torch.zeros(7, 7, dtype=torch.long)
    ids[1:6, 1:6] = 1
    found = outline(ids)
    assert found.sum() == 16 and not found[2:5, 2:5].any() and not found[0].any()


@pytest.mark.slow
def test_memory_stays_flat_over_500_actions():
    resource = pytest.importorskip("resource")
    scene = BallScene()
    segmenter = Segmenter(Session(), scene, budget=2_000_000)
    session, random = segmenter.session, np.random.default_rng(0)
    number = session.add_object()

    def play(actions: int) -> int:
        for _ in range(actions):
            kind = random.integers(5)
            if kind == 0:
                session.undo() if len(session.log) > 1 and session.state.prompts else session.redo()
            elif kind == 1:
                session.do(SetThreshold(number, float(random.random())))
            elif kind == 2:
                session.do(Clear(number))
            else:
                session.add_stroke(number, camera().scaled(0.4), [tuple(random.uniform(0, 24, 2).tolist())])
            scene.weights += int(kind == 3)
            segmenter.segment(camera(float(random.uniform(-0.3, 0.3))).scaled(0.4))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = play(100)
    assert play(400) - before < 20_000, "kilobytes"


class LoudScene(BallScene):
    """The same with features of another unit."""

    def render_view(self, view):
        found = super().render_view(view)
        return replace(found, features=10 * found.features)


def test_masks_do_not_depend_on_the_unit_of_features():
    first, second = (drawn(scene)[0].segment(camera(0.3, -5)).ids for scene in (BallScene(), LoudScene()))
    assert (first > 0).any() and torch.equal(first, second)


def test_a_positive_stroke_alone_starts_tight():
    session, view = Session(), camera(0.3, -5)
    session.add_stroke(session.add_object("ball"), camera(), ON_BALL, width=2)
    found = Segmenter(session, BallScene()).segment(view).ids > 0
    label, _ = BallScene().labels(view)
    assert found.any() and float((label[found] > 0).float().mean()) > 0.95
