"""Long videos in a bounded memory, and several cameras at a time."""

import json
import random
import shutil
import threading
import time
from copy import deepcopy

import numpy as np
import pytest
import torch

from semfield_ns.labelling.evidence import videos
from semfield_ns.method_configs.semantic_flow import semantic_flow_tiny
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow.datamanager import window_size
from semfield_ns.semantic_flow.frames import SourceFrames, same_camera_neighbours
from semfield_ns.semantic_flow.windows import stays_on_disk, windows
from semfield_ns.teachers.cache import mapped_stack
from tests.semantic_flow.conftest import make_cameras

SIZE = (24, 32)


def manager_of(scene, labels: str, budget: int = 4096):
    config = deepcopy(semantic_flow_tiny.config.pipeline.datamanager)
    config.data, config.dataparser.labels = scene, labels
    config.memory_budget, config.window_steps = budget, 2
    torch.manual_seed(0)
    random.seed(0)
    return config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    return write_scene("demo", folder / "scene", num_frames=8, width=SIZE[1], height=SIZE[0], samples_per_axis=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))


def test_a_window_grows_with_the_budget_and_never_with_the_video():
    size = (144, 192)
    assert window_size(10, size, 4096) == (10, True)
    short, long = window_size(300, size, 100), window_size(3000, size, 100)
    assert short == long and not short[1] and 2 <= short[0] < 30
    assert window_size(300, size, 200)[0] == pytest.approx(2 * short[0], abs=1)


def test_training_on_a_window_sees_all_frames_in_turn(scene, monkeypatch):
    monkeypatch.setattr("semfield_ns.semantic_flow.datamanager.BYTES_PER_PIXEL", 2**20 / 3 / SIZE[0] / SIZE[1])
    manager = manager_of(scene, "every-2", budget=3)
    everything = manager_of(scene, "every-2", budget=100)
    assert manager.train_dataset.metadata["on_disk"] and not everything.train_dataset.metadata["on_disk"]
    seen = []
    for step in range(60):
        _, batch = manager.next_train(step)
        frames = set(batch["indices"][:, 0].tolist())
        assert len(frames) <= 3
        seen.append(frames)
        camera, row, column = batch["indices"].unbind(dim=-1)
        for frame in frames:
            item, mine = manager.train_dataset[frame], camera == frame
            for key in ("image", "semantics", "depth", "flow_forward", "propagated_label"):
                assert torch.equal(batch[key][mine], item[key][row[mine], column[mine]]), key
    assert set().union(*seen) == set(range(8))
    # What the model reads does not depend on the budget.
    for key in ("source_features", "source_colors"):
        assert torch.equal(manager.train_dataset.metadata[key], everything.train_dataset.metadata[key])
    assert torch.equal(manager.train_dataset.propagated, everything.train_dataset.propagated)


def test_features_are_on_the_device_where_it_has_room_whatever_the_host_has(scene, monkeypatch):
    monkeypatch.setattr("semfield_ns.semantic_flow.datamanager.BYTES_PER_PIXEL", 2**20 / 3 / SIZE[0] / SIZE[1])
    for free, on_disk in ((24 * 2**30, False), (1000, True), (None, True)):
        monkeypatch.setattr("semfield_ns.semantic_flow.windows.free_bytes", lambda _, free=free: free)
        manager = manager_of(scene, "every-2", budget=3)
        assert manager.train_image_dataloader.num_images_to_sample_from == 3
        assert manager.train_dataset.metadata["on_disk"] == on_disk


