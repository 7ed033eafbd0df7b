"""Scenes in normalised coordinates, draws of views and rays, memory, and what is said of bad scenes."""

import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn import datamanager
from semfield_ns.gsn.augmentation import crop, mirror
from semfield_ns.gsn.datamanager import scene_weights, targets_worth
from semfield_ns.gsn.library import SceneLibrary, load_scene
from semfield_ns.gsn.memory import BoundedCache
from semfield_ns.gsn.normalisation import range_of
from semfield_ns.gsn.projection import observe, observe_tokens, project
from semfield_ns.gsn.sources import draw_sources, draw_targets, nearest_views
from semfield_ns.gsn.tokens import TokenProjection, TokenStore
from semfield_ns.scenes.collection import find_scenes
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.scene import Frame
from semfield_ns.scenes.synthetic import make_scene
from semfield_ns.teachers.classical import ClassicalTeacher
from semfield_ns.teachers.pca import Moments
from tests.gsn.builders import small_pipeline, write_scenes
from tests.gsn.scenes import random_views


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def scene(root):
    return load_scene(root / "scene_0", "scene_0")


def write_llff(folder, count=6, bounds=(2.0, 10.0), size=(24, 32), spacing=0.2):
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(count):
        Image.fromarray(np.full((*size, 3), 40 * index, dtype=np.uint8)).save(folder / "images" / f"{index}.png")
        pose = np.zeros((3, 5))
        pose[:, 0], pose[:, 1], pose[:, 2] = (0, -1, 0), (1, 0, 0), (0, 0, 1)  # down, right, back
        pose[:, 3], pose[:, 4] = (spacing * index, 0, 0), (*size, 30.0)
        rows.append([*pose.ravel(), bounds[0] + 0.1 * index, bounds[1]])
    np.save(folder / "poses_bounds.npy", np.array(rows))
    return folder


def test_llff_bounds_follow_the_official_rule(tmp_path):
    scene = load_scene(write_llff(tmp_path / "s"), "s")
    scale = 1 / (0.75 * 2.0)
    assert scene.scale == pytest.approx(scale)
    assert scene.near == pytest.approx(0.9 * 2.0 * scale) and scene.far == pytest.approx(1.6 * 10.0 * scale)
    assert scene.held_out == [0] and scene.train == [1, 2, 3, 4, 5]
    assert scene.centres.mean(dim=0).abs().max() < 1e-6
    steps = scene.centres[:, 0].diff()
    assert torch.allclose(steps, torch.full_like(steps, 0.2 * scale), atol=1e-6)


def test_without_bounds_the_cameras_tell_the_depth(root, tmp_path):
    shutil.copytree(root / "scene_0", tmp_path / "s")
    path = tmp_path / "s" / "transforms.json"
    meta = json.loads(path.read_text())
    for frame in meta["frames"]:
        frame.pop("depth_file_path")
    path.write_text(json.dumps(meta))
    scene = load_scene(tmp_path / "s", "s")
    assert scene.near == pytest.approx(4 / 3) and scene.far > 2 * scene.near


def test_points_project_where_the_picture_shows_them(root):
    """The synthetic scene's own depth: its pixels, moved into another view, show the same colours."""
    scene = load_scene(root / "scene_0", "scene_0")
    library = SceneLibrary([scene], 1 << 20)
    truth = make_scene("static", 0, 8, 48, 36)
    depth = torch.from_numpy(truth.render(truth.camera_at(3), 0)["depth"].astype(np.float32)) * scene.scale
    bundle = scene.cameras.generate_rays(camera_indices=3, keep_shape=True)
    points = bundle.origins + bundle.directions * bundle.metadata["directions_norm"] * depth[..., None]
    views = library.views(0, [3, 4])
    pixels, visible = project(points.reshape(-1, 3), views)
    rows, columns = torch.meshgrid(torch.arange(36.0), torch.arange(48.0), indexing="ij")
    assert (pixels[0] - torch.stack([columns, rows], dim=-1).view(-1, 2)).abs().max() < 1e-2
    other = torch.from_numpy(truth.render(truth.camera_at(4), 0)["depth"].astype(np.float32)) * scene.scale
    to_other = -(points.view(-1, 3) - views.camera_to_world[1, :, 3]) @ views.camera_to_world[1, :, 2]
    u, v = pixels[1].round().long().clamp(min=0).unbind(dim=-1)
    seen = visible[1] & (u < 48) & (v < 36)
    agrees = (other[v[seen], u[seen]] - to_other[seen]).abs() < 0.02 * to_other[seen]
    assert agrees.float().mean() > 0.8  # the rest is hidden, or at an edge


