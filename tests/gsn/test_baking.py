"""Photos made into Gaussians."""

import json
import shutil

import numpy as np
import pytest
import torch

from semfield_ns.cli.attach import attach
from semfield_ns.gsn.baking import write_posed_scene
from semfield_ns.gsn.library import load_scene
from semfield_ns.io import read_image, read_npy, read_rgb
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.segmentation.simulation import simulate_strokes
from semfield_ns.sessions.masks import scene_views
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from semfield_ns.sessions.views import ModelViews


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A static synthetic scene, with exact depth beside the pictures."""
    folder = tmp_path_factory.mktemp("static")
    return write_scene("static", folder, seed=7, num_frames=12, width=128, height=96, samples_per_axis=1)


def test_photos_get_depth_that_is_right(scene, tmp_path):
    posed = load_scene(scene, "static", hold_out=True)
    seen = []

    def watch(numbers):
        for number in numbers:
            seen.append(number)
            yield number

    baked = read_scene(write_posed_scene(posed, tmp_path, watch).parent)
    assert seen == list(range(len(posed.train)))
    assert len(baked.train) == len(posed.train) and len(baked.test) == len(posed.held_out)
    assert {frame.time for frame in baked.train} == {0.0}, "photos are of one moment"
    original = read_scene(scene)
    frames = {frame.image_path.name: frame for frame in (*original.train, *original.test)}
    known, errors = [], []
    for frame, index in zip(baked.train, posed.train, strict=True):
        source = posed.frames[index]
        assert np.array_equal(read_rgb(frame.image_path), read_rgb(source.image_path))
        assert np.allclose(frame.c2w, source.c2w), "in the scene's own coordinates"
        truth = read_npy(frames[source.image_path.name].depth_path)
        found = read_npy(frame.depth_path)
        known.append((found > 0).mean())
        errors.append(np.abs(found / truth - 1)[found > 0])
    assert np.mean(known) > 0.4
    assert np.median(np.concatenate(errors)) < 0.02
    assert np.quantile(np.concatenate(errors), 0.9) < 0.08


def test_photos_are_undistorted(scene, tmp_path):
    shutil.copytree(scene, tmp_path, dirs_exist_ok=True)
    content = json.loads((scene / "transforms.json").read_text())
    for frame in content["frames"]:
        frame |= {"k1": -0.1, "k2": 0.01}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    posed = load_scene(tmp_path, "bent")
    baked = read_scene(write_posed_scene(posed, tmp_path / "baked").parent)
    assert all(not frame.distortion.any() and frame.lens is None for frame in (*baked.train, *baked.test))
    frame, source = baked.train[0], posed.frames[posed.train[0]]
    assert frame.fx != source.fx
    assert not np.array_equal(read_rgb(frame.image_path), read_rgb(source.image_path))


@pytest.mark.slow
def test_baked_photos_are_a_run_of_gaussians(scene, tmp_path, monkeypatch, capsys):
    from nerfstudio.utils.eval_utils import eval_setup

    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    attach(scene, output_dir=tmp_path / "outputs", preview=0, bake=True, bake_steps=60)
    said = capsys.readouterr().out
    assert "Held-out photos: " in said and "semfield view" in said
    found = list((tmp_path / "outputs").glob("*/semantic-flow-splat*/baked/config.yml"))
    assert len(found) == 1
    pipeline = eval_setup(found[0], test_mode="test")[1]
    assert len(pipeline.model.time_cameras()) == 1
    dataset = pipeline.datamanager.eval_dataset
    raw = pipeline.model.raw_outputs_for_camera(dataset.cameras[0:1])
    error = (raw["rgb"] - dataset.get_image_float32(0)[..., :3]).square().mean()
    assert -10 * torch.log10(error) > 20
    assert raw["features"].isfinite().all() and raw["features"].any(), "strokes can be compared"
    cloud = pipeline.model.cloud()
    pictures = pipeline.model.pictures()
    assert cloud is not None and pictures is not None
    # A stroke in a photo is looked at by the photo's own features as well.
    trained, held_out = pipeline.datamanager.train_dataset.cameras, dataset.cameras
    photo = pipeline.model.image_outputs(trained[0:1])["features"]
    assert photo.shape[:2] == (int(trained.height[0]), int(trained.width[0])) and photo.isfinite().all()
    assert not pipeline.model.image_outputs(held_out[0:1])
    assert len(pictures.cameras) == len(trained) and 0 < pictures.near < pictures.far
    _strokes_find_an_object(pipeline, read_scene(scene))


def _strokes_find_an_object(pipeline, truth) -> None:
    """A stroke on what the first photo shows most of, and one beside it; with and without asking the photo."""
    drawn = scene_views(pipeline, "train")[0].camera
    of_photo = np.array(read_image(truth.train[0].instance_path))
    number = np.bincount(of_photo[of_photo > 0]).argmax()
    found = []
    for provider in (ModelViews, PhotosUnasked):
        segmenter = Segmenter(Session(), provider(pipeline.model))
        entry = segmenter.session.add_object("object")
        for stroke in simulate_strokes(of_photo == number, drawn, 0):
            segmenter.session.add_prompt(entry, stroke)
        masks = [segmenter.segment(view.camera).masks[0].numpy() for view in scene_views(pipeline, "test")]
        target = [np.array(read_image(frame.instance_path)) == number for frame in truth.test]
        found.append(np.stack(masks))
        assert (found[-1] & target).sum() > 0.5 * (found[-1] | target).sum()
    assert not np.array_equal(*found), "the photo says something"


class PhotosUnasked(ModelViews):
    """Views of a model whose photos nobody asks."""

    def pictures(self) -> None:
        return None
