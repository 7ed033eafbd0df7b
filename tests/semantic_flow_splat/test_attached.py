"""Splats of other programs: attached as runs, divided by strokes, and written as they were."""

from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.lib.recfunctions import append_fields
from plyfile import PlyData, PlyElement

from semfield_ns.cli.attach import attach
from semfield_ns.cli.export import export
from semfield_ns.errors import SemfieldError
from semfield_ns.export.sources import ThingViews
from semfield_ns.export.views import Label
from semfield_ns.gaussians.harmonics import colours
from semfield_ns.gaussians.rasterize import render
from semfield_ns.gaussians.splats import splats_of
from semfield_ns.scenes.formats.ply import read_ply, write_ply
from semfield_ns.scenes.synthetic import make_scene, write_scene
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Box
from semfield_ns.segmentation.simulation import simulate_strokes
from semfield_ns.semantic_flow_splat.attached import parts_of, up_of
from semfield_ns.semantic_flow_splat.datamanager import SplatDataManagerConfig
from semfield_ns.semantic_flow_splat.moving import MovingGaussians
from semfield_ns.sessions.actions import SetParts
from semfield_ns.sessions.masks import open_run, scene_views
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.exports import export_session
from tests.export.surface_splats import seen_splats, splat_vertices
from tests.semantic_flow_splat.conftest import make_model

SEED = 1


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMFIELD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def scene():
    return make_scene("static", SEED, 8, 240, 180)


@pytest.fixture(scope="module")
def attached(scene, tmp_path_factory) -> SimpleNamespace:
    """A run of a foreign file, which has properties that nobody knows."""
    folder = tmp_path_factory.mktemp("attached")
    vertices, owner = seen_splats(scene, 24_000, SEED)
    count = len(vertices)
    odd = np.full(count, np.nan), np.arange(count, dtype=np.int32), np.full(count, 7, np.uint8)
    vertices = append_fields(vertices, ["weight", "segment", "flag"], odd, usemask=False)
    file = folder / "home.ply"
    write_ply(file, vertices, ["comment Vertical Axis: z", "comment by another program"])
    attach(splat=file, output_dir=folder / "out", teacher="classical")
    run = folder / "out" / "home" / "semantic-flow-splat-tiny" / "attached" / "config.yml"
    pipeline = open_run(run)[1]
    return SimpleNamespace(file=file, vertices=vertices, owner=owner, run=run, pipeline=pipeline, folder=folder)


def picture_of(vertices: np.ndarray, world: np.ndarray, camera: ViewCamera, **options) -> torch.Tensor:
    """The rows of a file, drawn in their own world by a camera of another one."""
    splats = splats_of(vertices)
    pose, back = torch.tensor(camera.camera_to_world).view(3, 4).double().numpy(), np.linalg.inv(world)
    factor = np.cbrt(np.linalg.det(back[:3, :3]))
    there = np.concatenate([back[:3, :3] / factor @ pose[:, :3], back[:3, :3] @ pose[:, 3:] + back[:3, 3:]], axis=1)
    there = torch.tensor(there).float()
    seen = splats.gaussians.with_channels(colours(splats.coefficients, splats.gaussians.means, there))
    lens = camera.fx, camera.fy, camera.cx, camera.cy
    return render(seen, there, lens, camera.width, camera.height, background=torch.full((3,), 0.5), **options).channels