def test_a_root_of_scenes_is_one_data_set(root, tmp_path):
    assert list(find_scenes(root)) == ["scene_0", "scene_1"]
    assert find_scenes(root / "scene_0") == {"scene_0": root / "scene_0"}
    with pytest.raises(SemfieldError, match="holds no scene"):
        find_scenes(tmp_path)
    with pytest.raises(SemfieldError, match="There is no folder"):
        find_scenes(tmp_path / "absent")


def test_pictures_shrink_with_their_cameras(root):
    scene = load_scene(root / "scene_0", "scene_0", longest_side=24)
    library = SceneLibrary([scene], 1 << 20)
    assert library.image(0, 0).shape == (18, 24, 3)
    whole = load_scene(root / "scene_0", "scene_0")
    assert torch.allclose(scene.cameras.fx, whole.cameras.fx / 2)


def test_sources_are_near_and_never_the_target(scene):
    chosen = nearest_views(scene.centres[2], scene.centres, scene.train, 3)
    distances = (scene.centres[scene.train] - scene.centres[2]).norm(dim=-1)
    assert 2 not in chosen and len(chosen) == 3
    assert set(chosen) == {scene.train[i] for i in distances.argsort()[1:4].tolist()}
    generator = torch.Generator().manual_seed(0)
    sizes = set()
    for _ in range(50):
        drawn = draw_sources(2, scene.centres, scene.train, 3, generator)
        assert 2 not in drawn and len(set(drawn)) == len(drawn) and set(drawn) <= set(scene.train)
        sizes.add(len(drawn))
    assert sizes == {2, 3, 4}


def test_targets_share_sources_that_none_of_them_is(scene):
    generator = torch.Generator().manual_seed(0)
    for first in scene.train:
        sources = draw_sources(first, scene.centres, scene.train, 3, generator)
        targets = draw_targets(first, sources, scene.centres, scene.train, 3)
        assert targets[0] == first and len(set(targets)) == len(targets) <= 3
        assert not set(targets) & set(sources) and set(targets) <= set(scene.train)
        assert len(targets) == min(3, len(scene.train) - len(sources))
    centres = scene.centres.clone()
    centres[4] = centres[3]  # a second picture from where a source was taken
    assert draw_targets(0, [3], centres, [0, 3, 4, 5], 4) == [0, 5]
    assert draw_targets(0, [], centres, [0, 3, 4, 5], 4) == [0]


def test_large_pictures_have_more_targets():
    assert targets_worth(10 * 1008 * 756, 1024, 8) == 8
    assert targets_worth(10 * 504 * 378, 1024, 8) == 2
    assert targets_worth(5 * 200 * 150, 256, 8) == 1 and targets_worth(10 * 1008 * 756, 1024, 1) == 1


def test_memory_stays_within_its_budget():
    cache = BoundedCache(100)
    makes = []

    def make(key, size):
        makes.append(key)
        return torch.zeros(size, dtype=torch.uint8)

    for key in range(10):
        assert cache.get(key, lambda k=key: make(k, 30)).numel() == 30
        assert cache.used <= 100
    assert len(cache) == 3
    cache.get(9, lambda: make(9, 30))
    assert makes.count(9) == 1
    cache.get("large", lambda: make("large", 500))
    assert cache.used <= 100

    def use():
        for key in range(50):
            cache.get(key, partial(make, key, 7))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.used <= 100 and cache.used == 7 * len(cache)


