"""Synthetic scenes: pictures, labels, depth and flow agree with each other, and folders are whole or absent."""

import ast
import json
import os
import subprocess
import sys
import time as clock
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semfield_ns.scenes.synthetic as package
from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.synthetic import PRESETS, Intrinsics, make_scene, shapes, write_scene, writer
from semfield_ns.scenes.synthetic.cameras import WavingPath, pixel_grid, project, rays_through
from semfield_ns.scenes.synthetic.motion import Motion, smooth_path

MOVING = ["demo", "demo-b", "fast", "thin"]
SHAPES = [
    shapes.Sphere(),
    shapes.Box(),
    shapes.Cylinder(),
    shapes.Cone(),
    shapes.Capsule(0.7),
    shapes.Torus(0.3),
]


@pytest.fixture(scope="module")
def demo():
    return make_scene("demo")


@pytest.fixture(scope="module")
def clip(demo):
    """Unsmoothed truth of every frame of the demo clip."""
    return [demo.render(demo.camera_at(t), time=t, samples_per_axis=1) for t in range(demo.num_frames)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_scene("demo", tmp_path_factory.mktemp("scenes") / "demo", num_frames=8, width=48, height=36)


def bilinear(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Values of image [H, W, C] at image positions [n, 2] inside it."""
    height, width = image.shape[:2]
    x = np.clip(uv[:, 0] - 0.5, 0, width - 1.001)
    y = np.clip(uv[:, 1] - 0.5, 0, height - 1.001)
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - i)[:, None], (x - j)[:, None]
    upper = image[i, j] * (1 - fx) + image[i, j + 1] * fx
    return upper * (1 - fy) + (image[i + 1, j] * (1 - fx) + image[i + 1, j + 1] * fx) * fy


# Shapes


def distance_to(shape, points):
    """A function of points [n, 3] that is negative inside the shape, 0 on its surface and positive outside."""
    x, y, z = points.T
    radius = np.hypot(x, y)
    if isinstance(shape, shapes.Sphere):
        return np.linalg.norm(points, axis=-1) - 1
    if isinstance(shape, shapes.Box):
        return np.abs(points).max(axis=-1) - 1
    if isinstance(shape, shapes.Cylinder):
        return np.maximum(radius, np.abs(z)) - 1
    if isinstance(shape, shapes.Cone):
        return np.maximum(radius - (1 - z) / 2, -1 - z)
    if isinstance(shape, shapes.Capsule):
        return np.hypot(radius, np.maximum(np.abs(z) - shape.half_length, 0)) - 1
    return np.hypot(radius - 1, z) - shape.tube


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: type(s).__name__)
def test_a_ray_stops_at_the_first_point_of_the_surface_and_nowhere_else(shape):
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(400, 3))
    origins *= 4 / np.linalg.norm(origins, axis=-1, keepdims=True)
    directions = rng.uniform(-1.2, 1.2, (400, 3)) - origins
    hit = shape.hit(origins, directions)
    steps = np.linspace(0, 2, 1501)
    inside = distance_to(shape, (origins[:, None] + steps[:, None] * directions[:, None]).reshape(-1, 3)) < -2e-3
    inside = inside.reshape(400, -1)
    enters = np.where(inside.any(axis=-1), steps[inside.argmax(axis=-1)], np.inf)
    met = np.isfinite(hit)
    assert 50 < met.sum() < 400
    assert met[np.isfinite(enters)].all()
    assert (hit[met] <= enters[met] + 1e-9).all()
    points = origins[met] + hit[met, None] * directions[met]
    np.testing.assert_allclose(distance_to(shape, points), 0, atol=1e-8)
    assert shapes.meets_ball(origins, directions, shape.bound)[met].all()
    outwards = points + 1e-4 * shape.normal(points)
    assert (distance_to(shape, outwards) > 0).all()
    assert (np.einsum("ni,ni->n", shape.normal(points), directions[met]) < 1e-9).all()


# Motion and cameras


def test_paths_pass_their_waypoints_smoothly():
    path = ((0.0, 0.0, 0.0), (1.0, 2.0, 0.0), (0.0, 3.0, 1.0))
    np.testing.assert_allclose([smooth_path(path, u) for u in (0, 0.5, 1)], path)
    places = np.array([smooth_path(path, u) for u in np.linspace(-0.2, 1.2, 281)])
    speed = np.diff(places, axis=0) / 0.005
    assert np.abs(np.diff(speed, axis=0)).max() < 0.3


@pytest.mark.parametrize("name", MOVING)
def test_moving_classes_move_turn_and_deform_and_the_others_stand_still(name):
    scene = make_scene(name)
    dynamic = {c.name for c in scene.classes if c.dynamic}
    for thing in scene.objects:
        still = np.array_equal(thing.pose_at(0), thing.pose_at(11.3))
        assert still == (thing.class_name not in dynamic) == (not thing.motion.moves)
    moving = [o.motion for o in scene.objects if o.class_name in dynamic]
    assert len({o.class_name for o in scene.objects if o.class_name in dynamic}) >= 3
    assert sum(any(m.pulse) for m in moving) >= 3
    assert sum(m.spin != 0 for m in moving) >= 3


def test_placement_moves_an_object_as_a_whole():
    thing = make_scene("demo").instances[-1]
    shift = np.eye(4)
    shift[0, 3] = 0.5
    moved = replace(thing, placement=tuple(map(tuple, shift.tolist())))
    np.testing.assert_allclose(moved.pose_at(3) - thing.pose_at(3), np.eye(4, k=3) * 0.5, atol=1e-12)


def test_camera_is_opengl_with_the_top_left_pixel_up_and_left(demo):
    camera = demo.camera_at(0)
    np.testing.assert_allclose(camera[:3, :3].T @ camera[:3, :3], np.eye(3), atol=1e-12)
    _, directions = rays_through(pixel_grid(demo.intrinsics), camera, demo.intrinsics)
    first = directions[0] @ camera[:3, :3]
    np.testing.assert_allclose(first, [(0.5 - 80) / 136, -(0.5 - 60) / 136, -1])


@pytest.mark.parametrize("name", MOVING)
def test_the_baseline_gives_parallax(name):
    scene = make_scene(name)
    places = np.array([scene.camera_at(t)[:3, 3] for t in range(scene.num_frames)])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=-1)
    distance = np.linalg.norm(places.mean(axis=0) - scene.path.target)
    assert 0.4 < np.linalg.norm(places[-1] - places[0]) / distance < 0.6
    assert steps.max() < 2 * steps.min()
    held_out = np.array([c[:3, 3] for c in scene.held_out_cameras()])
    assert held_out.min(axis=0)[0] > places.min(axis=0)[0]
    assert held_out.max(axis=0)[0] < places.max(axis=0)[0]
    assert np.linalg.norm(places[None] - held_out[:, None], axis=-1).min() > 0.01


# Truth of one view


def test_depth_unprojects_to_the_position_and_back(demo, clip):
    camera, truth = demo.camera_at(5), clip[5]
    uv = pixel_grid(demo.intrinsics)
    origin, directions = rays_through(uv, camera, demo.intrinsics)
    points = origin + truth["depth"].reshape(-1, 1) * directions
    np.testing.assert_allclose(points, truth["position"].reshape(-1, 3), atol=1e-5)
    again, depth = project(truth["position"].reshape(-1, 3), camera, demo.intrinsics)
    np.testing.assert_allclose(again, uv, atol=1e-9)
    np.testing.assert_allclose(depth, truth["depth"].ravel(), rtol=1e-6)


def test_every_pixel_of_a_room_is_something(demo, clip):
    for truth in clip:
        assert truth["depth"].min() > 1
        assert truth["semantics"].max() < len(demo.classes)
        assert truth["rgb"].dtype == truth["depth"].dtype == np.float32
        assert truth["rgb"].min() >= 0
        assert truth["rgb"].max() <= 1
        assert truth["rgb"].std() > 0.1


@pytest.mark.parametrize("name", [*MOVING, "static", "varied"])
def test_masks_and_labels_follow_from_the_instances(name):
    scene = make_scene(name, width=64, height=48)
    truth = scene.render(scene.camera_at(9), time=9, samples_per_axis=1)
    names = [c.name for c in scene.classes]
    dynamic = np.zeros((48, 64), bool)
    for thing in scene.instances:
        here = truth["instances"] == thing.instance
        assert (truth["semantics"][here] == names.index(thing.class_name)).all()
        if scene.classes[names.index(thing.class_name)].dynamic:
            dynamic |= here
    np.testing.assert_array_equal(truth["dynamic"], dynamic)
    assert dynamic.any() == (not scene.static)
    assert np.isin(truth["semantics"][truth["instances"] == 0], [0, 1]).all()


def test_each_object_is_large_and_they_occlude_each_other(demo, clip):
    for thing in demo.instances:
        share = np.array([(truth["instances"] == thing.instance).mean() for truth in clip])
        assert (share >= 0.015).mean() > 0.8, thing.name
    dynamic = [o.instance for o in demo.instances if demo.classes[demo._class_ids()[demo.objects.index(o)]].dynamic]
    for instance in dynamic:
        others = [o.instance for o in demo.instances if o.instance != instance]
        hidden = [
            (demo.render(demo.camera_at(t), time=t, samples_per_axis=1, without=others)["instances"] == instance).sum()
            - (clip[t]["instances"] == instance).sum()
            for t in range(0, demo.num_frames, 3)
        ]
        in_front = sum(h > 20 for h in hidden)
        assert min(hidden) >= 0
        assert in_front >= 1 or instance == 3  # the ball rolls in front of everything


def test_without_removes_an_object_and_shows_what_is_behind(demo, clip):
    removed = demo.render(demo.camera_at(7), time=7, samples_per_axis=1, without=(3, 5))
    gone = np.isin(clip[7]["instances"], (3, 5))
    assert not np.isin(removed["instances"], (3, 5)).any()
    assert (removed["depth"][gone] > clip[7]["depth"][gone]).all()
    np.testing.assert_array_equal(removed["semantics"][~gone], clip[7]["semantics"][~gone])
    with pytest.raises(SemfieldError, match="no instance 99"):
        demo.render(demo.camera_at(7), time=7, without=(99,))


def test_antialiasing_comes_closer_to_the_true_mean(demo):
    small = Intrinsics.centred(64, 48, 0.85)
    images = {n: demo.render(demo.camera_at(4), small, 4, samples_per_axis=n)["rgb"] for n in (1, 2, 3, 9)}
    errors = {n: np.square(images[n] - images[9]).mean() for n in (1, 2, 3)}
    assert errors[3] < errors[2] < errors[1] / 2


# Flow


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("step", [1, -1])
def test_flow_lands_where_the_material_point_is_drawn(name, step):
    """At the far end of a valid flow vector the other view shows the same object at the same material point."""
    scene = make_scene(name)
    t, other = 12, 12 + step
    truth = scene.render(scene.camera_at(t), time=t, samples_per_axis=1)
    flow, valid = scene.flow_between(scene.camera_at(t), t, scene.camera_at(other), other)
    instances = truth["instances"].ravel()
    target = (pixel_grid(scene.intrinsics) + flow.reshape(-1, 2))[valid.ravel()]
    assert ((target >= 0) & (target <= (160, 120))).all()
    hits = scene.cast(*rays_through(target, scene.camera_at(other), scene.intrinsics), other)
    ids = np.array([o.instance for o in scene.objects])[hits.index]
    assert (ids == instances[valid.ravel()]).mean() > 0.999
    for thing in scene.instances:
        chosen = (ids == thing.instance) & (instances[valid.ravel()] == thing.instance)
        there = hits.position[chosen] @ np.linalg.inv(thing.pose_at(other))[:3, :3].T
        before = truth["position"].reshape(-1, 3)[valid.ravel()][chosen] @ np.linalg.inv(thing.pose_at(t))[:3, :3].T
        drift = (there + np.linalg.inv(thing.pose_at(other))[:3, 3]) - (before + np.linalg.inv(thing.pose_at(t))[:3, 3])
        # The flow is stored as float32 and rays graze at silhouettes, so the median is what is exact.
        assert np.median(np.abs(drift), axis=0).max() < 1e-4


def test_flow_of_background_is_that_of_the_camera_alone(demo, clip):
    flow, _ = demo.flow_between(demo.camera_at(3), 3, demo.camera_at(4), 4)
    target, _ = project(clip[3]["position"].reshape(-1, 3), demo.camera_at(4), demo.intrinsics)
    still = ~clip[3]["dynamic"]
    expected = (target - pixel_grid(demo.intrinsics)).reshape(120, 160, 2)
    np.testing.assert_allclose(flow[still], expected[still], atol=1e-4)
    assert np.abs(flow[~still] - expected[~still]).max() > 2


@pytest.mark.parametrize("name", MOVING)
def test_flow_warps_the_picture_onto_its_neighbour(name):
    scene = make_scene(name)
    here, there = (scene.render(scene.camera_at(t), time=t) for t in (10, 11))
    flow, valid = scene.flow_between(scene.camera_at(10), 10, scene.camera_at(11), 11)
    target = (pixel_grid(scene.intrinsics) + flow.reshape(-1, 2))[valid.ravel()]
    warped = np.abs(bilinear(there["rgb"], target) - here["rgb"][valid]).mean()
    unmoved = np.abs(there["rgb"] - here["rgb"])[valid].mean()
    assert warped < 0.02
    assert warped < unmoved / 2
    assert 0.8 < valid.mean() < 1


def test_flow_there_and_back_returns(demo):
    cameras = demo.camera_at(10), demo.camera_at(11)
    forward, valid = demo.flow_between(cameras[0], 10, cameras[1], 11)
    backward, _ = demo.flow_between(cameras[1], 11, cameras[0], 10)
    target = (pixel_grid(demo.intrinsics) + forward.reshape(-1, 2))[valid.ravel()]
    trip = np.linalg.norm(forward[valid] + bilinear(backward, target), axis=-1)
    # Between pixels of different objects the interpolated way back is neither's.
    assert np.median(trip) < 0.01
    assert (trip < 0.3).mean() > 0.95


def test_flow_is_invalid_where_something_comes_in_front(demo, clip):
    flow, valid = demo.flow_between(demo.camera_at(10), 10, demo.camera_at(12), 12)
    target = np.floor(pixel_grid(demo.intrinsics).reshape(120, 160, 2) + flow).astype(int)
    inside = ((target >= 0) & (target < (160, 120))).all(axis=-1)
    lost = inside & ~valid
    assert lost.sum() > 50
    other = clip[12]["depth"][target[lost][:, 1], target[lost][:, 0]]
    assert (other < clip[10]["depth"][lost]).mean() > 0.7


def test_a_still_camera_on_a_still_moment_has_no_flow(demo):
    flow, valid = demo.flow_between(demo.camera_at(2), 2, demo.camera_at(2), 2)
    assert np.abs(flow).max() < 1e-4
    assert valid.mean() > 0.999


# Presets


def test_seeds_reproduce_bit_for_bit_and_differ():
    for name in PRESETS:
        a, again, b = (make_scene(name, seed, width=40, height=30) for seed in (3, 3, 4))
        first, second, other = (s.render(s.camera_at(5), time=5, samples_per_axis=1) for s in (a, again, b))
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
        assert np.abs(first["rgb"] - other["rgb"]).mean() > 0.005


def test_presets_share_classes():
    names = {name: [c.name for c in make_scene(name).classes] for name in PRESETS}
    assert names["demo"] == names["demo-b"] == names["fast"] == names["thin"][:-1]
    assert [c.name for c in make_scene("static", 7).classes] == names["static"]


def test_fast_and_thin_are_what_they_say():
    def median_flow(name, instance):
        scene = make_scene(name)
        truth = scene.render(scene.camera_at(4), time=4, samples_per_axis=1)
        flow, _ = scene.flow_between(scene.camera_at(4), 4, scene.camera_at(5), 5)
        return np.median(np.linalg.norm(flow, axis=-1)[truth["instances"] == instance])

    assert median_flow("fast", 3) > max(12, 2 * median_flow("demo", 3))
    scene = make_scene("thin")
    rod = scene.render(scene.camera_at(12), time=12, samples_per_axis=1)["instances"] == 6
    widths = rod.sum(axis=1)[rod.any(axis=1)]
    assert len(widths) > 40
    assert 1 <= np.median(widths) <= 4


def test_static_scenes_differ_by_seed_and_nothing_touches():
    scenes = [make_scene("static", seed) for seed in range(6)]
    assert len({tuple(o.class_name for o in s.instances) for s in scenes}) > 3
    assert len({s.path for s in scenes}) == 6
    for scene in scenes:
        assert len(scene.instances) >= 4
        assert all(o.pose_at(0)[2, 3] > 0 for o in scene.instances)


def test_varied_scenes_are_of_many_kinds_and_their_cameras_see_something():
    scenes = [make_scene("varied", seed, 8, 40, 30) for seed in range(12)]
    assert len({type(scene.path) for scene in scenes}) == 2
    assert len({len(scene.objects) for scene in scenes}) > 6
    depths = []
    for scene in scenes:
        assert [o.instance for o in scene.instances] == list(range(1, len(scene.instances) + 1))
        for view in (0, 5):
            truth = scene.render(scene.camera_at(view), samples_per_axis=1)
            assert (truth["instances"] > 0).mean() > 0.01 and truth["rgb"].std() > 0.02
            known = truth["depth"][truth["depth"] > 0]
            depths.append((known.min(), known.max()))
    assert min(near for near, _ in depths) > 0.3 and max(far for _, far in depths) < 40
    assert any((scene.render(scene.camera_at(0), samples_per_axis=1)["depth"] == 0).any() for scene in scenes)


def test_cameras_in_front_of_a_scene_look_its_way():
    path = WavingPath(target=(0.2, 1.0, 0.8), distance=4.0, height=1.2, width=0.8, rise=0.3, follow=1.0)
    poses = np.stack([path.at(u) for u in np.linspace(0, 1, 9)])
    assert np.allclose(poses[:, 1, 3], -3.0) and np.ptp(poses[:, 0, 3]) == pytest.approx(1.6)
    assert np.allclose(poses[:, :3, 2], poses[0, :3, 2])  # follows entirely: no turning
    turning = np.stack([replace(path, follow=0.0).at(u) for u in (0.0, 1.0)])
    towards = np.array(path.target) - turning[:, :3, 3]
    assert np.allclose(-turning[:, :3, 2], towards / np.linalg.norm(towards, axis=1, keepdims=True))
    assert np.allclose(path.at(0.5, (0.1, 0.2, 0.3))[:3, 3] - path.at(0.5)[:3, 3], (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "demmo"}, "choose one of demo"),
        ({"name": "demo", "num_frames": 1}, "2 to 999"),
        ({"name": "demo", "width": 0}, "empty"),
        ({"name": "demo", "seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, words):
    with pytest.raises(SemfieldError, match=words):
        make_scene(**arguments)


def test_the_package_needs_neither_torch_nor_nerfstudio():
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(m.split(".")[0] in ("torch", "nerfstudio") for m in modules), path


# Folders


def test_written_scene_has_every_field_and_file(written):
    transforms = json.loads((written / "transforms.json").read_text())
    assert {"fl_x", "fl_y", "cx", "cy", "w", "h", "camera_model", "semantics"} <= transforms.keys()
    assert transforms["depth_unit_scale_factor"] == 1.0
    assert [c["dynamic"] for c in transforms["semantics"]["classes"]] == [False] * 3 + [True] * 3
    frames = {frame["file_path"]: frame for frame in transforms["frames"]}
    assert sorted(frames) == sorted(transforms["train_filenames"] + transforms["test_filenames"])
    wanted = {"time", "camera_id", "transform_matrix", *writer.PATH_KEYS}
    train = [frames[name] for name in transforms["train_filenames"]]
    assert [frame["time"] for frame in train] == list(range(8))
    for k, frame in enumerate(train):
        missing = {"flow_bwd_path"} if k == 0 else {"flow_fwd_path"} if k == 7 else set()
        assert frame.keys() == wanted - missing
    for frame in frames.values():
        for key in writer.PATH_KEYS:
            assert key not in frame or (written / frame[key]).is_file()
    grid = {(frames[name]["camera_id"], frames[name]["time"]) for name in transforms["test_filenames"]}
    cameras, times = {c for c, _ in grid}, {t for _, t in grid}
    assert len(grid) == len(cameras) * len(times) == 24
    assert transforms["val_filenames"] == transforms["test_filenames"]


def test_written_files_hold_what_was_rendered(written):
    scene = make_scene("demo", num_frames=8, width=48, height=36)
    truth = scene.render(scene.camera_at(3), time=3)
    rgb = np.array(Image.open(written / "images/003.png"))
    np.testing.assert_array_equal(rgb, np.round(truth["rgb"] * 255).astype(np.uint8))
    np.testing.assert_array_equal(np.load(written / "depth/003.npy"), truth["depth"])
    np.testing.assert_array_equal(np.array(Image.open(written / "labels/003.png")), truth["semantics"])
    np.testing.assert_array_equal(np.array(Image.open(written / "instances/003.png")), truth["instances"])
    np.testing.assert_array_equal(np.array(Image.open(written / "masks/003.png")) > 0, truth["dynamic"])
    flow, valid = scene.flow_between(scene.camera_at(3), 3, scene.camera_at(2), 2)
    with np.load(written / "flow/003_bwd.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["flow"], flow)
        np.testing.assert_array_equal(stored["mask"], valid)


def test_written_scenes_are_read_back(written, tmp_path):
    scene = read_scene(written)
    assert len(scene.train) == 8
    assert len(scene.test) == 24
    assert scene.label_map is not None
    assert scene.depth_kind == "metric"
    assert scene.depth_unit_scale == 1.0
    np.testing.assert_allclose(scene.train[2].c2w, make_scene("demo", num_frames=8).camera_at(2))
    static = read_scene(write_scene("static", tmp_path / "static", seed=1, num_frames=5, width=32, height=24))
    assert len(static.train) == 5
    assert len(static.test) == 6


def test_a_complete_scene_is_kept_and_another_one_replaces_it(tmp_path):
    arguments = {"num_frames": 2, "width": 16, "height": 12, "samples_per_axis": 1}
    calls = []
    folder = write_scene("demo", tmp_path / "s", **arguments, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)
    stamp = (folder / "transforms.json").stat().st_mtime_ns
    write_scene("demo", folder, **arguments)
    assert (folder / "transforms.json").stat().st_mtime_ns == stamp
    (folder / "labels/001.png").unlink()
    write_scene("demo", folder, **arguments)
    assert (folder / "labels/001.png").is_file()
    write_scene("demo", folder, seed=5, **arguments)
    assert json.loads((folder / "transforms.json").read_text())["synthetic"]["recipe"]["seed"] == 5
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_folder_with_anything_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SemfieldError, match="something else"):
        write_scene("demo", tmp_path, num_frames=2, width=8, height=6)
    with pytest.raises(SemfieldError, match="is a file"):
        write_scene("demo", tmp_path / "thesis.tex", num_frames=2, width=8, height=6)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write_flows", full)
    with pytest.raises(SemfieldError, match="No space left"):
        write_scene("demo", tmp_path / "s", num_frames=2, width=16, height=12)
    assert not list(tmp_path.iterdir())


def test_a_killed_write_leaves_no_scene_and_the_next_one_tidies_up(tmp_path):
    folder = tmp_path / "s"
    code = f"from semfield_ns.scenes.synthetic import write_scene; write_scene('demo', {str(folder)!r}, num_frames=400)"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = clock.monotonic() + 30
        while not list(tmp_path.glob(".s.*.partial/images/001.png")) and clock.monotonic() < deadline:
            clock.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert left[0].name.endswith(".partial")
    assert not (left[0] / "transforms.json").exists()
    write_scene("demo", folder, num_frames=2, width=16, height=12, samples_per_axis=1)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_motion_that_does_nothing_says_so():
    assert not Motion().moves
    assert Motion(spin=1.0).moves
    assert Motion(pulse=(0.1, 0.0, 0.0)).moves
