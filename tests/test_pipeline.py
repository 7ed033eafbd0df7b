"""Checkpoints that do not fit are refused; metrics over images and over the whole data set."""

import json
from pathlib import Path

import pytest
import torch
from nerfstudio.engine.trainer import Trainer

from semfield_ns.errors import SemfieldError
from semfield_ns.pipeline import (
    INFO_KEY,
    SemfieldPipeline,
    check_info,
    compare_states,
    decode_info,
    encode_info,
    summarise,
)
from tests.tiny_method import NUM_IMAGES, tiny_config, write_tiny_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def trained(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return train(scene, tmp_path_factory.mktemp("run"))


def set_up(scene: Path, output: Path, load_dir: Path | None = None, **model: object) -> Trainer:
    config = tiny_config(**model)
    config.data = config.pipeline.datamanager.data = scene
    config.output_dir, config.timestamp, config.load_dir = output, "now", load_dir
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def train(scene: Path, output: Path, load_dir: Path | None = None) -> Trainer:
    trainer = set_up(scene, output, load_dir)
    trainer.train()
    return trainer


def checkpoint_of(trainer: Trainer) -> dict:
    (path,) = trainer.checkpoint_dir.glob("*.ckpt")
    return torch.load(path, map_location="cpu", weights_only=True)


def pipeline_of(scene: Path, **model: object) -> SemfieldPipeline:
    config = tiny_config(**model).pipeline
    config.datamanager.data = scene
    return config.setup(device="cpu")


def test_the_checkpoint_of_a_trainer_is_read_safely_and_says_what_it_is(trained: Trainer):
    checkpoint = checkpoint_of(trained)
    assert decode_info(checkpoint["pipeline"][INFO_KEY]) == {"backend": "torch", "classes": "a, b"}
    assert "schedulers" in checkpoint


def test_a_checkpoint_comes_back_bit_for_bit(trained: Trainer, scene: Path):
    checkpoint = checkpoint_of(trained)
    pipeline = pipeline_of(scene)
    pipeline.load_pipeline(checkpoint["pipeline"], checkpoint["step"])
    assert torch.equal(pipeline.model.color, trained.pipeline.model.color)


def test_a_checkpoint_of_several_gpus_is_read(trained: Trainer, scene: Path):
    saved = checkpoint_of(trained)["pipeline"]
    saved = {key.replace("_model.", "_model.module."): value for key, value in saved.items()}
    pipeline = pipeline_of(scene)
    pipeline.load_pipeline(saved, 3)
    assert torch.equal(pipeline.model.color, trained.pipeline.model.color)


def test_training_resumes(trained: Trainer, scene: Path, tmp_path: Path):
    resumed = set_up(scene, tmp_path, load_dir=trained.checkpoint_dir)
    assert resumed._start_step == checkpoint_of(trained)["step"] + 1
    assert torch.equal(resumed.pipeline.model.color, trained.pipeline.model.color)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend": "tcnn"}, ["backend is 'torch' in the checkpoint and 'tcnn' here"]),
        ({"num_classes": 1}, ["classes is 'a, b' in the checkpoint and 'a' here"]),
        ({"backend": "tcnn", "describe": False}, ["head.weights", "head.params", "backend"]),
        ({"num_classes": 1, "describe": False}, ["head.weights (2,) instead of (1,)", "classes"]),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(trained: Trainer, scene: Path, settings: dict, words: list[str]):
    checkpoint = checkpoint_of(trained)
    if not settings.get("describe", True):
        del checkpoint["pipeline"][INFO_KEY]
    pipeline = pipeline_of(scene, **settings)
    before = pipeline.model.color.clone()
    with pytest.raises(SemfieldError) as caught:
        pipeline.load_pipeline(checkpoint["pipeline"], checkpoint["step"])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
    if settings.get("describe", True):
        assert torch.equal(before, pipeline.model.color)


def test_evaluation_averages_images_and_adds_metrics_of_the_data_set(trained: Trainer, tmp_path: Path):
    metrics = trained.pipeline.get_average_eval_image_metrics(output_path=tmp_path / "images", get_std=True)
    assert metrics["num_evaluated"] == NUM_IMAGES
    assert metrics["error"] > 0 and metrics["error_std"] > 0
    assert {"sometimes", "fps", "num_rays_per_sec", "fps_std"} <= set(metrics)
    assert len(list((tmp_path / "images").glob("eval_img_*.png"))) == NUM_IMAGES
    json.dumps(metrics, allow_nan=False)
    assert trained.pipeline.training


def test_evaluation_of_one_image_has_no_nan(tmp_path: Path):
    pipeline = pipeline_of(write_tiny_scene(tmp_path / "scene", num_images=1))
    metrics = pipeline.get_average_eval_image_metrics(get_std=True)
    assert metrics["error_std"] == 0.0
    json.dumps(metrics, allow_nan=False)


def test_evaluation_without_images_is_an_error(trained: Trainer):
    with pytest.raises(SemfieldError, match="no image"):
        trained.pipeline.get_average_image_metrics([], "eval")


def test_summary_ignores_what_an_image_does_not_have():
    per_image = [{"a": 1.0, "b": float("nan")}, {"a": 3.0, "b": 5.0, "c": 2.0}, {"a": 5.0, "d": float("nan")}]
    assert summarise(per_image, get_std=False) == {"a": 3.0, "b": 5.0, "c": 2.0}
    with_std = {"a": 3.0, "a_std": 2.0, "b": 5.0, "b_std": 0.0, "c": 2.0, "c_std": 0.0}
    assert summarise(per_image, get_std=True) == with_std


def test_info_survives_the_round_trip():
    info = {"classes": "Straße, 道", "dim": "16"}
    assert decode_info(encode_info(info)) == info
    with pytest.raises(SemfieldError, match="damaged"):
        decode_info(torch.tensor([1, 2, 3], dtype=torch.uint8))


def test_info_names_every_difference():
    check_info({"a": "1"}, {"a": "1"}, step=0)
    with pytest.raises(SemfieldError, match=r"a is '1'.*b is 'not given' in.*'2' here"):
        check_info({"a": "1"}, {"a": "3", "b": "2"}, step=0)


def test_many_differences_are_counted_not_listed():
    expected = {f"_model.key{i}": torch.zeros(1) for i in range(10)}
    text = compare_states(expected, {})
    assert "_model.key0" in text and "7 more" in text
    assert compare_states(expected, expected) == ""
