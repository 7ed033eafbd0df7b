"""Features of a scene's images, extracted once and kept on disk as a memory-mapped half-precision array.

A cache entry is a folder named by the content it was made from (the images' bytes, the teacher, the width of the PCA):
`features.npy` (frames, h, w, dim) float16 and `manifest.json`, which is written last. An entry without its manifest is
not there.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16
from rich.progress import track
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path, write_json
from semfield_ns.teachers.base import Teacher


def cache_root() -> Path:
    """Where caches live: `$SEMFIELD_CACHE`, or `~/.cache/semfield_ns`."""
    return Path(os.environ.get("SEMFIELD_CACHE", Path.home() / ".cache" / "semfield_ns"))


def content_key(files: list[Path], *parts: str) -> str:
    """A name for what `files` hold (not where they lie) together with `parts`."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    for part in parts:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:24]


def scene_features(
    image_files: list[Path],
    load_image: Callable[[int], Tensor],
    teacher: Teacher,
    max_dim: int | None = None,
    root: Path | None = None,
) -> Float16[Tensor, "frames h w dim"]:
    """Standardised (and, if wider than `max_dim`, PCA-projected) features of all images of a scene.

    Args:
        image_files: the images, in the order of the result.
        load_image: index -> float RGB (height, width, 3) in [0, 1].
        teacher: the extractor.
        max_dim: the most channels to keep; principal components of the scene's own images beyond that.
        root: the folder of the cache; `cache_root() / "features"` by default.

    Returns:
        Zero mean, unit variance a channel (over the scene), float16, read from the memory map into memory.

    Raises:
        SemfieldError: the cache cannot be written.
    """
    root = root or cache_root() / "features"
    entry = root / content_key(image_files, teacher.name, str(max_dim))
    manifest, array = entry / "manifest.json", entry / "features.npy"
    if not manifest.exists():
        features = _extract(len(image_files), load_image, teacher, max_dim)
        try:
            entry.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SemfieldError(
                f"The feature cache {entry} cannot be made ({error.strerror}); set SEMFIELD_CACHE to a folder that can "
                "be written."
            ) from error
        with atomic_path(array) as temporary, open(temporary, "wb") as stream:
            np.save(stream, features)
        names = [str(Path(file).name) for file in image_files]
        write_json(manifest, {"teacher": teacher.name, "shape": list(features.shape), "images": names})
    shape = json.loads(manifest.read_text())["shape"]
    mapped = np.load(array, mmap_mode="r", allow_pickle=False)
    if list(mapped.shape) != shape:
        raise SemfieldError(f"The feature cache {entry} does not hold what its manifest says; delete that folder.")
    return torch.from_numpy(np.array(mapped))


def _extract(count: int, load_image: Callable[[int], Tensor], teacher: Teacher, max_dim: int | None) -> np.ndarray:
    grids = [
        teacher.encode(load_image(index)[None])[0]
        for index in track(range(count), description=f"Features ({teacher.name.split('-')[0]})", transient=True)
    ]
    features = torch.stack(grids).float()
    flat = features.reshape(-1, features.shape[-1])
    flat = (flat - flat.mean(dim=0)) / flat.std(dim=0).clamp(min=1e-6)
    if max_dim is not None and flat.shape[-1] > max_dim:
        covariance = flat.T @ flat / len(flat)
        values, vectors = torch.linalg.eigh(covariance)
        basis = vectors[:, -max_dim:].flip(1)
        # An eigenvector's sign is arbitrary: make its largest entry positive, so that every machine agrees.
        basis = basis * torch.sign(basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)))
        flat = (flat @ basis) / values[-max_dim:].flip(0).clamp(min=1e-6).sqrt()
    return flat.reshape(*features.shape[:-1], -1).clamp(-1e3, 1e3).half().numpy()
