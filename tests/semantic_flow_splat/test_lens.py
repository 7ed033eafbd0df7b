"""Scenes of lenses that bend lines."""

import json
from pathlib import Path

import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow_splat.datamanager import SplatDataManagerConfig


def test_a_lens_is_undone_and_what_does_not_fit_it_is_refused(tmp_path: Path):
    scene = write_scene("demo", tmp_path / "scene", num_frames=3, width=48, height=36, samples_per_axis=1)
    values = json.loads((scene / "transforms.json").read_text())
    for entry in values["frames"]:
        entry["k1"] = -0.08
    (scene / "transforms.json").write_text(json.dumps(values))

    def manager(**settings: object):
        return SplatDataManagerConfig(data=scene, encoder="classical", **settings).setup(device="cpu", test_mode="test")

    assert not manager().train_dataset.cameras.distortion_params.any()
    with pytest.raises(SemfieldError, match=r"000\.png: its camera has lens distortion.*train without"):
        manager(load_field=Path("run/config.yml"))
    with pytest.raises(SemfieldError, match="undistort at True"):
        manager(dataparser=SemfieldDataParserConfig(undistort=False))