def test_the_run_shows_the_file(attached):
    model = attached.pipeline.model
    world = np.eye(4)
    world[:3] = attached.pipeline.datamanager.train_dataset.metadata["to_model"]
    for view in scene_views(attached.pipeline, "train")[:2]:
        found = model.raw_outputs_for_camera(view.camera.cameras())["rgb"]
        assert (found - picture_of(attached.vertices, world, view.camera)).abs().max() < 4e-3
        assert (found - 0.5).abs().mean() > 0.05, "something is seen"


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("antialiased", [False, True])
def test_colours_of_every_degree_are_those_of_the_file(degree, antialiased, tmp_path):
    rng = np.random.default_rng(degree)
    vertices = splat_vertices(rng.standard_normal((60, 3)), rng, rest=3 * ((degree + 1) ** 2 - 1))
    for index in range(3):
        vertices[f"scale_{index}"] = np.log(0.02) + 0.5 * vertices[f"scale_{index}"]
    write_ply(tmp_path / "a.ply", vertices)
    turn = np.array([[0.0, -1, 0, 0.3], [0.6, 0, -0.8, 1], [0.8, 0, 0.6, -2], [0, 0, 0, 1]])
    turn[:3, :3] *= 0.37
    gaussians = MovingGaussians(1, 0, degree, 2)
    gaussians.fill(60, parts_of(read_ply(tmp_path / "a.ply")), torch.tensor(turn))
    pose = torch.tensor([[1.0, 0, 0, 0.3], [0, 1, 0, 1], [0, 0, 1, 0]])
    camera = ViewCamera(tuple(pose.flatten().tolist()), 60, 60, 40, 30, 80, 60)
    values = splats_of(vertices).gaussians.with_channels(
        colours(gaussians.coefficients_at(0.0), gaussians.means_at(0.0), pose, degree)
    )
    drawn = type(values)(
        gaussians.means_at(0.0),
        gaussians.quaternions,
        gaussians.scales.exp(),
        gaussians.opacities_at(0.0),
        values.channels,
    )
    background = torch.full((3,), 0.5)
    ours = render(drawn, pose, (60, 60, 40, 30), 80, 60, background=background, antialiased=antialiased).channels
    assert (ours - picture_of(vertices, turn, camera, antialiased=antialiased)).abs().max() < 2e-3
    assert (ours - 0.5).abs().max() > 0.1


def draw(attached, scene, target: int) -> tuple:
    """A stroke on an object and one beside it, in the view that shows it best."""
    pipeline = attached.pipeline
    session = pipeline.segmenter.session = Session()
    cloud, views = pipeline.model.cloud(), scene_views(pipeline, "train")
    mine = torch.from_numpy(attached.owner == target).float()[:, None]
    truths = [cloud.show(view.camera, mine)[..., 0].numpy() > 0.5 for view in views]
    best = max(range(len(views)), key=lambda number: truths[number].sum())
    number = session.add_object("thing")
    for stroke in simulate_strokes(truths[best], views[best].camera, 0):
        session.add_prompt(number, stroke)
    return session, views[best].camera, truths[best]


def test_strokes_divide_the_file_bit_for_bit(attached, scene, tmp_path):
    target = int(np.bincount(attached.owner)[1:].argmax()) + 1
    session, camera, truth = draw(attached, scene, target)
    masks = attached.pipeline.segmenter.segment(camera).masks
    assert iou(masks[0].numpy(), truth) > 0.85, "a view shows what was selected"
    session.save(tmp_path / "session.json")
    export(tmp_path / "out", attached.run, session=tmp_path / "session.json", formats=("splats",))
    splats = tmp_path / "out" / "splats"
    assert sorted(path.name for path in splats.iterdir()) == [
        *("labels.json", "labels.npy", "scene.ply", "thing.ply", "without_thing.ply")
    ]
    assert (splats / "scene.ply").read_bytes() == attached.file.read_bytes()
    ids = np.load(splats / "labels.npy")
    assert iou(ids == 1, attached.owner == target) >= 0.9
    rows = attached.vertices
    for name, kept in (("thing", ids == 1), ("without_thing", ids == 0)):
        part = PlyData.read(splats / f"{name}.ply")
        assert part["vertex"].data.dtype.names == rows.dtype.names
        assert part["vertex"].data.tobytes() == np.ascontiguousarray(rows[kept]).tobytes()
        assert part.comments == ["Vertical Axis: z", "by another program"]


def test_the_button_of_the_viewer_writes_the_same(attached, scene, tmp_path):
    session, _, _ = draw(attached, scene, 1)
    page = SimpleNamespace(lock=Lock(), told=str)
    said = export_session(attached.pipeline, session, tmp_path, "splats", "train", page)
    assert said == f"Wrote 5 files to {tmp_path / 'splats'}" and (tmp_path / "session.json").exists()
    ids = attached.pipeline.segmenter.selection().ids.numpy()
    assert (np.load(tmp_path / "splats" / "labels.npy") == ids).all() and (ids == 1).any()


