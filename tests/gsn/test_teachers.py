"""GSN with teachers of transformers, tiny ones with random weights: distilled, asked by words, and official weights."""

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn import runs
from semfield_ns.gsn.checkpoints import export_official
from semfield_ns.gsn.network import OFFICIAL, GSNNetwork, NetworkConfig
from semfield_ns.method_configs.gsn import gsn_paper
from tests.gsn.builders import small_config, small_pipeline, write_scenes


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    pytest.importorskip("transformers")
    from tests.teachers.models import write_models

    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 1, width=96, height=72)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))


def test_features_of_a_transformer_are_distilled_and_asked_by_words(root, folders, tmp_path):
    pipeline = small_pipeline(root, teacher=f"clip:{folders['clip']}")
    model = pipeline.model
    with pytest.raises(SemfieldError, match="no features yet"):
        model.text_features(["ball"])
    model.train()
    model.set_step(4)
    _, losses, _ = pipeline.get_train_loss_dict(4)
    assert torch.isfinite(losses["features"])
    train = [(0, index) for index in model.library.scenes[0].train]
    folders_of = [model.tokens.cache.key(model.tokens.picture(*pair)) for pair in train]
    found = {path.parent.name for path in (tmp_path / "cache" / "features").glob("*/*/manifest.json")}
    assert set(folders_of) <= found, "all training images at once"
    words = model.text_features(["ball", "crate"])
    assert words.shape == (2, 8) and torch.allclose(words.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert model.tokens.grid(0, 0).shape == (8, 1, 1), "one window of 96 pixels"


def test_other_teachers_do_not_know_words(root):
    model = small_pipeline(root).model
    model.prepare_tokens()
    with pytest.raises(SemfieldError, match="teacher 'classical', which does not support text queries"):
        model.text_features(["ball"])


def test_training_without_the_weights_says_what_to_do(root, capsys):
    constants = pytest.importorskip("huggingface_hub.constants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        pipeline = small_config(root, teacher="dinov2").pipeline.setup(device="cpu")
        pipeline.model.get_training_callbacks(TrainingCallbackAttributes(None, None, pipeline, None))
        said = " ".join(capsys.readouterr().out.split())  # not only after all steps of the first stage
        assert "No weights of facebook/dinov2-large" in said and "continues without it for 4 steps" in said
        pipeline.model.set_step(0)  # colour needs no teacher
        with pytest.raises(SemfieldError, match=r"facebook/dinov2-large.*dinov2:FOLDER.*classical"):
            pipeline.model.set_step(4)


def test_official_weights_without_their_teacher_give_colour_and_depth(root, tmp_path, capsys):
    from semfield_ns.cli.attach import attach
    from semfield_ns.cli.import_checkpoint import import_checkpoint

    constants = pytest.importorskip("huggingface_hub.constants")
    sizes = {"encoder_width": 8, "encoder_blocks": (1, 1, 1), "image_dim": 8, "dim": 16, "blocks": 2}
    export_official(GSNNetwork(NetworkConfig(**OFFICIAL, **sizes, feature_dim=16)), tmp_path / "gsn_000070.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        import_checkpoint(tmp_path / "gsn_000070.pth", "gsn", tmp_path)
        run = next(tmp_path.glob("gsn_000070/gsn-paper/imported/config.yml"))
        attach(root / "scene_0", run, tmp_path, longest_side=96, preview=0)
    said = capsys.readouterr().out
    assert "No weights of facebook/dino-vitb8 for the teacher 'dino'" in said and ": colour and depth only." in said


def test_official_weights_give_features_of_their_teacher(root, folders, tmp_path):
    from copy import deepcopy

    sizes = {"encoder_width": 8, "encoder_blocks": (1, 1, 1), "image_dim": 8, "dim": 16, "blocks": 2}
    torch.manual_seed(0)
    export_official(GSNNetwork(NetworkConfig(**OFFICIAL, **sizes, feature_dim=16)), tmp_path / "gsn_000070.pth")
    preset = deepcopy(gsn_paper.config)
    assert preset.pipeline.model.teacher == "dino"
    preset.pipeline.model.teacher = f"dino:{folders['dino']}"
    preset.pipeline.model.rays.samples = 8
    preset.pipeline.model.num_source_views = 3
    imported = runs.import_checkpoint(tmp_path / "gsn_000070.pth", "gsn", preset, tmp_path)
    attached = runs.attach(imported, root / "scene_0", tmp_path / "shown", longest_side=96)
    first = runs.open_run(attached)
    assert not first.knows_features
    assert runs.compute_tokens(first, attached) and first.knows_features
    model = runs.open_run(attached)
    assert model.knows_features, "written to the run"
    camera = model.library.scenes[0].cameras[torch.tensor([0])]
    camera.rescale_output_resolution(0.25)
    raw = model.raw_outputs_for_camera(camera)
    assert raw["features"].shape[-1] == 16 and raw["features"].isfinite().all()
    tokens = model.tokens.grid(0, 0)
    assert tokens.shape == (16, 9, 12) and torch.allclose(tokens.float().norm(dim=0), torch.ones(9, 12), atol=2e-3)
    shown = model.present(raw)["features_pca"]
    assert shown.std() > 0.02
