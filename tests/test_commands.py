"""Nerfstudio's own commands on a run of ours, as subprocesses."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from tests.runs import run_command

pytestmark = pytest.mark.slow

CONTRACT = [
    "rgb", "depth", "accumulation", "semantics_colormap", "semantics_confidence", "flow_forward", "flow_backward",
    "dynamic_weight", "rgb_static", "rgb_dynamic", "features_pca",
]  # fmt: skip


def test_evaluation_reports_images_and_the_whole_set(trained_run, tmp_path):
    output = tmp_path / "evaluation.json"
    run_command(["ns-eval", "--load-config", str(trained_run), "--output-path", str(output)])
    results = json.loads(output.read_text())["results"]
    for name in ("psnr", "ssim", "miou", "miou_image", "accuracy", "mean_class_accuracy"):
        assert math.isfinite(results[name]), name
    assert 0 <= results["miou"] <= 1


def test_every_output_of_a_data_set_renders(trained_run, tmp_path):
    run_command(
        ["ns-render", "dataset", "--load-config", str(trained_run), "--output-path", str(tmp_path), "--split", "test"]
    )
    for name in CONTRACT:
        pictures = sorted((tmp_path / "test" / name).rglob("*.jpg")) + sorted((tmp_path / "test" / name).rglob("*.png"))
        assert pictures, name
        assert Image.open(pictures[0]).size == (64, 48)


@pytest.mark.parametrize("kind", ["camera-path", "interpolate", "spiral"])
def test_semantic_videos(trained_run, tmp_path, kind):
    output = tmp_path / "video"
    arguments = ["ns-render", kind, "--load-config", str(trained_run), "--output-path", str(output)]
    arguments += ["--output-format", "images", "--image-format", "png"]
    arguments += ["--rendered-output-names", "rgb", "semantics_colormap"]
    if kind == "camera-path":
        path = tmp_path / "path.json"
        run_command(
            [
                "semfield",
                "camera-path",
                "--load-config",
                str(trained_run),
                "--output",
                str(path),
                "--seconds",
                "1",
                "--fps",
                "3",
            ]
        )
        arguments += ["--camera-path-filename", str(path)]
    if kind == "interpolate":
        arguments += ["--interpolation-steps", "2", "--pose-source", "train"]
    if kind == "spiral":
        arguments += ["--seconds", "1", "--frame-rate", "3"]
    run_command(arguments)
    frames = [np.array(Image.open(f)) for f in sorted(output.glob("*.png"))]
    assert len(frames) >= 3
    assert all(frame.shape == frames[0].shape for frame in frames)
    assert any((frames[0] != frame).any() for frame in frames[1:])


def test_point_cloud_in_semantic_colours(trained_run, tmp_path):
    run_command(
        [
            *("ns-export", "pointcloud", "--load-config", str(trained_run), "--output-dir", str(tmp_path)),
            *("--num-points", "500", "--num-rays-per-batch", "512", "--remove-outliers", "False"),
            *("--normal-method", "open3d", "--rgb-output-name", "semantics_colormap"),
        ]
    )
    vertices = PlyData.read(str(tmp_path / "point_cloud.ply"))["vertex"]
    assert len(vertices) >= 500
    colours = {tuple(row) for row in np.stack([vertices[c] for c in ("red", "green", "blue")], axis=-1).tolist()}
    assert len(colours) <= 7, "only colours of classes"