def test_pictures_of_the_run_show_the_selection(attached, scene):
    """As `ns-render` makes them."""
    _, camera, truth = draw(attached, scene, 1)
    shown = attached.pipeline.model.get_outputs_for_camera(camera.cameras())["segmentation"][..., 0].numpy() > 0
    assert iou(shown, truth) > 0.8


def test_what_nobody_drew_on_is_written_whole(attached, tmp_path):
    export(tmp_path, attached.run, formats=("splats",))
    assert (tmp_path / "splats" / "scene.ply").read_bytes() == attached.file.read_bytes()
    assert not np.load(tmp_path / "splats" / "labels.npy").any()
    with pytest.raises(SemfieldError, match="no classes: draw on its objects"):
        export(tmp_path, attached.run, formats=("masks",))


def test_every_thing_is_found_shown_and_written_without_a_stroke(attached, scene, tmp_path):
    attached.pipeline.segmenter.session = Session()
    export(tmp_path / "out", attached.run, formats=("masks", "splats"), things=True)
    ids = np.load(tmp_path / "out" / "splats" / "labels.npy")
    for target in range(1, attached.owner.max() + 1):
        assert max(iou(ids == thing, attached.owner == target) for thing in range(1, ids.max() + 1)) > 0.85
    counts = np.bincount(ids)[1:]
    assert (counts[:-1] >= counts[1:]).all(), "the largest one is first"
    names = {path.name for path in (tmp_path / "out" / "splats").iterdir()}
    things = {f"thing_{number + 1}.ply" for number in range(len(counts))}
    assert names == things | {"labels.json", "labels.npy", "scene.ply"}
    part = PlyData.read(tmp_path / "out" / "splats" / "thing_1.ply")["vertex"].data
    assert part.tobytes() == np.ascontiguousarray(attached.vertices[ids == 1]).tobytes()
    camera = scene_views(attached.pipeline, "train")[0].camera.cameras()
    model = attached.pipeline.model
    shown, raw = model.get_outputs_for_camera(camera)["instances"], model.raw_outputs_for_camera(camera)["instances"]
    assert shown.shape[2] == 3 and shown.min() >= 0 and shown.max() <= 1 and raw.max() > 0
    pale = shown[raw[..., 0] == 0]
    assert torch.equal(pale[:, 0], pale[:, 1]) and not torch.equal(shown[..., 0], shown[..., 1])


@pytest.mark.bad_input
def test_things_where_there_are_none_are_one_sentence(attached, tmp_path):
    with pytest.raises(SemfieldError, match="--things takes the place of a session"):
        export(tmp_path, attached.run, session=tmp_path / "session.json", formats=("splats",), things=True)
    with pytest.raises(SemfieldError, match="give a run of semfield attach"):
        ThingViews(SimpleNamespace(cloud=lambda: None), [])
    nothing = SimpleNamespace(things=torch.zeros(5, dtype=torch.long))
    with pytest.raises(SemfieldError, match="No thing was found"):
        ThingViews(SimpleNamespace(cloud=lambda: nothing), [])


def test_words_boxes_and_parts_do_not_break_it(attached, scene):
    session, camera, truth = draw(attached, scene, int(np.bincount(attached.owner)[1:].argmax()) + 1)
    session.do(SetParts(session.state.objects[0].id, 2))
    assert set(attached.pipeline.segmenter.segment(camera).parts.unique().tolist()) == {0, 1, 2}
    session.undo()
    rows, columns = np.nonzero(truth)
    boxed = session.add_object("boxed")
    corners = ((columns.min(), rows.min()), (columns.max(), rows.max()))
    session.add_prompt(boxed, Box(camera, tuple((float(x), float(y)) for x, y in corners)))
    ids = attached.pipeline.segmenter.selection().ids
    assert ids.max() <= 2