def test_a_long_video_of_full_size_fits_onto_a_large_device():
    """240 frames of 1008x756: features of a quarter of the pixels, 48 halves each, and colours."""
    frames = 240 * 1008 * 756
    needed = frames // 4 * 48 * 2 + frames * 3 * 2
    assert stays_on_disk(needed, "cpu", fits_host=False) and not stays_on_disk(needed, "cpu", fits_host=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semfield_ns.semantic_flow.windows.free_bytes", lambda _: 24 * 2**30)
        assert not stays_on_disk(needed, "cuda", fits_host=False)


def test_a_device_goes_on_with_the_last_window_while_the_next_one_is_loaded(monkeypatch):
    monkeypatch.setattr("semfield_ns.semantic_flow.windows.free_bytes", lambda _: 24 * 2**30)
    allowed, begun = threading.Semaphore(2), []

    def load(frames):
        begun.append(frames)
        assert allowed.acquire(timeout=20)
        return {"frames": frames}

    random.seed(0)
    steps = windows(load, frames=10, size=3, steps=2, device="cuda")
    first = next(steps)
    while len(begun) < 2:
        time.sleep(0.01)
    second = [next(steps), next(steps)][1]
    assert first is not second and len(set(second["frames"])) == 3
    late = [next(steps) for _ in range(5)]  # the third is not there yet: the second goes on
    assert all(batch is second for batch in late)
    allowed.release(100)


def test_a_seed_fixes_the_windows_where_the_host_trains():
    def frames_of_steps(seed):
        random.seed(seed)
        steps = windows(lambda frames: {"frames": frames}, frames=10, size=3, steps=2, device="cpu")
        return [next(steps)["frames"] for _ in range(6)]

    drawn = frames_of_steps(1)
    assert drawn[0] is drawn[1] and drawn[2] is drawn[3] and drawn[1] is not drawn[2]
    assert drawn == frames_of_steps(1)


def test_the_window_is_not_written_into_the_settings(scene, monkeypatch):
    """They become config.yml: opened with another budget, the run would keep the window of this one."""
    monkeypatch.setattr("semfield_ns.semantic_flow.datamanager.BYTES_PER_PIXEL", 2**20 / 3 / SIZE[0] / SIZE[1])
    config = deepcopy(semantic_flow_tiny.config.pipeline.datamanager)
    config.data, config.memory_budget = scene, 3
    before = {name: getattr(config, name) for name in vars(config) if "images" in name}
    manager = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    assert {name: getattr(config, name) for name in before} == before
    assert manager.train_image_dataloader.num_images_to_sample_from == 3


def test_a_stack_on_disk_is_written_once_and_can_be_shared(tmp_path):
    arrays = [np.full((2, 3), i, dtype=np.float16) for i in range(4)]
    first = mapped_stack("key", arrays, 4, tmp_path)
    again = mapped_stack("key", iter(()), 4, tmp_path)
    assert torch.equal(first, again) and first[:, 0, 0].tolist() == [0, 1, 2, 3]
    again[0] = 7  # private to whoever writes
    assert mapped_stack("key", iter(()), 4, tmp_path)[0, 0, 0] == 0


def test_neighbours_are_those_of_the_same_camera():
    # Time steps 0 0 1 1 2, cameras a b a b a: as the data parser sorts them.
    found = same_camera_neighbours([0, 0, 1, 1, 2], ["a", "b", "a", "b", "a"])
    assert found.tolist() == [[-1, 2], [-1, 3], [0, 4], [1, -1], [2, -1]]
    assert videos(["a", "b", "a", "b", "a"]) == [[0, 2, 4], [1, 3]]


def two_cameras():
    """Two cameras that film three moments; the second stands elsewhere."""
    cameras = make_cameras()[torch.tensor([0, 4, 1, 3, 2, 2])]
    cameras.times = torch.tensor([0, 0, 0.5, 0.5, 1, 1])[:, None]
    cameras.camera_to_worlds = cameras.camera_to_worlds.clone()
    cameras.camera_to_worlds[1::2, 1, 3] += 0.3
    return cameras, ["a", "b"] * 3


def test_flow_is_compared_in_the_rays_own_camera():
    """Points that stand still: the flow of each camera's own motion is explained exactly, for both cameras."""
    from semfield_ns.rendering.projection import project
    from semfield_ns.semantic_flow.fields.blending import BlendedWeights
    from semfield_ns.semantic_flow.fields.radiance import Radiance, StaticSamples
    from semfield_ns.semantic_flow.training.objectives import Targets, induced_flow_loss

    cameras, names = two_cameras()
    frames = SourceFrames(cameras, torch.zeros(6, 2, 2, 1), camera_ids=names)
    assert len(frames) == 3
    camera = torch.tensor([0, 1, 2, 3])
    points = torch.tensor([[0.1, 0.2, -3.0], [-0.2, 0.1, -4.0], [0.3, -0.1, -2.5], [0.0, 0.0, -3.5]])
    intrinsics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=-1)

    def seen(frame):
        return project(points, cameras.camera_to_worlds[frame], intrinsics[frame], None)[0]

    here, there = seen(camera), seen(camera + 2)
    flow = torch.cat([there - here, torch.ones(4, 1)], dim=-1)
    one = torch.ones(4, 1, 1)
    nothing = torch.zeros(4, 1)
    targets = Targets(
        rgb=torch.zeros(4, 3),
        pixels=here,
        camera=camera,
        dynamic=nothing.bool(),
        static=~nothing.bool(),
        masked=True,
        depth=None,
        labels=None,
        propagated=None,
        confidence=None,
        flow={1: flow},
        num_dynamic=4,
    )
    kept = Radiance(
        points=points[:, None],
        directions=points[:, None],
        time=frames.to_frames(cameras.times[camera]),
        distance=one,
        deltas=one,
        static=StaticSamples(one, one, one.expand(4, 1, 3)),
        dynamic=None,
        weights=BlendedWeights(one, torch.zeros_like(one)),
        static_weights=one,
        dynamic_weights=torch.zeros_like(one),
    )

    def loss(source):
        (part,) = induced_flow_loss(kept, None, targets, source, 10.0)["flow"]
        return part.mean()

    assert loss(frames) == pytest.approx(0.0, abs=1e-4)
    mixed = SourceFrames(cameras, torch.zeros(6, 2, 2, 1), camera_ids=["a", "b", "b", "a", "a", "b"])
    assert loss(mixed) > 0.1, "the test would notice"


def test_labels_are_not_carried_from_one_camera_to_another(scene, tmp_path):
    transforms = json.loads((scene / "transforms.json").read_text())
    films = []
    for camera in ("a", "b"):
        for frame in transforms["frames"]:
            if frame["file_path"] not in transforms["train_filenames"]:
                continue
            paths = {key: str(scene / value) for key, value in frame.items() if key.endswith("_path")}
            films.append(frame | paths | {"camera_id": camera})
            if camera == "b":
                del films[-1]["semantic_path"]
                films[-1]["file_path"] = str(shutil.copy(scene / frame["file_path"], tmp_path))
    transforms["frames"] = films
    for key in ("train_filenames", "val_filenames", "test_filenames"):
        del transforms[key]
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide" / "transforms.json").write_text(json.dumps(transforms))
    dataset = manager_of(tmp_path / "wide", "every-2").train_dataset
    assert len(dataset) == 16
    names = dataset.metadata["camera_ids"]
    steps = [frame.time_index for frame in dataset.frames]
    log_ratio = dataset.metadata["source_evidence"]().carried.log_ratio.flatten(1).amax(dim=1)
    assert (log_ratio > 0).tolist() == [name == "a" for name in names]
    confidence = dataset.propagated[..., 1].flatten(1).amax(dim=1)
    hidden = [name == "a" and step % 2 == 1 for name, step in zip(names, steps, strict=True)]
    assert bool((confidence[hidden] > 0.5).all())
