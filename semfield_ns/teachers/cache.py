"""Features of images, extracted once and kept on disk, one entry an image.

An entry is a folder named by the content it was made from: the image's bytes, its size and the teacher. So another
image or teacher makes other entries, and everything else stays. It has

- `tokens.npy` (h, w, K) float16, read as a memory map: features in coordinates of their own, of unit variance;
- `axes.npz`: what leads back to the teacher's channels, features = mean + ((tokens * scale) @ basis) * spread;
- `manifest.json`: teacher, sizes, and the share of the variance that is kept.

Of a wide teacher the `RANK` main directions of each image, of standardised channels, are kept; a narrow one is kept
whole, without `basis` and `spread`. What training makes of the features, such as the PCA over many scenes, is applied
when an entry is read: it can change without the teacher being asked again. Entries are written elsewhere and renamed:
they are there as a whole or not at all, for any number of processes, and an extraction that was killed resumes with the
image that it was at.
"""

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Float, Float16
from rich.progress import track
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path, cache_root, read_json, read_npz, reason, write_npz
from semfield_ns.rendering.features import principal_axes
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.pca import Moments

RANK = 128
_VERSION = "3"
_STALE_SECONDS = 3600.0  # after which a half-written entry is nobody's


def content_key(files: Iterable[Path], *parts: str) -> str:
    """A name for what `files` hold (not where they lie) together with `parts`."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    for part in parts:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:24]


class Picture(NamedTuple):
    """An image to be described."""

    file: Path
    """what its name in the cache is made from, together with `size`"""
    size: tuple[int, int]
    """height and width at which it is described"""
    load: Callable[[], Float[Tensor, "height width 3"]]
    """RGB in [0, 1]"""
    variant: str = ""
    """what was done to the image in `file`, if anything: part of the name in the cache"""


class TokenGrid(NamedTuple):
    """Features of one image: mean + (tokens * scale) @ basis; without `basis` it is the identity."""

    tokens: Float16[np.ndarray, "h w K"]
    mean: Float[Tensor, "C"]
    scale: Float[Tensor, "K"]
    basis: Float[Tensor, "K C"] | None

    def features(self) -> Float[Tensor, "h w C"]:
        """In the teacher's channels, float32."""
        x = torch.from_numpy(np.asarray(self.tokens, dtype=np.float32)) * self.scale
        return (x if self.basis is None else x @ self.basis) + self.mean

    def affine(self, weight: Float[Tensor, "C D"], bias: Float[Tensor, "D"]) -> Float[Tensor, "h w D"]:
        """Features @ weight + bias, without going through all channels."""
        inner = self.scale[:, None] * (weight if self.basis is None else self.basis @ weight)
        x = torch.from_numpy(np.asarray(self.tokens, dtype=np.float32))
        return x @ inner + (self.mean @ weight + bias)


def compress(features: Float[Tensor, "h w C"], rank: int = RANK) -> tuple[TokenGrid, float]:
    """Features as they are kept, and the share of their variance that is."""
    rows, columns, dim = features.shape
    flat = features.reshape(-1, dim).float()
    mean = flat.mean(dim=0)
    flat = flat - mean
    basis, kept = None, 1.0
    # A basis of its own has to pay: an image of few tokens is smaller as it is.
    if dim > rank and flat.numel() > rank * (len(flat) + dim):
        # Of standardised channels, as those who read them standardise: small ones count as much as large ones.
        spread = flat.square().mean(dim=0).sqrt().clamp(min=1e-12)
        flat = flat / spread
        covariance = (flat.T @ flat / len(flat)).double()
        axes, variances = principal_axes(covariance, rank)
        basis = axes.T.float() * spread
        kept = float(variances.sum() / covariance.diagonal().sum().clamp(min=1e-12))
        flat = flat @ axes.float()
    scale = flat.square().mean(dim=0).sqrt().clamp(min=1e-12)
    tokens = (flat / scale).half().reshape(rows, columns, -1).numpy()
    return TokenGrid(tokens, mean, scale, basis), kept