def test_a_file_that_changed_under_a_run_is_one_sentence(attached, scene, tmp_path):
    from semfield_ns.export.gaussians import write_splats

    class Changed:
        def splat_file(self) -> Path:
            return attached.file

    label = Label(1, "a", (1, 2, 3), 1, 1)
    with pytest.raises(SemfieldError, match="it was changed, attach the splat again"):
        write_splats(Changed(), tmp_path, [label], np.eye(4), None, None, torch.zeros(5, dtype=torch.long))


def test_photos_take_the_place_of_views(tmp_path):
    """The photos of the scene, in whose coordinates the splat is; their labels are not read."""
    scene = make_scene("static", SEED, 8, 96, 72)
    folder = write_scene("static", tmp_path / "photos", SEED, num_frames=8, width=96, height=72, samples_per_axis=1)
    write_ply(tmp_path / "home.ply", seen_splats(scene, 12_000, SEED)[0])
    attach(folder, splat=tmp_path / "home.ply", output_dir=tmp_path / "out", teacher="classical")
    _, pipeline = open_run(next((tmp_path / "out").glob("home/*/attached/config.yml")))
    dataset = pipeline.datamanager.train_dataset
    assert pipeline.model.label_map is None and pipeline.model.cloud() is not None
    found = pipeline.model.raw_outputs_for_camera(dataset.cameras[3:4])["rgb"]
    error = (found - dataset.get_image_float32(3)[..., :3]).abs().median()
    assert float(error) < 0.08, "the splat is where the photos see it"


def test_gaussians_fitted_to_photos_of_one_moment_have_features_when_they_are_saved(tmp_path):
    folder = write_scene("static", tmp_path, SEED, num_frames=4, width=64, height=48, samples_per_axis=1)
    manager = SplatDataManagerConfig(data=folder, encoder="classical").setup(device="cpu", test_mode="val")
    model = make_model(manager, flow_attention=False, num_shades=0, uplift_labels=False)
    assert model.cloud() is None
    model.state_dict()
    cloud = model.cloud()
    assert cloud is not None and cloud.features.norm(dim=1).min() > 0.99


def test_what_is_up_is_read_from_the_file_or_taken_as_of_colmap(tmp_path):
    vertices = splat_vertices(np.zeros((2, 3)), np.random.default_rng(0))
    write_ply(tmp_path / "a.ply", vertices, ["comment Vertical Axis: z"])
    write_ply(tmp_path / "b.ply", vertices)
    assert (up_of(read_ply(tmp_path / "a.ply")), up_of(read_ply(tmp_path / "b.ply"))) == ("z", "-y")


def spoilt(**values) -> np.ndarray:
    vertices = splat_vertices(np.random.default_rng(0).standard_normal((9, 3)), np.random.default_rng(1))
    for name, value in values.items():
        vertices[name][4] = value
    return vertices


def without(*names: str) -> np.ndarray:
    vertices = spoilt()
    kept = [name for name in vertices.dtype.names if name not in names]
    found = np.empty(len(vertices), [(name, "<f4") for name in kept])
    for name in kept:
        found[name] = vertices[name]
    return found


def whole_file(folder: Path, vertices: np.ndarray) -> bytes:
    write_ply(folder / "whole.ply", vertices)
    return (folder / "whole.ply").read_bytes()


