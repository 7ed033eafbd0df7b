"""Teachers of transformers, with tiny random weights, go the way that real ones go."""

import json
import shutil
from math import ceil

import pytest
import torch
import torch.nn.functional as F

from semfield_ns.errors import SemfieldError
from semfield_ns.teachers.clip import ClipTeacher
from semfield_ns.teachers.registry import build_teacher, build_text_teacher, teacher_dim

KINDS = ("dino", "dinov2", "dinov2-registers", "siglip2", "siglip2-naflex", "clip", "sam", "sam2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    pytest.importorskip("transformers")
    from tests.teachers.models import write_models

    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def build(folders, kind):
    return build_teacher(f"{kind.partition('-')[0]}:{folders[kind]}")


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_a_grid_over_the_image(folders, kind):
    torch.manual_seed(0)
    images = torch.rand(2, 115, 150, 3)
    teacher = build(folders, kind)
    tokens = teacher.encode(images)
    assert tokens.shape == (2, *teacher.grid_size(115, 150), teacher.dim) and tokens.dtype == torch.float32
    assert tokens.isfinite().all() and tokens.std() > 1e-3
    assert torch.equal(tokens, build(folders, kind).encode(images)), "the same every time"
    assert torch.allclose(teacher.encode(images[1:])[0], tokens[1], atol=1e-5), "whatever else is in the batch"
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_gives_nearly_the_same(folders, kind):
    """What runs on a GPU, run here."""
    torch.manual_seed(0)
    image, half = torch.rand(1, 115, 150, 3), build(folders, kind)
    half.dtype = torch.bfloat16
    exact, found = build(folders, kind).encode(image), half.encode(image)
    assert half.model.dtype == torch.bfloat16 and found.dtype == torch.float32
    assert (found - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("kind", "grid"), [("dino", (94, 126)), ("dinov2", (54, 72)), ("siglip2", (47, 63)), ("clip", (14, 20))]
)
def test_grids_are_those_of_the_official_code(folders, kind, grid):
    assert build(folders, kind).grid_size(756, 1008) == grid


def test_sam_cuts_away_what_is_not_the_image(folders):
    teacher = build(folders, "sam")
    assert teacher.grid_size(756, 1008) == (6, 8)  # 48 of 64 rows, in the proportion of this small model
    assert teacher.grid_size(1008, 756) == (8, 6)
    wide = torch.zeros(1, 32, 64, 3)
    assert teacher.encode(wide).shape == (1, 4, 8, 32)


def test_tokens_are_those_of_the_network_at_its_own_size(folders):
    """No interpolation of position embeddings, no stretching: the model's own answer, CLS and registers left out."""
    import transformers

    image = torch.rand(1, 56, 56, 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((image - mean) / std).permute(0, 3, 1, 2)
    for kind, extra in (("dinov2", 1), ("dinov2-registers", 5)):
        model = transformers.AutoModel.from_pretrained(folders[kind]).eval()
        with torch.no_grad():
            expected = model(pixels).last_hidden_state[:, extra:].view(1, 4, 4, 32)
        assert torch.allclose(build(folders, kind).encode(image), expected, atol=1e-5)


def test_siglip_of_any_aspect_sees_the_patches_of_the_processor(folders):
    import numpy as np
    import transformers

    image = torch.rand(1, 32, 64, 3)
    processor = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=8, do_resize=False)
    prepared = processor((image[0].numpy() * 255).round().astype(np.uint8), return_tensors="pt")
    model = transformers.Siglip2Model.from_pretrained(folders["siglip2-naflex"]).eval().vision_model
    with torch.no_grad():
        expected = model(
            prepared["pixel_values"],
            prepared["pixel_attention_mask"],
            prepared["spatial_shapes"],
        ).last_hidden_state[:, :8]
    tokens = build(folders, "siglip2-naflex").encode((image * 255).round() / 255)
    assert torch.allclose(tokens.flatten(1, 2), expected, atol=1e-4)


def test_images_are_prepared_as_the_folder_says(folders, tmp_path):
    shutil.copytree(folders["dinov2"], tmp_path / "other")
    (tmp_path / "other" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]})
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = torch.rand(1, 28, 28, 3)
    plain, usual = build_teacher(f"dinov2:{tmp_path / 'other'}"), build(folders, "dinov2")
    assert torch.allclose(plain.encode((image - mean) / std), usual.encode(image), atol=1e-5)
    assert plain.name != usual.name


def test_what_a_config_leaves_out_is_what_its_class_takes(folders, tmp_path):
    """As the files of SigLIP on the hub do."""
    shutil.copytree(folders["siglip2"], tmp_path / "bare")
    config = json.loads((tmp_path / "bare" / "config.json").read_text())
    assert config["vision_config"].pop("patch_size") == 16
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    image = torch.rand(1, 48, 64, 3)
    assert torch.equal(
        build_teacher(f"siglip2:{tmp_path / 'bare'}").encode(image), build(folders, "siglip2").encode(image)
    )


