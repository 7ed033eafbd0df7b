"""Checkpoints of the official GSN and GNT code, read and written.

An official file holds the parts `net_coarse`, `feature_net` and, for GSN, `dino`, each a dictionary of tensors, beside
`optimizer`, `scheduler` and perhaps `net_fine`. Our modules have the official names, so a part is a state dict.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from semfield_ns.compat.runs import allow_nerfstudio_checkpoints
from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.network import OFFICIAL, GSNNetwork, NetworkConfig
from semfield_ns.io import atomic_path, reason

Kind = Literal["gsn", "gnt"]
Parts = dict[str, dict[str, Tensor]]

PARTS: dict[Kind, tuple[str, ...]] = {
    "gsn": ("net_coarse", "feature_net", "dino"),
    "gnt": ("net_coarse", "feature_net"),
}
_KEYS_SHOWN = 6


def read_official(path: Path, kind: Kind) -> Parts:
    """The parts of an official checkpoint that make up a network.

    Args:
        path: such as `model_720000.pth`.
        kind: which code wrote it.

    Raises:
        SemfieldError: the file is not a checkpoint that can be read safely, or lacks a part.
    """
    if not path.is_file():
        raise SemfieldError(f"There is no checkpoint {path}.")
    allow_nerfstudio_checkpoints()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged file leads it to
        raise SemfieldError(
            f"Cannot read the checkpoint {path} ({reason(error)[:160]}): it is damaged, or holds more than tensors."
        ) from error
    if not isinstance(content, Mapping):
        raise SemfieldError(f"{path} is not an official checkpoint: it holds a {type(content).__name__}, not parts.")
    parts: Parts = {}
    for name in PARTS[kind]:
        part = content.get(name)
        if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
            hint = " (use --kind gnt for a checkpoint without features)" if name == "dino" else ""
            raise SemfieldError(
                f"{path} has no part {name!r} of tensors, which a {kind.upper()} checkpoint has{hint}; its parts are "
                f"{', '.join(map(str, content)) or 'none'}."
            )
        # Written by several GPUs, names begin with "module.".
        parts[name] = {str(key).removeprefix("module."): value.float() for key, value in part.items()}
    return parts


def official_config(parts: Parts, kind: Kind, where: str = "checkpoint") -> NetworkConfig:
    """The sizes that official weights have, with the official code's behaviour throughout.

    Raises:
        SemfieldError: the tensors that tell the sizes are missing.
    """
    trunk, encoder = parts["net_coarse"], parts["feature_net"]

    def rows(part: str, name: str, dimension: int = 0) -> int:
        tensor = parts[part].get(name)
        if tensor is None or tensor.dim() <= dimension:
            raise SemfieldError(f"The {where} lacks {part}.{name}, or it has an odd shape.")
        return tensor.shape[dimension]

    return NetworkConfig(
        dim=rows("net_coarse", "rgb_fc.weight", 1),
        blocks=_count(trunk, "view_crosstrans."),
        feature_dim=rows("dino", "dinofc.weight") if kind == "gsn" else 0,
        image_dim=rows("feature_net", "out_conv.weight"),
        encoder_width=rows("feature_net", "conv1.weight"),
        encoder_blocks=(_count(encoder, "layer1."), _count(encoder, "layer2."), _count(encoder, "layer3.")),
        dropout=0.1,
        direction="color" if kind == "gsn" else "trunk",
        **OFFICIAL,
    )


def _count(part: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules a part has under a prefix."""
    numbers = {key.removeprefix(prefix).partition(".")[0] for key in part if key.startswith(prefix)}
    return len(numbers)


def load_official(network: GSNNetwork, parts: Parts, where: str = "checkpoint") -> None:
    """Puts official weights into a network of their sizes.

    Raises:
        SemfieldError: naming the tensors that are missing, unknown or of another shape.
    """
    expected = {key: value for key, value in network.state_dict().items() if key.partition(".")[0] in parts}
    given = {f"{part}.{key}": value for part, tensors in parts.items() for key, value in tensors.items()}
    problems = []
    missing = [key for key in expected if key not in given]
    unknown = [key for key in given if key not in expected]
    shapes = [
        f"{key} {list(given[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    odd = [key for key, value in given.items() if not bool(torch.isfinite(value).all())]
    for what, keys in (
        ("it lacks", missing),
        ("it has unknown", unknown),
        ("of another shape are", shapes),
        ("not finite are", odd),
    ):
        if keys:
            more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
            problems.append(f"{what} {', '.join(keys[:_KEYS_SHOWN])}{more}")
    if problems:
        raise SemfieldError(f"The {where} does not fit: {'; '.join(problems)}.")
    network.load_state_dict(given, strict=False)


def import_official(path: Path, kind: Kind) -> GSNNetwork:
    """A network with the weights and the behaviour of an official checkpoint, in evaluation mode."""
    parts = read_official(path, kind)
    where = f"checkpoint {path}"
    network = GSNNetwork(official_config(parts, kind, where))
    load_official(network, parts, where)
    return network.eval()


def export_official(network: GSNNetwork, path: Path) -> list[str]:
    """Writes a network's weights in the official layout, without states of optimizers; returns the parts' names.

    Raises:
        SemfieldError: the official code has no place for some of its weights.
    """
    if not network.is_official:
        raise SemfieldError(
            "This network blends colours (network.blend), which the official code does not, so it cannot be exported."
        )
    content: dict[str, Any] = {"optimizer": {}, "scheduler": {}}
    for name in ("net_coarse", "feature_net", "dino"):
        module = getattr(network, name)
        if module is not None:
            content[name] = {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
    return [name for name, part in content.items() if part]
