import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

_DEFAULT = Path(__file__).resolve().parents[2] / ".." / "shared" / "parity"


@pytest.fixture(scope="session")
def parity_root() -> Path:
    """Folder of vectors made by the official code; tests that need them skip where they are not."""
    root = Path(os.environ.get("SEMFIELD_PARITY") or _DEFAULT)
    if not (root / "gsn_a.npz").is_file():
        pytest.skip(f"no parity vectors at {root}; set SEMFIELD_PARITY to their folder")
    return root


@pytest.fixture(scope="session")
def parity(parity_root) -> dict[str, np.ndarray]:
    with np.load(parity_root / "gsn_a.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="session")
def official_file(parity_root, parity, tmp_path_factory) -> Path:
    """A checkpoint in the official layout whose weights follow from their names, as the vectors' do."""
    seed = int(parity["weight_seed"])
    keys = json.loads((parity_root / "gsn_keys.json").read_text())
    state = {
        part: {name: weight_of_name(part, name, shape, seed) for name, shape in tensors.items()}
        for part, tensors in keys.items()
    }
    path = tmp_path_factory.mktemp("official") / "model_720000.pth"
    torch.save({"optimizer": {}, "scheduler": {}, **state}, path)
    return path


def weight_of_name(part: str, name: str, shape: list[int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed((zlib.crc32(f"{part}.{name}".encode()) + seed) % 2**31)
    values = torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        return values / values[0].numel() ** 0.5
    return 1 + 0.1 * values if name.endswith("weight") else 0.05 * values