def test_the_window_that_is_the_image_gives_the_embedding_of_the_image(folders):
    import transformers

    image = torch.rand(2, 96, 96, 3)
    teacher = build(folders, "clip")
    model = transformers.CLIPModel.from_pretrained(folders["clip"]).eval()
    pixels = F.interpolate(teacher.normalised(image), size=(32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = F.normalize(model.get_image_features(pixels).pooler_output, dim=-1)
    tokens = teacher.encode(image)
    assert tokens.shape == (2, 1, 1, 24)
    assert torch.allclose(tokens[:, 0, 0], expected, atol=1e-5)


def test_windows_look_at_their_cell(folders):
    """A token does not change with what is outside of its window, and sees what is inside."""
    teacher = ClipTeacher("clip", str(folders["clip"]), window=32, stride=16)
    image = torch.rand(1, 80, 112, 3)
    tokens = teacher.encode(image)
    assert tokens.shape[1:3] == teacher.grid_size(80, 112) == (4, 6)
    changed = image.clone()
    changed[:, :, 60:] = 0
    moved = (teacher.encode(changed) - tokens).abs().amax(dim=(0, 1, 3)) > 1e-4
    # The window of column j covers 32 px around (j + 0.5) * 112 / 6, moved into the picture.
    starts = [min(max(round((j + 0.5) * 112 / 6 - 16), 0), 80) for j in range(6)]
    assert moved.tolist() == [start + 32 > 60 for start in starts]
    assert torch.allclose(tokens.norm(dim=-1), torch.ones(1, 4, 6), atol=1e-5)


def test_words_lie_where_pictures_lie(folders):
    teacher = build_text_teacher(f"clip:{folders['clip']}")
    words = teacher.encode_text(["ball", "a green crate", "ball"])
    assert words.shape == (3, teacher.dim)
    assert torch.allclose(words.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(words[0], words[2], atol=1e-5) and not torch.allclose(words[0], words[1], atol=1e-3)
    assert torch.allclose(teacher.encode_text(["ball"])[0], words[0], atol=1e-5), "whatever else is asked"
    with pytest.raises(SemfieldError, match="does not support text queries: use 'clip'"):
        build_text_teacher("classical")


def test_other_weights_have_another_name(folders, tmp_path):
    shutil.copytree(folders["dinov2"], tmp_path / "copy")
    assert build_teacher(f"dinov2:{tmp_path / 'copy'}").name == build(folders, "dinov2").name
    from safetensors.torch import load_file, save_file

    file = tmp_path / "copy" / "model.safetensors"
    state = load_file(file)
    key = sorted(state)[3]
    save_file(state | {key: state[key] + 1}, file, metadata={"format": "pt"})
    assert build_teacher(f"dinov2:{tmp_path / 'copy'}").name != build(folders, "dinov2").name


@pytest.mark.parametrize("kind", ["dinov2", "dino", "clip", "sam", "sam2", "siglip2"])
def test_without_weights_one_sentence_says_what_to_do(kind, no_weights):
    assert teacher_dim(kind) in (256, 512, 768, 1024), "known without weights"
    with pytest.raises(SemfieldError) as caught:
        build_teacher(kind)
    message = str(caught.value)
    assert "\n" not in message and message.count("hf download") == 1
    for part in (f"'{kind}'", f"{kind}:FOLDER", "'classical'", "/"):
        assert part in message


def test_folders_that_do_not_fit_are_named(folders, tmp_path, no_weights):
    with pytest.raises(SemfieldError, match="there is no folder"):
        build_teacher(f"dino:{tmp_path / 'absent'}")
    with pytest.raises(SemfieldError, match=r"config\.json is missing"):
        build_teacher(f"dino:{tmp_path}")
    with pytest.raises(SemfieldError, match="of the kind 'sam': the teacher 'dinov2' needs one of dinov2"):
        build_teacher(f"dinov2:{folders['sam']}")
    shutil.copytree(folders["dino"], tmp_path / "hollow")
    (tmp_path / "hollow" / "model.safetensors").unlink()
    with pytest.raises(SemfieldError, match="does not hold weights for the teacher 'dino'"):
        build_teacher(f"dino:{tmp_path / 'hollow'}").encode(torch.rand(1, 16, 16, 3))
    from safetensors.torch import load_file, save_file

    state = load_file(folders["dino"] / "model.safetensors")
    lost = next(name for name in state if "layer.1" in name)
    save_file({k: v for k, v in state.items() if k != lost}, tmp_path / "hollow" / "model.safetensors")
    with pytest.raises(SemfieldError, match="is missing, and 0 more"):
        build_teacher(f"dino:{tmp_path / 'hollow'}").encode(torch.rand(1, 16, 16, 3))


def test_names_that_are_no_teachers():
    for name in ("dinosaur", "json:dumps_", "no_such_module:Teacher", ""):
        with pytest.raises(SemfieldError, match="There is no teacher"):
            build_teacher(name)
    with pytest.raises(SemfieldError, match="is not a teacher: derive it"):
        build_teacher("collections:OrderedDict")


def test_the_classical_teacher_takes_its_stride():
    teacher = build_teacher("classical", stride=3)
    assert teacher.stride == 3 and teacher_dim("classical") == teacher.dim == 39
    assert teacher.encode(torch.rand(1, 20, 31, 3)).shape == (1, ceil(20 / 3), ceil(31 / 3), 39)
