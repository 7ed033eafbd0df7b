import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import cache_root
from semfield_ns.scenes import flow as flow_module
from semfield_ns.scenes.flow import (
    cache_folder,
    consistency_mask,
    ensure_flows,
    estimate_flow,
    read_flow,
    warp_labels,
    write_flow,
)
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.labels import IGNORE
from tests.scenes.helpers import constant_flow, edit, write_transforms_scene


def texture(shift, height=60, width=80):
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x = x - shift
    waves = [np.sin(0.3 * x + 0.2 * y + c) + np.sin(0.17 * y - 0.11 * x + 2 * c) for c in range(3)]
    return (127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_write_and_read(tmp_path):
    flow = np.random.default_rng(0).normal(size=(5, 6, 2)).astype(np.float32)
    valid = flow[..., 0] > 0
    write_flow(tmp_path / "a.npz", flow, valid)
    read, mask = read_flow(tmp_path / "a.npz")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, flow, atol=2e-3)
    assert np.array_equal(mask, valid)


def test_flow_without_a_mask_is_valid_where_it_is_finite(tmp_path):
    flow = np.zeros((2, 3, 2), np.float32)
    flow[0, 1, 0] = np.nan
    np.savez(tmp_path / "a.npz", flow=flow)
    read, mask = read_flow(tmp_path / "a.npz")
    assert np.isfinite(read).all()
    assert mask.sum() == 5
    assert not mask[0, 1]


def test_a_known_shift_is_estimated():
    flow = estimate_flow(texture(0), texture(3))
    inner = flow[10:-10, 10:-10]
    assert np.abs(inner - [3, 0]).mean() < 0.3


def test_pictures_of_a_few_pixels():
    tiny = texture(0, 5, 7)
    assert np.abs(estimate_flow(tiny, tiny)).max() < 0.1
    assert estimate_flow(tiny, tiny).shape == (5, 7, 2)


def test_consistency():
    forward, backward = constant_flow(2), constant_flow(-2)
    mask = consistency_mask(forward, backward)
    assert mask[:, :-2].all()
    assert not mask[:, -2:].any()  # these leave the picture
    backward[:, 8:10] = (5, 0)
    assert not consistency_mask(forward, backward)[:, 6:8].any()
    assert consistency_mask(forward, backward)[:, :5].all()


def test_labels_are_gathered_along_the_flow():
    labels = np.arange(12).reshape(3, 4)
    flow = np.zeros((3, 4, 2), np.float32)
    flow[..., 0], flow[..., 1] = 1.4, -0.6
    valid = np.ones((3, 4), bool)
    valid[2, 0] = False
    warped = warp_labels(labels, flow, valid)
    assert warped.tolist() == [[IGNORE] * 4, [1, 2, 3, IGNORE], [IGNORE, 6, 7, IGNORE]]


@pytest.fixture
def frames(tmp_path):
    return read_scene(write_transforms_scene(tmp_path / "scene", flow=False)).train


def test_missing_flow_is_estimated_once(tmp_path, frames, monkeypatch):
    cache = tmp_path / "cache"
    filled = ensure_flows(frames, cache)
    assert [bool(f.flow_fwd_path) for f in filled] == [True, True, True, False]
    assert [bool(f.flow_bwd_path) for f in filled] == [False, True, True, True]
    assert len(os.listdir(cache)) == 6
    assert frames[0].flow_fwd_path is None
    for frame in filled[:-1]:
        flow, valid = read_flow(frame.flow_fwd_path)
        assert flow.shape == (*frame.size, 2)
        assert valid.any()

    def never(*_):
        raise AssertionError("estimated again")

    monkeypatch.setattr(flow_module, "estimate_flow", never)
    assert [f.flow_fwd_path for f in ensure_flows(frames, cache)] == [f.flow_fwd_path for f in filled]


def test_a_picture_that_was_made_larger_is_met_by_one_as_blurred(tmp_path, frames, monkeypatch):
    height, width = 96, 128
    sharp = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.uint8)
    small = cv2.resize(sharp, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    pair = [
        replace(frame, width=width, height=height, image_path=tmp_path / f"{frame.time_index}.png")
        for frame in frames[:2]
    ]
    pair[1] = replace(pair[1], stored_size=(height // 2, width // 2))
    for frame, picture in zip(pair, (sharp, small), strict=True):
        Image.fromarray(picture).save(frame.image_path)
    compared = []
    monkeypatch.setattr(flow_module, "estimate_flow", lambda *two: compared.append(two) or constant_flow(0))
    (first, _) = ensure_flows(pair, tmp_path / "cache")
    details = [np.abs(np.diff(picture.astype(float), axis=1)).mean() for picture in compared[0]]
    assert details[0] / details[1] == pytest.approx(1, abs=0.25)
    assert np.abs(np.diff(sharp.astype(float), axis=1)).mean() > 2 * details[1]
    # The same files at one size have another flow.
    (other, _) = ensure_flows([replace(frame, stored_size=None) for frame in pair], tmp_path / "cache")
    assert first.flow_fwd_path != other.flow_fwd_path
    assert (compared[-2][0] == sharp).all()


def test_an_interrupted_estimation_goes_on(tmp_path, frames, monkeypatch):
    cache, estimated = tmp_path / "cache", []

    def interrupted(a, b):
        if len(estimated) == 2:
            raise KeyboardInterrupt
        estimated.append(1)
        return constant_flow(0)

    monkeypatch.setattr(flow_module, "estimate_flow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_flows(frames, cache)
    assert len(os.listdir(cache)) == 2
    estimated[:] = [1] * 10
    monkeypatch.setattr(flow_module, "estimate_flow", lambda a, b: estimated.append(1) or constant_flow(0))
    ensure_flows(frames, cache)
    assert len(estimated) == 10 + 4


def test_cache_follows_the_content_of_the_images(tmp_path, frames):
    first = ensure_flows(frames, tmp_path / "cache")
    shutil.copy(frames[2].image_path, frames[3].image_path)
    second = ensure_flows(frames, tmp_path / "cache")
    assert first[1].flow_fwd_path == second[1].flow_fwd_path
    assert first[2].flow_fwd_path != second[2].flow_fwd_path


def test_given_flow_stays(tmp_path):
    root = write_transforms_scene(tmp_path / "scene")
    edit(root, lambda meta: meta["frames"][1].pop("flow_fwd_path"))
    frames = read_scene(root).train
    filled = ensure_flows(frames, tmp_path / "cache")
    assert filled[1].flow_fwd_path.parent == tmp_path / "cache"
    assert [f.flow_bwd_path for f in filled] == [f.flow_bwd_path for f in frames]
    assert len(os.listdir(tmp_path / "cache")) == 2


def test_only_frames_of_the_same_camera_are_neighbours(tmp_path, frames):
    frames = [replace(f, camera_id="ab"[i % 2]) for i, f in enumerate(frames)]
    filled = ensure_flows(frames, tmp_path / "cache")
    assert [bool(f.flow_fwd_path) for f in filled] == [True, True, False, False]


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "flow"
    monkeypatch.setenv("SEMFIELD_CACHE", "")
    assert cache_folder() == cache_root() / "flow"
    monkeypatch.delenv("SEMFIELD_CACHE")
    assert cache_folder().parts[-3:] == (".cache", "semfield_ns", "flow")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, frames):
    (tmp_path / "cache").write_text("")
    with pytest.raises(SemfieldError, match=r"Cannot write .*cache"):
        ensure_flows(frames, tmp_path / "cache")