def test_mirror_and_crop_leave_what_points_show():
    views = random_views(3, 40, 56, feature_dim=4)
    points = torch.randn(30, 5, 3) * 0.3 - torch.tensor([0.0, 0.0, 3.0])
    plain = views._replace(maps=views.images, distortion=None)
    before = observe(points, torch.zeros(30, 3), plain)
    flipped = mirror(views)
    after = observe(points, torch.zeros(30, 3), flipped._replace(maps=flipped.images))
    assert torch.equal(before.hidden, after.hidden)
    assert torch.allclose(before.shown[..., :6], after.shown[..., :6], atol=1e-4)
    assert torch.allclose(observe_tokens(before.pixels, views), observe_tokens(after.pixels, flipped), atol=1e-4)
    part = crop(views._replace(tokens=()), 0.8)
    after = observe(points, torch.zeros(30, 3), part._replace(maps=part.images))
    seen = ~after.hidden[..., 0]
    assert (seen <= ~before.hidden[..., 0]).all() and seen.any()
    assert torch.allclose(before.shown[seen][:, :6], after.shown[seen][:, :6], atol=1e-4)


def test_steps_name_their_scene_and_sources(root):
    pipeline = small_pipeline(root)
    manager = pipeline.datamanager
    scenes = set()
    for step in range(12):
        bundle, batch = manager.next_train(step)
        scene = int(bundle.metadata["scene"][0])
        scenes.add(scene)
        assert bundle.shape == (32,) and batch["image"].shape == (32, 3)
        target = int(batch["indices"][0, 0])
        assert target not in bundle.metadata["sources"][0].tolist()
        assert torch.allclose(bundle.origins[0], manager.library.scenes[scene].centres[target], atol=1e-5)
        row, column = batch["indices"][5, 1:].tolist()
        assert torch.allclose(batch["image"][5] * 255, manager.library.image(scene, target)[row, column].float())
    assert scenes == {0, 1}
    camera, batch = manager.next_eval_image(0)
    assert camera.metadata["scene"].shape == (1, 1) and batch["image"].shape == (36, 48, 3)


def test_rays_of_several_targets(root, monkeypatch):
    monkeypatch.setattr(datamanager, "targets_worth", lambda *_: 3)
    first, second = (small_pipeline(root).datamanager for _ in range(2))
    found = set()
    for step in range(12):
        bundle, batch = first.next_train(step)
        posed, indices = first.library.scenes[batch["scene"]], batch["indices"]
        targets, counts = indices[:, 0].unique_consecutive(return_counts=True)
        found.add(len(targets))
        assert len(indices) == first.get_train_rays_per_batch() == 96 // len(targets) * len(targets)
        assert len(set(counts.tolist())) == 1
        assert not set(targets.tolist()) & set(bundle.metadata["sources"][0].tolist())
        assert torch.allclose(bundle.origins, posed.centres[indices[:, 0]], atol=1e-5)
        for ray in (0, 40, 80):
            image, row, column = indices[ray].tolist()
            shown = first.library.image(batch["scene"], image)[row, column].float() / 255
            assert torch.allclose(batch["image"][ray], shown)
            assert torch.equal(bundle.metadata["colors"][ray], batch["image"][ray])
        again, _ = second.next_train(step)
        assert torch.equal(again.metadata["indices"], indices) and torch.equal(again.directions, bundle.directions)
    assert max(found) == 3


def test_scenes_have_weights():
    images = {"a": 10, "b": 30}
    assert scene_weights(images, False, ()) == [1.0, 1.0]
    assert scene_weights(images, True, ("a=4",)) == [40.0, 30.0]
    for wrong in ("c=1", "a", "a=0", "a=nan", "a=x"):
        with pytest.raises(SemfieldError, match="NAME=WEIGHT"):
            scene_weights(images, False, (wrong,))


def test_ranks_share_the_scenes(root):
    manager = small_pipeline(root).datamanager
    manager.world_size = 2
    shares = []
    for rank in range(2):
        manager.local_rank = rank
        shares.append(manager.own_scenes)
    assert sorted(shares[0] + shares[1]) == [0, 1]
    manager.world_size = 3
    assert manager.own_scenes == [0, 1]


def test_tokens_have_unit_norm_and_are_extracted_once(root, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path))
    library = SceneLibrary([load_scene(path, name) for name, path in find_scenes(root).items()], 1 << 20)
    projection = TokenProjection(39, 16)
    store = TokenStore(library, "classical", 4, projection, False, 1 << 20, "cpu")
    store.fit(4)
    grids = store.stack(1, [0, 2])
    assert grids.shape == (2, 16, 9, 12)
    assert torch.allclose(grids.norm(dim=1), torch.ones(2, 9, 12), atol=2e-3)
    again = TokenStore(library, "classical", 4, projection, False, 1 << 20, "cpu")
    monkeypatch.setattr(ClassicalTeacher, "encode", lambda *_: pytest.fail("extracted again"))
    assert torch.equal(again.stack(1, [0, 2]), grids)


