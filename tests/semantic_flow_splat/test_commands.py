"""The installed commands on a run of Gaussians, as subprocesses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from semfield_ns.sessions.masks import open_run
from tests.runs import run_command, train_tiny_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of a short run."""
    return train_tiny_run(tmp_path_factory.mktemp("splat"), steps=30, method="semantic-flow-splat-tiny")


def test_a_run_is_evaluated(run: Path, tmp_path: Path):
    run_command(["ns-eval", "--load-config", str(run), "--output-path", str(tmp_path / "evaluation.json")])
    results = json.loads((tmp_path / "evaluation.json").read_text())["results"]
    assert results["psnr"] > 20 and results["miou"] > 0.7


def test_an_object_is_removed_from_what_is_rendered(run: Path, tmp_path: Path):
    (tmp_path / "edits.json").write_text(json.dumps([{"kind": "remove", "target": "ball"}]))
    edited = tmp_path / "edited"
    run_command(
        [
            *("semfield", "edit", "--load-config", str(run), "--edits", str(tmp_path / "edits.json")),
            *("--output-dir", str(edited)),
        ]
    )
    pictures = []
    for config, folder in ((run, "before"), (edited / "config.yml", "after")):
        run_command(
            [
                *("ns-render", "dataset", "--load-config", str(config), "--output-path", str(tmp_path / folder)),
                *("--split", "test", "--image-format", "png", "--rendered-output-names", "rgb", "semantics_colormap"),
            ]
        )
        files = sorted((tmp_path / folder / "test" / "semantics_colormap").rglob("*.png"))
        pictures.append(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    ball = np.abs(pictures[0].astype(int) - pictures[1]).sum(axis=-1) > 0
    assert 0.01 < ball.mean() < 0.2


def test_the_moment_that_is_exported_is_the_scene(run: Path, tmp_path: Path):
    run_command(
        [
            *("semfield", "export", "--load-config", str(run), "--output-dir", str(tmp_path), "--at", "0.5"),
            *("--formats", "splats", "masks", "--scale", "0.5", "--views", "test"),
        ]
    )
    scene = PlyData.read(tmp_path / "splats" / "scene.ply")["vertex"]
    labels = np.load(tmp_path / "splats" / "labels.npy", allow_pickle=False)
    assert len(scene) == len(labels) > 1000
    assert {"x", "f_dc_0", "opacity", "scale_0", "rot_0"} <= set(scene.data.dtype.names)


def test_ns_export_writes_the_first_moment_as_a_splat(run: Path, tmp_path: Path):
    run_command(["ns-export", "gaussian-splat", "--load-config", str(run), "--output-dir", str(tmp_path)])
    rows = PlyData.read(tmp_path / "splat.ply")["vertex"].data
    model = open_run(run)[1].model
    splats = model.splats(0.0)
    visible = (splats.gaussians.opacities > 1 / 255).numpy()
    assert len(rows) == visible.sum() > 100
    for axis, name in enumerate("xyz"):
        assert np.array_equal(rows[name], splats.gaussians.means[:, axis].numpy()[visible])
        assert np.array_equal(rows[f"scale_{axis}"], splats.gaussians.scales[:, axis].log().numpy()[visible])
    # What the option --ply-color-mode rgb writes.
    seen = model.seen_colors(model.view(model.time_cameras()[0]), model.means)
    assert torch.allclose(model.colors.clamp(min=0), seen, atol=1e-5)
