"""Feature extractors and their cache."""

import numpy as np
import pytest
import torch
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.cache import scene_features
from semfield_ns.teachers.classical import ClassicalTeacher
from semfield_ns.teachers.joined import JoinedTeacher
from semfield_ns.teachers.registry import build_teacher, supports_text, teacher_dim
from semfield_ns.teachers.resnet import ResNetTeacher


@pytest.mark.parametrize("teacher", [ClassicalTeacher(stride=2), ResNetTeacher(pretrained=False)], ids=lambda t: t.name)
def test_grid_covers_the_image(teacher):
    images = torch.rand(2, 30, 46, 3)
    features = teacher.encode(images)
    assert features.shape == (2, -(-30 // teacher.stride), -(-46 // teacher.stride), teacher.dim)
    assert torch.isfinite(features).all()
    assert torch.equal(features, teacher.encode(images))


def test_a_frame_does_not_depend_on_its_batch():
    """Encoders run in evaluation mode: batch statistics would leak one frame into another."""
    torch.manual_seed(0)
    images = torch.rand(3, 32, 32, 3)
    teacher = ResNetTeacher(pretrained=False)
    assert torch.allclose(teacher.encode(images)[1], teacher.encode(images[1:2])[0], atol=1e-5)


class Counting(Teacher):
    """Colours, and how often it was asked."""

    name, dim, stride = "counting", 3, 1

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, images):
        self.calls += 1
        return images


@pytest.fixture
def images(tmp_path):
    generator = np.random.default_rng(0)
    files = []
    for index in range(3):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(generator.integers(0, 255, (4, 6, 3), np.uint8)).save(files[-1])
    return files


def load(files):
    return lambda index: torch.from_numpy(np.array(Image.open(files[index]))).float() / 255


def test_features_are_extracted_once_and_follow_content(images, tmp_path):
    teacher, root = Counting(), tmp_path / "cache"
    first = scene_features(images, load(images), teacher, root=root)
    assert teacher.calls == 3 and first.dtype == torch.float16
    assert abs(float(first.float().mean())) < 1e-2 and abs(float(first.float().std()) - 1) < 2e-2
    again = scene_features(images, load(images), teacher, root=root)
    assert teacher.calls == 3 and torch.equal(first, again)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(images[1])
    scene_features(images, load(images), teacher, root=root)
    assert teacher.calls == 4


def test_principal_components_are_white(images, tmp_path):
    features = scene_features(images, load(images), Counting(), max_dim=2, root=tmp_path / "cache")
    flat = features.float().reshape(-1, 2)
    assert torch.allclose(flat.T @ flat / len(flat), torch.eye(2), atol=2e-2)


def test_resnet_without_weights_is_one_sentence(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(SemfieldError, match="classical") as caught:
        ResNetTeacher()
    assert "\n" not in str(caught.value)


class Noise(Teacher):
    """Random maps of a few channels, the same for the same picture."""

    def __init__(self, dim: int, stride: int) -> None:
        self.dim, self.stride, self.name = dim, stride, f"noise-{dim}-{stride}"

    def encode(self, images):
        rows, columns = self.grid_size(*images.shape[1:3])
        generator = torch.Generator().manual_seed(int(images.sum() * 1000) + self.dim)
        return torch.randn(len(images), rows, columns, self.dim, generator=generator)


def test_joined_teachers_are_what_they_are_alone():
    fine, coarse, image = Noise(3, 2), Noise(5, 4), torch.rand(1, 24, 32, 3)
    assert torch.equal(JoinedTeacher([fine]).encode(image), fine.encode(image))
    joined = JoinedTeacher([fine, coarse])
    found = joined.encode(image)
    assert found.shape == (1, 12, 16, 8) == (1, *joined.grid_size(24, 32), joined.dim) and joined.parts == (3, 5)
    assert torch.equal(found[..., :3], fine.encode(image))
    # Each map has the same share of all squared weights.
    first, second = joined.shares.square().split([3, 5])
    assert float(first.sum()) == pytest.approx(1) and float(second.sum()) == pytest.approx(1)


def test_teachers_are_joined_by_name():
    both = build_teacher("classical+classical", 4)
    assert both.dim == teacher_dim("classical+classical") == 2 * teacher_dim("classical")
    assert not supports_text("clip+classical")