class FeatureCache:
    """A teacher that is asked once an image.

    Args:
        teacher: the extractor.
        root: the folder of the cache; `cache_root()` by default.
    """

    def __init__(self, teacher: Teacher, root: Path | None = None) -> None:
        self.teacher = teacher
        self.root = root or cache_root()

    def key(self, picture: Picture) -> str:
        """The name of an image's entry."""
        height, width = picture.size
        variant = (picture.variant,) if picture.variant else ()
        return content_key([picture.file], f"{width}x{height}", self.teacher.name, _VERSION, *variant)

    def _folder(self, key: str) -> Path:
        return self.root / "features" / key[:2] / key

    def __getitem__(self, picture: Picture) -> TokenGrid:
        """The features of one image, extracted if they are not there.

        Raises:
            SemfieldError: the entry is broken, or cannot be written.
        """
        folder = self._folder(self.key(picture))
        if not folder.is_dir():
            self._extract([(folder, picture)])
        return _read(folder)

    def extract(self, pictures: Sequence[Picture]) -> list[str]:
        """Extracts what is not there, with a progress bar, and returns the names of all entries.

        Raises:
            SemfieldError: entries cannot be written.
        """
        keys = [self.key(picture) for picture in pictures]
        absent = {key: picture for key, picture in zip(keys, pictures, strict=True) if not self._folder(key).is_dir()}
        todo = [(self._folder(key), picture) for key, picture in absent.items()]
        if todo:
            self._remove_stale()
        size = max(self.teacher.batch_size, 1)
        batches: list[list[tuple[Path, Picture]]] = []
        for item in todo:  # only pictures of one size can be a batch
            if not batches or len(batches[-1]) == size or batches[-1][0][1].size != item[1].size:
                batches.append([])
            batches[-1].append(item)
        # In another order in every process: two of them, such as the ranks of a training, share the work then.
        random.Random(os.getpid()).shuffle(batches)
        described = f"Features ({self.teacher.name.split('-')[0]})"
        for batch in track(batches, description=described, transient=True, disable=not batches):
            # Another process may have been here meanwhile.
            self._extract([item for item in batch if not item[0].is_dir()])
        return keys

    @torch.no_grad()
    def _extract(self, items: Sequence[tuple[Path, Picture]]) -> None:
        if not items:
            return
        grids = self.teacher.encode(torch.stack([picture.load().float() for _, picture in items]))
        for (folder, picture), features in zip(items, grids, strict=True):
            if not bool(features.isfinite().all()):
                raise SemfieldError(
                    f"The teacher {self.teacher.name} gives features of {picture.file} that are not finite."
                )
            self._write(folder, picture, features)

    def _write(self, folder: Path, picture: Picture, features: Float[Tensor, "h w C"]) -> None:
        grid, kept = compress(features)
        manifest = {
            "teacher": self.teacher.name,
            "image": picture.file.name,
            "pixels": list(picture.size),
            "tokens": list(grid.tokens.shape),
            "channels": features.shape[-1],
            "variance_kept": round(kept, 4),
        }
        axes = {"mean": grid.mean.numpy(), "scale": grid.scale.numpy()}
        if grid.basis is not None:
            # Rows of unit length in half precision; the spread of channels, which may differ a lot, apart from them.
            spread = grid.basis.square().sum(dim=0).sqrt().clamp(min=1e-12)
            axes |= {"basis": (grid.basis / spread).half().numpy(), "spread": spread.numpy()}
        temporary = self._drafts / uuid4().hex
        try:
            temporary.mkdir(parents=True)
            np.save(temporary / "tokens.npy", grid.tokens, allow_pickle=False)
            np.savez(temporary / "axes.npz", **axes)  # type: ignore[arg-type]
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, folder)
        except OSError as error:
            # Another process was faster: its entry says the same.
            if not folder.is_dir():
                raise SemfieldError(
                    f"The feature cache {folder} cannot be made ({reason(error)}); free some space, or set "
                    "SEMFIELD_CACHE to a folder that can be written."
                ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @property
    def _drafts(self) -> Path:
        return self.root / "features" / ".drafts"

    def _remove_stale(self) -> None:
        """Removes what killed processes left."""
        with suppress(OSError):
            for draft in self._drafts.iterdir():
                if time.time() - draft.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(draft, ignore_errors=True)

    def fitted(self, name: str, keys: Sequence[str], fit: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What was fitted to a set of entries, such as a PCA: read, or made by `fit` and written.

        Args:
            name: of what is fitted, with its arguments.
            keys: of the entries, in any order.
            fit: gives named arrays.
        """
        digest = hashlib.sha256("\0".join([name, _VERSION, *sorted(keys)]).encode()).hexdigest()[:24]
        path = self.root / "features" / "fitted" / f"{digest}.npz"
        if path.is_file():
            return read_npz(path, "fitted projection")
        arrays = fit()
        write_npz(path, **arrays)
        return arrays

    def moments(self, pictures: Sequence[Picture]) -> Moments:
        """Moments of the features of images, one image in memory at a time."""
        moments = Moments(self.teacher.dim)
        for picture in pictures:
            moments.add(self[picture].features())
        return moments


def scene_features(
    image_files: Sequence[Path],
    load_image: Callable[[int], Tensor],
    teacher: Teacher,
    max_dim: int | None = None,
    root: Path | None = None,
    common: bool = False,
    variants: Sequence[str] | None = None,
    white: bool = True,
) -> Float16[Tensor, "frames h w dim"]:
    """Standardised (and, if wider than `max_dim`, projected) features of all images of a scene.

    Args:
        image_files: the images, of one size, in the order of the result.
        load_image: index -> float RGB (height, width, 3) in [0, 1].
        teacher: the extractor.
        max_dim: the most channels to keep; principal components of these images beyond that.
        root: the folder of the cache; `cache_root()` by default.
        common: instead of principal components, which every scene has of its own, fixed random orthonormal directions:
            what is learned on them in one scene holds in another.
        variants: what `load_image` does to each of the images, "" for nothing; see `Picture`.
        white: principal components of unit variance each; otherwise only the first has that, and the others are as
            small beside it as they are in the features, so that a penalty on weights holds noise back.

    Returns:
        Zero mean, unit variance a channel over these images (but see `white`), float16; a memory map, of which only
        what is looked at is read.

    Raises:
        SemfieldError: the cache cannot be read or written.
    """
    cache = FeatureCache(teacher, root)
    height, width = load_image(0).shape[:2]
    pictures = [
        Picture(Path(file), (height, width), partial(load_image, index), variants[index] if variants else "")
        for index, file in enumerate(image_files)
    ]
    keys = cache.extract(pictures)

    def fit() -> dict[str, np.ndarray]:
        moments = cache.moments(pictures)
        mean, std = moments.standardisation()
        weight = torch.diag(1 / std)
        if max_dim is not None and teacher.dim > max_dim:
            if common:
                weight = weight @ common_directions(teacher.dim, max_dim)
            else:
                shares = teacher.shares.double()
                axes, variances = moments.principal_axes(max_dim, std / shares)
                weight = weight * shares @ axes / (variances if white else variances[:1]).clamp(min=1e-6).sqrt()
        return {"weight": weight.float().numpy(), "bias": -(mean @ weight).float().numpy()}

    kind = f"{'common' if common else 'whitened' if white else 'natural'}-{max_dim}-shared"
    projection = cache.fitted(kind, keys, fit)
    weight, bias = (torch.from_numpy(projection[name]) for name in ("weight", "bias"))
    return mapped_stack(
        content_key([], "features", kind, *keys),
        (cache[picture].affine(weight, bias).clamp(-1e3, 1e3).half().numpy() for picture in pictures),
        len(pictures),
        root,
    )


def common_directions(dim: int, count: int) -> Float[Tensor, "dim count"]:
    """Orthonormal columns, the same on every machine."""
    draws = np.random.default_rng(0).standard_normal((dim, count))
    axes, triangle = np.linalg.qr(draws)
    return torch.from_numpy(axes * np.sign(np.diag(triangle)))


def mapped_stack(key: str, arrays: Iterable[np.ndarray], count: int, root: Path | None = None) -> Tensor:
    """Arrays of one shape as one tensor [count, ...] that lies on disk; written one array at a time, once a key.

    Args:
        key: a name for the contents.
        arrays: read if there is no such entry; as many as `count`.
        count: of the arrays, at least one.
        root: the folder of the cache; `cache_root()` by default.

    Raises:
        SemfieldError: the cache cannot be written, or the entry is broken.
    """
    path = (root or cache_root()) / "features" / "stacks" / f"{key}.npy"
    if not path.is_file():
        iterator = iter(arrays)
        first = next(iterator)
        with atomic_path(path) as temporary:
            stack = np.lib.format.open_memmap(temporary, mode="w+", dtype=first.dtype, shape=(count, *first.shape))
            stack[0] = first
            for index, array in enumerate(iterator, start=1):
                stack[index] = array
            stack.flush()
            del stack
    try:
        # "c": what torch would write goes to memory, never to the file.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise SemfieldError(f"The feature cache {path} is broken; delete that file.") from error


def _read(folder: Path) -> TokenGrid:
    try:
        shape = read_json(folder / "manifest.json")["tokens"]
        tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
        axes = {name: torch.from_numpy(array).float() for name, array in read_npz(folder / "axes.npz").items()}
        if list(tokens.shape) != shape:
            raise ValueError("another shape")
        basis = axes["basis"] * axes["spread"] if "basis" in axes else None
        return TokenGrid(tokens, axes["mean"], axes["scale"], basis)
    except (OSError, ValueError, KeyError, TypeError, SemfieldError) as error:
        raise SemfieldError(f"The feature cache {folder} is broken; delete that folder.") from error
