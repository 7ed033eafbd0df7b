"""Nerfstudio's commands on runs of gsn: trained, attached to a new scene, imported."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn import runs
from semfield_ns.gsn.checkpoints import export_official
from semfield_ns.gsn.network import OFFICIAL, GSNNetwork, NetworkConfig
from semfield_ns.gsn.normalisation import bounds
from semfield_ns.method_configs.gsn import gsn_paper
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.formats.ply import read_ply_points
from semfield_ns.viewer.link import ViewerLink
from semfield_ns.viewer.scene_panel import ScenePanel
from tests.gsn.builders import write_scenes
from tests.runs import run_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gsn_runs")


@pytest.fixture(scope="module", autouse=True)
def own_cache(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMFIELD_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def trained(folder):
    """config.yml of a run of a few steps over two scenes, with both stages in it."""
    scenes = write_scenes(folder / "scenes")
    run_command(
        [
            *("ns-train", "gsn-tiny", "--output-dir", str(folder), "--experiment-name", "tiny", "--timestamp", "run"),
            *("--machine.seed", "0", "--max-num-iterations", "12", "--vis", "tensorboard", "--data", str(scenes)),
            *("--steps-per-eval-batch", "5", "--steps-per-eval-image", "7", "--steps-per-save", "5"),
            *("--pipeline.model.stage-one-steps", "6", "--pipeline.datamanager.train-num-rays-per-batch", "64"),
            *("--pipeline.model.projection-images", "4"),
        ]
    )
    return folder / "tiny" / "gsn-tiny" / "run" / "config.yml"


@pytest.fixture(scope="module")
def attached(trained, folder):
    """The run, attached to a scene that it has not seen by the command."""
    write_scenes(folder / "new", count=1, num_frames=9)
    result = run_command(
        [
            *("semfield", "attach", "--load-config", str(trained), "--data", str(folder / "new" / "scene_0")),
            *("--output-dir", str(folder / "attached"), "--preview", "40"),
        ]
    )
    config = folder / "attached" / "scene_0" / "gsn-tiny" / "attached" / "config.yml"
    assert str(config) in result.stdout
    return config


def test_a_trained_run_evaluates_on_all_its_scenes(trained, tmp_path):
    run_command(["ns-eval", "--load-config", str(trained), "--output-path", str(tmp_path / "eval.json")])
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert all(math.isfinite(results[name]) for name in ("psnr", "ssim", "feature_cosine"))


def test_a_trained_run_is_opened_without_being_attached(trained, tmp_path):
    run_command(
        [
            *("ns-render", "interpolate", "--load-config", str(trained), "--output-path", str(tmp_path / "video")),
            *("--interpolation-steps", "1", "--pose-source", "train", "--output-format", "images"),
        ]
    )
    assert len(list((tmp_path / "video").glob("*.jpg"))) >= 5
    model = runs.open_run(trained)
    panel = ScenePanel(model, ViewerLink(), lambda: None)
    assert panel.scene.value == "scene_0"
    camera = model.library.scenes[0].cameras[torch.tensor([0])]
    first = model.get_outputs_for_camera(camera)["rgb"]
    panel.scene.changed(None, "scene_1")
    assert model.render_key() == 1 and not torch.equal(first, model.get_outputs_for_camera(camera)["rgb"])


def test_an_attached_run_is_exported_as_points(attached, tmp_path):
    run_command(
        [
            *("ns-export", "pointcloud", "--load-config", str(attached), "--output-dir", str(tmp_path)),
            *("--num-points", "1500", "--num-rays-per-batch", "1024", "--normal-method", "open3d"),
            *("--rgb-output-name", "features_pca", "--save-world-frame", "True"),
        ]
    )
    points = read_ply_points(tmp_path / "point_cloud.ply")
    assert len(points) > 1000 and np.isfinite(points).all()
    scene = read_scene(attached.parents[4] / "new" / "scene_0")
    near, far = (bounds(scene)[i] for i in range(2))
    centre = np.mean([frame.c2w[:3, 3] for frame in scene.train], axis=0)
    assert np.linalg.norm(points - centre, axis=1).max() < 4 * far and near > 0


def test_an_attached_run_shows_the_new_scene(attached, folder, tmp_path):
    for name in ("rgb", "features_pca"):
        assert Image.open(attached.parent / f"preview_{name}.png").size == (40, 30)
    run_command(["ns-eval", "--load-config", str(attached), "--output-path", str(tmp_path / "eval.json")])
    assert math.isfinite(json.loads((tmp_path / "eval.json").read_text())["results"]["psnr"])
    run_command(
        ["ns-render", "dataset", "--load-config", str(attached), "--output-path", str(tmp_path), "--split", "test"]
    )
    for name in ("rgb", "depth", "accumulation", "features_pca"):
        assert len(list((tmp_path / "test" / name).rglob("*.jpg"))) == 6, name
    run_command(
        [
            *("ns-render", "interpolate", "--load-config", str(attached), "--output-path", str(tmp_path / "video")),
            *("--interpolation-steps", "1", "--pose-source", "train", "--output-format", "images"),
            *("--rendered-output-names", "rgb", "features_pca"),
        ]
    )
    assert len(list((tmp_path / "video").glob("*.jpg"))) >= 5


def test_training_resumes_in_the_second_stage(trained, folder):
    run_command(
        [
            *("ns-train", "gsn-tiny", "--output-dir", str(folder), "--experiment-name", "more", "--timestamp", "run"),
            *("--load-dir", str(trained.parent / "nerfstudio_models"), "--max-num-iterations", "16"),
            *("--pipeline.model.stage-one-steps", "6", "--pipeline.datamanager.train-num-rays-per-batch", "64"),
            *("--vis", "tensorboard", "--data", str(folder / "scenes")),
        ]
    )
    saved = sorted((folder / "more" / "gsn-tiny" / "run" / "nerfstudio_models").glob("*.ckpt"))[-1]
    assert torch.load(saved, weights_only=True)["step"] == 12 + 16 - 1


def test_a_root_of_scenes_is_not_attached_at_once(trained, folder):
    with pytest.raises(SemfieldError, match="holds 2 scenes: attach one of them"):
        runs.attach(trained, folder / "scenes", folder / "never")
    assert not (folder / "never").exists()


def test_official_weights_are_imported_and_attached(attached, folder, tmp_path):
    sizes = {"encoder_width": 8, "encoder_blocks": (1, 1, 1), "image_dim": 8, "dim": 16, "blocks": 2}
    for kind, changes in (("gsn", {"feature_dim": 16}), ("gnt", {"feature_dim": 0, "direction": "trunk"})):
        torch.manual_seed(0)
        network = GSNNetwork(NetworkConfig(**OFFICIAL, **sizes, **changes))
        export_official(network, tmp_path / f"{kind}_000070.pth")
        config = runs.import_checkpoint(tmp_path / f"{kind}_000070.pth", kind, gsn_paper.config, tmp_path)
        assert yaml.load(config.read_text(), Loader=yaml.Loader).method_name == "gsn-paper"
        runs.export_checkpoint(config, tmp_path / "again.pth")
        again, given = (torch.load(tmp_path / name, weights_only=True) for name in ("again.pth", f"{kind}_000070.pth"))
        assert again.keys() == given.keys()
        assert all(torch.equal(again[part][key], value) for part in given for key, value in given[part].items())
        shown = runs.attach(config, folder / "new" / "scene_0", tmp_path / "shown", longest_side=48)
        model = runs.open_run(shown)
        state = model.network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        outputs = model.get_outputs_for_camera(model.library.scenes[0].cameras[torch.tensor([0])])
        assert outputs["rgb"].isfinite().all() and outputs["depth"].isfinite().all()


def test_a_feature_head_is_trained_on_top_of_gnt(trained, folder, tmp_path):
    torch.manual_seed(0)
    sizes = {"encoder_width": 8, "encoder_blocks": (1, 1, 1), "image_dim": 8, "dim": 16, "blocks": 2}
    gnt = GSNNetwork(NetworkConfig(**OFFICIAL, **sizes, feature_dim=0, direction="trunk"))
    export_official(gnt, tmp_path / "gnt_000070.pth")
    printed = run_command(
        [
            *("semfield", "import-checkpoint", str(tmp_path / "gnt_000070.pth"), "--kind", "gnt"),
            *("--teacher", "classical", "--feature-dim", "8", "--output-dir", str(tmp_path)),
        ]
    ).stdout
    command = next(line for line in printed.splitlines() if "ns-train" in line).replace(
        "SCENES", str(folder / "scenes")
    )
    run_command(
        [
            *command.replace("SCENES", str(folder / "scenes")).split(),
            *("--output-dir", str(tmp_path), "--experiment-name", "more", "--timestamp", "run", "--vis", "tensorboard"),
            *("--max-num-iterations", "2", "--pipeline.datamanager.train-num-rays-per-batch", "32"),
            *("--pipeline.model.rays.samples", "8", "--pipeline.model.projection-images", "2"),
            *("--machine.device-type", "cpu"),
        ]
    )
    saved = runs.newest_checkpoint(tmp_path / "more" / "gsn-paper" / "run" / "config.yml")
    state = torch.load(saved, weights_only=True)["pipeline"]
    assert any(key.startswith("_model.network.dino.") for key in state) and bool(state["_model.projection.fitted"])
    before = gnt.net_coarse.rgb_fc.weight
    after = state["_model.network.net_coarse.rgb_fc.weight"]
    assert 0 < (after - before).abs().max() < 2.1 * 5e-5  # two steps at a tenth of the trunk's rate
    with pytest.raises(SemfieldError, match="take a multiple of 4"):
        runs.with_head(gnt, 5)


def test_other_files_are_no_runs_of_gsn(tmp_path):
    with pytest.raises(SemfieldError, match="is not a file"):
        runs.read_run(tmp_path / "config.yml")
    (tmp_path / "config.yml").write_text("a: 1\n")
    with pytest.raises(SemfieldError, match=r"cannot be read as the config\.yml of a run"):
        runs.read_run(tmp_path / "config.yml")
