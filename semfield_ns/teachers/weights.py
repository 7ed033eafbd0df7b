"""Where the weights of a model on the Hugging Face hub are: a local folder, the local cache, or else downloaded."""

import hashlib
import json
from pathlib import Path
from typing import Any

from semfield_ns.errors import SemfieldError

_SMALL_FILES = ("*.json", "*.txt", "*.model")
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
_BLOCKS, _BLOCK = 64, 1 << 16  # of a weight file, read for its fingerprint


def find_weights(kind: str, source: str) -> tuple[Path, str]:
    """Folder and revision of weights: a folder as it is, else the hub's local cache, else a download into it.

    The revision is the hub's commit, or a fingerprint of what a folder holds, so that other weights have another one.

    Raises:
        SemfieldError: they are neither on this machine nor to be fetched.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder, _fingerprint(folder)
    if source.startswith(("/", "~", ".")) or source.count("/") > 1:
        raise SemfieldError(f"No weights for the teacher '{kind}': there is no folder {folder}.")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise _absent(kind, source, "the packages of 'semfield-ns[teachers]' are not installed") from error
    try:
        found = Path(snapshot_download(source, local_files_only=True))
        if _weight_files(found):
            return found, found.name
    except (OSError, HFValidationError):
        pass
    try:
        found = Path(snapshot_download(source, allow_patterns=[*_SMALL_FILES, _WEIGHT_FILES[0]]))
        if not _weight_files(found):
            found = Path(snapshot_download(source, allow_patterns=[*_SMALL_FILES, _WEIGHT_FILES[1]]))
    except (OSError, HFValidationError) as error:
        raise _absent(kind, source, "they are not on this machine and cannot be downloaded") from error
    return found, found.name


def _absent(kind: str, source: str, why: str) -> SemfieldError:
    return SemfieldError(
        f"No weights of {source} for the teacher '{kind}': {why}; run `hf download {source}` where there is a network, "
        f"or name a folder that holds them (teacher '{kind}:FOLDER'), or use the teacher 'classical', which needs none."
    )


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for pattern in _WEIGHT_FILES for path in folder.glob(pattern))


def _fingerprint(folder: Path) -> str:
    """A name for what a folder of weights holds: its small files, and blocks spread over the large ones.

    Not every byte: a gigabyte would take seconds each time that a run is opened.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        digest.update(path.read_bytes())
    for path in _weight_files(folder):
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as stream:
            for place in sorted({size * block // _BLOCKS for block in range(_BLOCKS)} | {max(size - _BLOCK, 0)}):
                stream.seek(place)
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()[:12]


def read_config(kind: str, folder: Path) -> dict[str, Any]:
    """config.json of a folder of weights.

    Raises:
        SemfieldError: there is none.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SemfieldError(
            f"{folder} holds no weights for the teacher '{kind}': its config.json is missing or broken."
        ) from error
    assert isinstance(config, dict)
    return config


def read_preparation(folder: Path) -> dict[str, Any]:
    """What the folder says about preparing images; nothing if it says nothing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            values = json.loads((folder / name).read_text(encoding="utf-8"))
            return values.get("image_processor", values)
    return {}