def test_wide_features_are_padded(root):
    projection = TokenProjection(39, 64)
    samples = torch.randn(500, 39)
    projection.fit(Moments(39).add(samples))
    tokens = projection(samples)
    assert tokens.shape == (500, 64) and torch.equal(tokens[:, 39:], torch.zeros(500, 25))
    assert torch.allclose(tokens.norm(dim=-1), torch.ones(500), atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_too_few_views(tmp_path):
    with pytest.raises(SemfieldError, match=r"has 2 training images; at least 3"):
        load_scene(write_llff(tmp_path / "s", count=3), "s")


def test_no_overlap(tmp_path):
    with pytest.raises(SemfieldError, match="no image shows anything that another one shows"):
        load_scene(write_llff(tmp_path / "s", spacing=500.0), "s")


def test_nan_bounds(tmp_path):
    folder = write_llff(tmp_path / "s")
    table = np.load(folder / "poses_bounds.npy")
    table[3, 15] = np.nan
    np.save(folder / "poses_bounds.npy", table)
    with pytest.raises(SemfieldError, match="NaN or infinity in row 3"):
        load_scene(folder, "s")


def test_sizes_that_differ(root, tmp_path):
    shutil.copytree(root / "scene_0", tmp_path / "s")
    path = tmp_path / "s" / "transforms.json"
    meta = json.loads(path.read_text())
    entry = meta["frames"][2]
    with Image.open(tmp_path / "s" / entry["file_path"]) as image:
        image.resize((24, 18)).save(tmp_path / "s" / entry["file_path"])
    for key in ("semantic_path", "instance_path"):
        for frame in meta["frames"]:
            frame.pop(key, None)
    meta.pop("semantics")
    meta["frames"][2] |= {"w": 24, "h": 18, "fl_x": 20.0, "fl_y": 20.0, "cx": 12.0, "cy": 9.0}
    path.write_text(json.dumps(meta))
    with pytest.raises(SemfieldError, match=r"have to be of one size, but frame images/002\.png has 24x18"):
        load_scene(tmp_path / "s", "s")


def test_cameras_side_by_side_without_bounds(root, tmp_path):
    shutil.copytree(root / "scene_0", tmp_path / "s")
    path = tmp_path / "s" / "transforms.json"
    meta = json.loads(path.read_text())
    for index, frame in enumerate(meta["frames"]):
        frame.pop("depth_file_path")
        pose = np.eye(4)
        pose[0, 3] = 0.1 * index
        frame["transform_matrix"] = pose.tolist()
    path.write_text(json.dumps(meta))
    with pytest.raises(SemfieldError, match='add "near" and "far"'):
        load_scene(tmp_path / "s", "s")


def test_an_unknown_scene_to_show(root):
    with pytest.raises(SemfieldError, match="choose one of scene_0, scene_1"):
        config = small_pipeline(root).datamanager.config.dataparser
        config.shown_scene = "scene_7"
        config.setup().get_dataparser_outputs("train")


def test_held_out_images_are_never_sources(root):
    for path in find_scenes(root).values():
        scene = read_scene(path)
        posed = load_scene(path, path.name)
        frames: list[Frame] = [posed.frames[i] for i in posed.held_out]
        assert {frame.image_path for frame in frames} == {frame.image_path for frame in scene.test}
        assert not set(posed.train) & set(posed.held_out)


def test_rays_begin_and_end_where_the_source_views_see_something(tmp_path):
    scene = load_scene(write_scenes(tmp_path, count=1) / "scene_0", "x")
    assert scene.bounds(scene.train[:2]) == (scene.near, scene.far)  # nothing is known of single views
    ranges = torch.tensor([[1.5, 2.0], [2.0, 3.0], [torch.nan, torch.nan]])
    assert range_of(ranges, 1.0, 10.0) == pytest.approx((0.9 * 1.5, 1.6 * 3.0))
    assert range_of(ranges[1:], 1.9, 4.0) == pytest.approx((1.9, 4.0))
    assert range_of(ranges[2:], 1.0, 10.0) == (1.0, 10.0)
