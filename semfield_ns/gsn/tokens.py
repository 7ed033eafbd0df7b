"""The teacher's tokens: one projection for all scenes, unit norm, one small grid an image, kept on disk and in memory.

A projection that is fitted a scene (the official code) gives axes that differ from scene to scene; a network that is
to meet new scenes needs one that stays. It is fitted on training images only.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16
from torch import Tensor, nn

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.library import PosedScene, SceneLibrary
from semfield_ns.gsn.memory import BoundedCache
from semfield_ns.io import read_npy, write_npy
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.cache import cache_root, content_key

TeacherName = Literal["classical", "resnet18"]

_TEACHER_DIMS: dict[TeacherName, int] = {"classical": 39, "resnet18": 256}
_TOKENS_AN_IMAGE = 2000


def teacher_dim(name: TeacherName) -> int:
    """Channels of a teacher, without building it."""
    return _TEACHER_DIMS[name]


def build_teacher(name: TeacherName, stride: int, device: torch.device | str) -> Teacher:
    """The teacher of a name.

    Raises:
        SemfieldError: its weights cannot be had.
    """
    from semfield_ns.teachers.classical import ClassicalTeacher
    from semfield_ns.teachers.resnet import ResNetTeacher

    return ClassicalTeacher(stride) if name == "classical" else ResNetTeacher(device=device)


class TokenProjection(nn.Module):
    """Standardises a teacher's channels and keeps their main directions; then every token gets unit norm.

    Its buffers are part of checkpoints: a scene met later gets the same axes.

    Args:
        teacher: channels of the teacher.
        dim: channels kept; of a narrower teacher all of them, followed by zeros.
    """

    mean: Tensor
    std: Tensor
    basis: Tensor
    fitted: Tensor

    def __init__(self, teacher: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(teacher))
        self.register_buffer("std", torch.ones(teacher))
        self.register_buffer("basis", torch.zeros(teacher, dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def fit(self, features: Float[Tensor, "N teacher"]) -> None:
        """Sets the projection from samples."""
        x = features.double().cpu()
        mean, std = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
        x = (x - mean) / std
        _, vectors = torch.linalg.eigh(x.T @ x)
        basis = vectors.flip(-1)[:, : self.basis.shape[1]]
        # An eigenvector's sign is arbitrary: its largest entry is made positive, so that every machine agrees.
        basis = basis * torch.sign(basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)))
        basis = F.pad(basis, (0, self.basis.shape[1] - basis.shape[1]))
        for buffer, value in ((self.mean, mean), (self.std, std), (self.basis, basis)):
            buffer.copy_(value)
        self.fitted.fill_(True)

    def forward(self, features: Float[Tensor, "*batch teacher"]) -> Float[Tensor, "*batch dim"]:
        """Tokens of unit norm."""
        device = self.mean.device
        return F.normalize(((features.to(device).float() - self.mean) / self.std) @ self.basis, dim=-1)

    def digest(self) -> str:
        """A name for what the projection does, for cache keys."""
        values = torch.cat([self.mean, self.std, self.basis.flatten()]).cpu().numpy()
        return hashlib.sha256(values.tobytes()).hexdigest()[:16]


class TokenStore:
    """Token grids of the images of a library, computed once.

    Memory: at most `budget` bytes of grids. Disk: half-precision .npy files named by the image's content, the teacher
    and the projection.

    Args:
        library: the scenes.
        teacher: name of the teacher, which is built when it is needed first.
        stride: pixels a token, where the teacher lets one choose.
        projection: for all scenes.
        per_scene: fit a projection on the training images of every scene instead (the official code).
        budget: bytes.
        device: where grids are kept.
    """

    def __init__(
        self,
        library: SceneLibrary,
        teacher: TeacherName,
        stride: int,
        projection: TokenProjection,
        per_scene: bool,
        budget: int,
        device: torch.device | str,
    ) -> None:
        self.library, self.projection, self.per_scene = library, projection, per_scene
        self.name, self.stride, self.device = teacher, stride, device
        self.grids = BoundedCache(budget)
        self._teacher: Teacher | None = None
        self._digest: str | None = None
        self._of_scenes: dict[int, TokenProjection] = {}

    @property
    def teacher(self) -> Teacher:
        """The extractor."""
        if self._teacher is None:
            self._teacher = build_teacher(self.name, self.stride, self.device)
            if self._teacher.dim != teacher_dim(self.name):
                raise SemfieldError(
                    f"The teacher {self.name} has {self._teacher.dim} channels here, not {teacher_dim(self.name)}."
                )
        return self._teacher

    def forget(self) -> None:
        """To be called when the projection has changed."""
        self._digest = None
        self.grids.clear()

    @torch.no_grad()
    def describe(self, scene: int, index: int) -> Float[Tensor, "h w teacher"]:
        """The teacher's own features of an image."""
        return self.teacher.encode(self.library.image(scene, index)[None].float() / 255)[0]

    def fit(self, max_images: int, seed: int = 0) -> Float[Tensor, "N dim"]:
        """Fits the shared projection on training images spread over all scenes; returns the tokens of its samples."""
        pairs = [(s, i) for s, scene in enumerate(self.library.scenes) for i in scene.train]
        samples = self._samples(pairs, max_images, seed)
        self.projection.fit(samples)
        self.forget()
        return self.projection(samples)

    def _samples(self, pairs: Sequence[tuple[int, int]], max_images: int, seed: int) -> Float[Tensor, "N teacher"]:
        generator = torch.Generator().manual_seed(seed)
        # Every scene before any scene twice: with few images, they spread over many scenes.
        order = torch.randperm(len(pairs), generator=generator).tolist()
        seen: dict[int, int] = {}
        ranked = []
        for place in order:
            scene = pairs[place][0]
            ranked.append((seen.get(scene, 0), pairs[place]))
            seen[scene] = seen.get(scene, 0) + 1
        ranked.sort(key=lambda item: item[0])
        samples = []
        for _, (scene, index) in ranked[:max_images]:
            flat = self.describe(scene, index).flatten(0, 1)
            samples.append(flat[torch.randperm(len(flat), generator=generator)[:_TOKENS_AN_IMAGE]].float().cpu())
        return torch.cat(samples)

    def projection_of(self, scene: int) -> tuple[TokenProjection, str]:
        """The projection for a scene's tokens, and its name."""
        if not self.per_scene:
            self._digest = self._digest or self.projection.digest()
            return self.projection, self._digest
        if scene not in self._of_scenes:
            teacher, dim = self.projection.basis.shape
            own = TokenProjection(teacher, dim).to(self.projection.basis.device)
            own.fit(self._samples([(scene, i) for i in self.library.scenes[scene].train], 32, 0))
            self._of_scenes[scene] = own
        return self._of_scenes[scene], self._of_scenes[scene].digest()

    def grid(self, scene: int, index: int) -> Float16[Tensor, "dim h w"]:
        """The tokens of one image."""
        return self.grids.get((scene, index), lambda: self._load(scene, index).to(self.device))

    def stack(self, scene: int, indices: Sequence[int]) -> Float[Tensor, "V dim h w"]:
        """The tokens of several images of one scene."""
        return torch.stack([self.grid(scene, index) for index in indices]).float()

    def _load(self, scene: int, index: int) -> Tensor:
        projection, digest = self.projection_of(scene)
        path = token_file(self.library.scenes[scene], index, self.name, self.stride, digest)
        if path.is_file():
            return torch.from_numpy(read_npy(path, "teacher tokens"))
        grid = projection(self.describe(scene, index)).permute(2, 0, 1).half().cpu().contiguous()
        write_npy(path, grid.numpy())
        return grid


def token_file(scene: PosedScene, index: int, teacher: str, stride: int, digest: str) -> Path:
    """Where the tokens of an image are cached."""
    frame = scene.frames[index]
    key = content_key([frame.image_path], f"{frame.width}x{frame.height}", teacher, str(stride), digest)
    return cache_root() / "tokens" / key[:2] / f"{key}.npy"