TERMS = [f"f_rest_{number}" for number in range(10, 45)]
BAD = {
    "no scales": (
        lambda f: whole_file(f, without("scale_1")),
        "no property 'scale_1'",
    ),
    "no colours": (lambda f: whole_file(f, without("f_dc_0")), "Gaussians without colours"),
    "a term too few": (lambda f: whole_file(f, without("f_rest_44")), "has 44 properties f_rest_"),
    "terms misnumbered": (lambda f: whole_file(f, without("f_rest_3", *TERMS)), "has 9 properties f_rest_"),
    "a place that is NaN": (lambda f: whole_file(f, spoilt(y=np.nan)), "places that are NaN or infinite"),
    "a colour that is NaN": (lambda f: whole_file(f, spoilt(f_rest_7=np.nan)), "'f_rest_7' of Gaussian 4 is nan"),
    "an infinite scale": (lambda f: whole_file(f, spoilt(scale_0=np.inf)), "'scale_0' of Gaussian 4 is inf"),
    "an opacity that is NaN": (lambda f: whole_file(f, spoilt(opacity=np.nan)), "'opacity' of Gaussian 4 is nan"),
    "nothing": (lambda f: b"", "cannot read"),
    "no Gaussian": (lambda f: whole_file(f, spoilt()[:0]), "holds no Gaussian"),
    "words": (lambda f: b"some words\n", "cannot read"),
    "cut off": (lambda f: whole_file(f, spoilt())[:-100], "cannot read"),
    "compressed": (lambda f: b"ply\nformat binary_little_endian 1.0\nelement chunk 1\nend_header\n", "compressed PLY"),
    "spz": (lambda f: b"\x1f\x8b" + bytes(40), "an .spz of Niantic: convert it"),
    "sog": (lambda f: b"PK\x03\x04" + bytes(40), "a .sog of PlayCanvas"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("case", BAD)
def test_files_that_cannot_be_used_are_one_sentence_and_nothing_is_lost(case, tmp_path):
    make, told = BAD[case]
    file = tmp_path / "bad.ply"
    file.write_bytes(make(tmp_path))
    before = file.read_bytes()
    earlier = tmp_path / "out" / "bad" / "semantic-flow-splat-tiny" / "attached" / "scene" / "splat.ply"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("of an earlier run")
    with pytest.raises(SemfieldError, match=told) as caught:
        attach(splat=file, output_dir=tmp_path / "out", teacher="classical")
    assert "bad.ply" in str(caught.value) and "\n" not in str(caught.value)
    assert file.read_bytes() == before and earlier.read_text() == "of an earlier run"


@pytest.mark.bad_input
@pytest.mark.parametrize("suffix", ["splat", "ksplat", "spz", "sog"])
def test_other_formats_are_named_with_the_way_to_convert(suffix, tmp_path):
    (tmp_path / f"home.{suffix}").write_bytes(bytes(64))
    with pytest.raises(SemfieldError, match=rf"is an? \.{suffix} of .*: convert it .* SuperSplat"):
        attach(splat=tmp_path / f"home.{suffix}", output_dir=tmp_path / "out")


@pytest.mark.bad_input
def test_the_file_of_the_run_itself_is_not_lost(attached):
    inside = attached.run.parent / "scene" / "splat.ply"
    copy = attached.run.parent / "scene" / "home.ply"
    copy.write_bytes(inside.read_bytes())
    with pytest.raises(SemfieldError, match="in the folder of the run itself"):
        attach(splat=copy, output_dir=attached.folder / "out", teacher="classical")
    assert inside.exists() and copy.exists()
    copy.unlink()


@pytest.mark.bad_input
def test_options_that_contradict_each_other(tmp_path):
    with pytest.raises(SemfieldError, match="give --data"):
        attach()
    with pytest.raises(SemfieldError, match="leave --load-config and --bake out"):
        attach(splat=tmp_path / "a.ply", bake=True)


def test_infinite_opacities_flat_scales_and_turns_of_zero_are_drawn():
    vertices = spoilt(opacity=np.inf, scale_2=-np.inf, rot_0=0, rot_1=0, rot_2=0, rot_3=0)
    splats = splats_of(vertices)
    assert float(splats.gaussians.opacities[4]) == 1 and float(splats.gaussians.scales[4, 2]) > 0
    assert splats.gaussians.quaternions[4].tolist() == [1, 0, 0, 0]
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 8]])
    seen = splats.gaussians.with_channels(colours(splats.coefficients, splats.gaussians.means, pose))
    assert render(seen, pose, (30, 30, 20, 15), 40, 30).channels.isfinite().all()


def test_text_and_big_endian_files_are_read_alike(tmp_path):
    vertices = spoilt()
    for name, kind in (("a.ply", {"text": True}), ("b.ply", {"byte_order": ">"})):
        PlyData([PlyElement.describe(vertices, "vertex")], **kind).write(tmp_path / name)
        assert torch.equal(splats_of(read_ply(tmp_path / name).vertices).coefficients, splats_of(vertices).coefficients)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())
