"""The weights that come with the package, on a scene that they have never seen."""

import pytest
import torch
import torch.nn.functional as F

from semfield_ns.cli.attach import attach
from semfield_ns.errors import SemfieldError
from semfield_ns.gsn import runs
from semfield_ns.gsn.pretrained import pack, unpack
from semfield_ns.method_configs.gsn import gsn_tiny
from semfield_ns.scenes.synthetic import write_scene


@pytest.mark.slow
def test_a_new_scene_is_rendered_without_training(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    scene = write_scene("static", tmp_path / "scene", seed=7, num_frames=20, width=128, height=96, samples_per_axis=1)
    attach(scene, output_dir=tmp_path, preview=0)
    model = runs.open_run(tmp_path / "scene" / "gsn-tiny" / "attached" / "config.yml")
    posed = model.library.scenes[0]
    for index in posed.held_out[1:2]:
        raw = model.raw_outputs_for_camera(posed.cameras[torch.tensor([index])])
        truth = model.library.image(0, index).float() / 255
        nearest = model.library.image(0, model.sources_for(0, posed.centres[index])[0]).float() / 255
        gain = (nearest - truth).square().mean() / (raw["rgb"] - truth).square().mean()
        assert 10 * torch.log10(gain) > 5
        tokens = model.tokens.stack(0, [index])
        teacher = F.interpolate(tokens, size=truth.shape[:2], mode="bilinear")[0].permute(1, 2, 0)
        assert F.cosine_similarity(raw["features"], teacher, dim=-1).mean() > 0.93


def test_packing_a_run_gives_the_weights_back(tmp_path):
    first = unpack(gsn_tiny.config, tmp_path / "first")
    pack(first, tmp_path / "again.npz")
    second = unpack(gsn_tiny.config, tmp_path / "second", tmp_path / "again.npz")
    one, two = (torch.load(runs.newest_checkpoint(path), weights_only=True)["pipeline"] for path in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_missing_weights_are_said_in_one_sentence(tmp_path):
    with pytest.raises(SemfieldError, match=r"none\.npz are missing"):
        unpack(gsn_tiny.config, tmp_path, tmp_path / "none.npz")
