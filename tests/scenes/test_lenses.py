"""Pictures of lenses, seen through pinholes."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.lenses import (
    bend,
    pixels_in_file,
    resampled,
    resampled_flow,
    straighten,
    undistorted,
    undistorted_frames,
)
from semfield_ns.scenes.scene import Frame

LENSES = {
    "barrel": (-0.2, 0.03, 0, 0, 0, 0),
    "pincushion": (0.1, 0.02, 0, 0, 0, 0),
    "tangential": (-0.1, 0, 0, 0, 0.01, -0.008),
}


def frame(distortion=LENSES["barrel"], **changes) -> Frame:
    values = {"fx": 70.0, "fy": 72.0, "cx": 42.0, "cy": 29.0, "width": 80, "height": 60} | changes
    return Frame(Path("a/b.png"), np.eye(4), distortion=np.array(distortion, dtype=float), **values)


@pytest.mark.parametrize("distortion", LENSES.values(), ids=LENSES.keys())
def test_every_pixel_shows_what_the_lens_saw_along_its_ray(distortion):
    straight = undistorted(frame(distortion))
    assert straight.size == (60, 80) and not straight.distortion.any()
    places = pixels_in_file(straight)
    assert places.min() > -0.5 and (places.max(axis=(0, 1)) < [80.5, 60.5]).all(), "no pixel is empty"
    # OpenCV's own undistortion, of the same two cameras.
    k1, k2, k3, _, p1, p2 = distortion
    x, y = cv2.initUndistortRectifyMap(
        np.array([[70.0, 0, 41.5], [0, 72.0, 28.5], [0, 0, 1]]),
        np.array([k1, k2, p1, p2, k3]),
        np.eye(3),
        np.array([[straight.fx, 0, straight.cx - 0.5], [0, straight.fy, straight.cy - 0.5], [0, 0, 1]]),
        (80, 60),
        cv2.CV_32FC1,
    )
    np.testing.assert_allclose(places - 0.5, np.stack([x, y], axis=-1), atol=1e-3)


FISHEYES = {"equidistant": (0, 0, 0, 0), "action camera": (0.04, -0.01, 0.006, -0.001), "strong": (-0.05, 0.01, 0, 0)}


@pytest.mark.parametrize("coefficients", FISHEYES.values(), ids=FISHEYES.keys())
@pytest.mark.parametrize("focal", [26.0, 60.0])
def test_a_fisheye_is_seen_through_a_pinhole(coefficients, focal):
    bent = frame((*coefficients, 0, 0), fx=focal, fy=focal, fisheye=True)
    straight = undistorted(bent)
    assert not straight.fisheye and not straight.distortion.any() and straight.lens.fisheye
    places = pixels_in_file(straight)
    assert places.min() > -0.5 and (places.max(axis=(0, 1)) < [80.5, 60.5]).all(), "no pixel is empty"
    x, y = cv2.fisheye.initUndistortRectifyMap(
        np.array([[focal, 0, 41.5], [0, focal, 28.5], [0, 0, 1]]),
        np.array(coefficients, dtype=float),
        np.eye(3),
        np.array([[straight.fx, 0, straight.cx - 0.5], [0, straight.fy, straight.cy - 0.5], [0, 0, 1]]),
        (80, 60),
        cv2.CV_32FC1,
    )
    np.testing.assert_allclose(places - 0.5, np.stack([x, y], axis=-1), atol=1e-3)
    sides = np.degrees(np.arctan([straight.cx / straight.fx, (80 - straight.cx) / straight.fx]))
    assert (sides <= 60 + 1e-6).all()
    there = bend(straighten(places[::7, ::7].astype(np.float64), straight.lens), straight.lens)
    np.testing.assert_allclose(there, places[::7, ::7], atol=1e-3)


@pytest.mark.parametrize("k1", [-0.5, -1.0, -5.0])
@pytest.mark.parametrize("focal", [10.0, 26.0])
def test_a_fisheye_that_folds_back_is_refused(k1, focal):
    with pytest.raises(SemfieldError, match="fold the picture back"):
        undistorted(frame((k1, 0, 0, 0, 0, 0), fx=focal, fy=focal, fisheye=True))


def test_pictures_and_labels_are_resampled():
    straight = undistorted(frame())
    across = np.tile(np.arange(80, dtype=np.float32), (60, 1))
    np.testing.assert_allclose(
        resampled(across, straight, cv2.INTER_LINEAR), np.clip(pixels_in_file(straight)[..., 0] - 0.5, 0, 79), atol=0.05
    )
    ids = np.zeros((60, 80), dtype=np.int32)
    ids[:, 40:] = 300
    assert set(np.unique(resampled(ids, straight, cv2.INTER_NEAREST))) == {0, 300}
    plain = frame((0,) * 6)
    assert undistorted(plain) is plain and resampled(ids, plain, cv2.INTER_NEAREST) is ids


def test_flow_leads_to_the_same_point():
    straight = undistorted(frame())
    lens = straight.lens
    # Everything moves by the same ray: where it goes in the lens's picture, and in the pinhole's.
    x, y = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    pixels, shift = np.stack([x, y], axis=-1), np.array([0.03, -0.02])
    flow = (bend(straighten(pixels, lens) + shift, lens) - pixels).astype(np.float32)
    found = resampled_flow(flow, straight)
    expected = np.broadcast_to(shift * [straight.fx, straight.fy], found.shape)
    np.testing.assert_allclose(found[5:-5, 5:-5], expected[5:-5, 5:-5], atol=0.12)


def test_lenses_that_cannot_be_undone_are_refused():
    with pytest.raises(SemfieldError, match=r"Frame a/b\.png: its lens coefficients .* fold the picture back"):
        undistorted(frame((-0.9, 0, 0, 0, 0, 0), fx=40.0, fy=40.0))
    flow = Path("flow.npz")
    first, other = (replace(frame(LENSES[name]), flow_fwd_path=flow) for name in ("barrel", "pincushion"))
    with pytest.raises(SemfieldError, match="its lens is not that of the frames before"):
        undistorted_frames([first, other])
    assert len(undistorted_frames([first, replace(other, camera_id="1")])) == 2


def test_a_scene_is_read_undistorted(tmp_path: Path):
    from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
    from semfield_ns.scenes.dataset import SceneDataset
    from semfield_ns.scenes.synthetic import write_scene

    scene = write_scene("demo", tmp_path / "scene", num_frames=3, width=64, height=48, samples_per_axis=1)
    transforms = scene / "transforms.json"
    text = transforms.read_text()
    values = json.loads(text)
    for entry in (values, *values["frames"]):
        if "fl_x" in entry or entry is values:
            entry["k1"] = -0.1
    transforms.write_text(json.dumps(values))
    read = [
        SceneDataset(SemfieldDataParserConfig(data=scene, undistort=flag).setup().get_dataparser_outputs("train"))
        for flag in (False, True)
    ]
    bent, straight = read
    assert bent.cameras.distortion_params.any() and not straight.cameras.distortion_params.any()
    item = straight[1]
    assert item["image"].shape == (48, 64, 3) and item.keys() == bent[1].keys()
    assert all(value.shape[:2] == (48, 64) for name, value in item.items() if name != "image_idx")
    # A coloured pixel of the file is found where its ray goes.
    picture = np.asarray(Image.open(straight.frames[1].image_path).convert("RGB"), dtype=np.float32) / 255
    column, row = (pixels_in_file(straight.frames[1])[20, 30] - 0.5).round().astype(int)
    nearby = picture[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)
    assert (item["image"][20, 30].numpy() >= nearby.min(axis=0) - 0.01).all()
    assert (item["image"][20, 30].numpy() <= nearby.max(axis=0) + 0.01).all()


def test_a_scene_of_a_fisheye_is_always_read_as_pinholes(tmp_path: Path):
    from semfield_ns.gsn.library import load_scene
    from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
    from semfield_ns.scenes.formats import read_scene
    from semfield_ns.scenes.formats.transforms import write_transforms
    from semfield_ns.scenes.synthetic import write_scene

    folder = write_scene("demo", tmp_path / "scene", num_frames=3, width=64, height=48, samples_per_axis=1)
    scene = read_scene(folder)
    frames = [replace(f, fisheye=True, distortion=np.array([0.02, 0.0, 0, 0, 0, 0])) for f in scene.train]
    write_transforms(replace(scene, train=frames), folder)
    again = read_scene(folder).train
    assert all(frame.fisheye and frame.distortion[0] == 0.02 for frame in again)
    outputs = SemfieldDataParserConfig(data=folder, undistort=False).setup().get_dataparser_outputs("train")
    assert not outputs.cameras.distortion_params.any()
    assert all(frame.lens is not None and frame.lens.fisheye for frame in outputs.metadata["frames"])
    with pytest.raises(SemfieldError, match="fisheye, which gsn does not support"):
        load_scene(folder, "scene")
