"""Official checkpoints in and out, and what is said of broken ones."""

import pytest
import torch

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.checkpoints import export_official, import_official
from semfield_ns.gsn.network import OFFICIAL, GSNNetwork, NetworkConfig

SMALL = {**OFFICIAL, "encoder_width": 8, "encoder_blocks": (1, 2, 1), "image_dim": 8, "dim": 32, "feature_dim": 16}


@pytest.fixture
def gsn_file(tmp_path):
    torch.manual_seed(0)
    network = GSNNetwork(NetworkConfig(**SMALL))
    path = tmp_path / "model_000100.pth"
    export_official(network, path)
    return network, path


def test_export_and_import_give_the_same_weights(gsn_file):
    network, path = gsn_file
    found = import_official(path, "gsn")
    assert found.config.blocks == 4 and found.config.encoder_blocks == (1, 2, 1)
    assert not found.config.masked_pooling and found.config.head_sees_target
    state = found.state_dict()
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_the_official_layout_comes_out(parity_root, tmp_path):
    import json

    export_official(GSNNetwork(NetworkConfig(**OFFICIAL)), tmp_path / "model.pth")
    written = torch.load(tmp_path / "model.pth", weights_only=True)
    keys = json.loads((parity_root / "gsn_keys.json").read_text())
    for part, tensors in keys.items():
        assert {name: list(value.shape) for name, value in written[part].items()} == tensors


@pytest.mark.parametrize(("blocks", "tensors"), [(4, 152), (8, 296)])
def test_gnt_gives_colour_and_depth(tmp_path, blocks, tensors):
    network = GSNNetwork(NetworkConfig(**SMALL | {"blocks": blocks, "direction": "trunk", "feature_dim": 0}))
    assert len(network.net_coarse.state_dict()) == tensors
    export_official(network, tmp_path / "gnt.pth")
    found = import_official(tmp_path / "gnt.pth", "gnt")
    assert found.dino is None and found.config.blocks == blocks
    with pytest.raises(SemfieldError, match=r"no part 'dino'.*--kind gnt"):
        import_official(tmp_path / "gnt.pth", "gsn")


def test_official_sizes():
    network = GSNNetwork(NetworkConfig(**OFFICIAL))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert count == {"feature_net": 8_877_056, "net_coarse": 449_027, "dino": 410_784, "more_heads": 0}
    for blocks, total in ((4, 9_321_795), (8, 9_759_747)):
        gnt = GSNNetwork(NetworkConfig(**OFFICIAL, blocks=blocks, direction="trunk", feature_dim=0))
        assert sum(p.numel() for p in gnt.parameters()) == total


def broken(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_every_missing_and_odd_tensor_is_named(gsn_file):
    _, path = gsn_file

    def change(content):
        del content["net_coarse"]["norm.weight"]
        content["dino"]["extra.weight"] = torch.zeros(2)
        content["dino"]["norm.bias"] = torch.zeros(3)
        content["feature_net"]["bn1.bias"][0] = torch.nan

    broken(path, change)
    with pytest.raises(SemfieldError) as error:
        import_official(path, "gsn")
    for part in (
        "lacks net_coarse.norm.weight",
        "unknown dino.extra.weight",
        "dino.norm.bias [3]",
        "feature_net.bn1.bias",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 and then nothing"])
def test_a_broken_file_is_a_sentence(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(SemfieldError, match=r"Cannot read the checkpoint .*model\.pth"):
        import_official(path, "gsn")


def test_a_file_that_runs_code_is_not_opened(tmp_path):
    import os

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "model.pth"
    torch.save({"net_coarse": Bomb()}, path)
    with pytest.raises(SemfieldError, match="more than tensors"):
        import_official(path, "gsn")
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(SemfieldError, match="There is no checkpoint"):
        import_official(tmp_path / "absent.pth", "gsn")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(SemfieldError, match="it holds a list"):
        import_official(tmp_path / "list.pth", "gsn")
    torch.save({"net_coarse": {"a": torch.zeros(1)}, "feature_net": {}}, tmp_path / "empty.pth")
    with pytest.raises(SemfieldError, match="lacks"):
        import_official(tmp_path / "empty.pth", "gnt")
