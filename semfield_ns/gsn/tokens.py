"""The teacher's tokens: one projection for all scenes, unit norm, one small grid an image, kept in memory.

A projection that is fitted a scene (the official code) gives axes that differ from scene to scene; a network that is
to meet new scenes needs one that stays. It is fitted on training images only.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16
from torch import Tensor, nn

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.library import SceneLibrary
from semfield_ns.gsn.memory import BoundedCache
from semfield_ns.io import image_size, read_rgb
from semfield_ns.rendering.rays import sent
from semfield_ns.teachers.base import Teacher, TextTeacher
from semfield_ns.teachers.cache import FeatureCache, Picture, TokenGrid
from semfield_ns.teachers.lite import packaged_weights
from semfield_ns.teachers.pca import Moments
from semfield_ns.teachers.registry import build_teacher, supports_text, teacher_dim

MATCHING_DIM, MATCHING_SIDE = 64, 480
"""channels of the features that strokes are compared by, and px of the pictures that they are taken from"""

_SCENE_IMAGES = 32  # that a projection of one scene is fitted on, at most
_COLOUR_TOKENS = 500  # an image, that the colours of features are fitted on


def matching_teacher(teacher: str) -> str:
    """The teacher by whose features of pictures strokes find things, for a model that was distilled from a teacher.

    The classical one knows colours and no things, and the pretrained one that needs no hub sees few colours: they are
    joined, where it is installed.
    """
    if teacher not in ("classical", "lite"):
        return teacher
    try:
        packaged_weights()
    except SemfieldError:
        return "classical"
    return "lite-fine+classical"


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
        self._host: tuple[int, tuple[Tensor, Tensor, Tensor]] | None = None

    @torch.no_grad()
    def fit(self, moments: Moments, shares: Tensor | None = None, standardise: bool = True) -> None:
        """Sets the projection from the moments of features.

        Args:
            moments: of the features of training images.
            shares: [teacher], what standardised channels are multiplied by (`Teacher.shares`); 1 by default.
            standardise: give each channel unit variance first; the official code does not.
        """
        mean, std = moments.standardisation()
        std = std if standardise else torch.ones_like(std)
        std = std if shares is None else std / shares
        basis, _ = moments.principal_axes(self.basis.shape[1], std)
        self.set(mean, std, F.pad(basis, (0, self.basis.shape[1] - basis.shape[1])))

    def set(
        self, mean: Float[Tensor, "teacher"], std: Float[Tensor, "teacher"], basis: Float[Tensor, "teacher dim"]
    ) -> None:
        """Sets the projection."""
        for buffer, value in ((self.mean, mean), (self.std, std), (self.basis, basis)):
            buffer.copy_(value)
        self.fitted.fill_(True)

    def forward(self, features: Float[Tensor, "*batch teacher"]) -> Float[Tensor, "*batch dim"]:
        """Tokens of unit norm."""
        features = features.to(self.mean.device).float()
        return F.normalize(((features - self.mean) / self.std) @ self.basis, dim=-1)

    def of_grid(self, grid: TokenGrid) -> Float[Tensor, "h w dim"]:
        """Tokens of a cached grid, on the CPU."""
        if self._host is None or self._host[0] != self.mean._version:
            self._host = self.mean._version, (self.mean.cpu(), self.std.cpu(), self.basis.cpu())
        mean, std, basis = self._host[1]
        weight = basis / std[:, None]
        return F.normalize(grid.affine(weight, -mean @ weight), dim=-1)


class TokenStore:
    """Token grids of the images of a library, computed once.

    Memory: at most `budget` bytes of grids. Disk: see `teachers.cache`; the projection is applied when a grid is read.

    Args:
        library: the scenes.
        teacher: name of the teacher, which is built when it is needed first.
        stride: pixels a token, where the teacher lets one choose.
        projection: for all scenes.
        per_scene: fit a projection on the training images of every scene instead (the official code).
        budget: bytes.
        device: where grids are kept.
        balanced: standardise the channels of scenes, with the same share for each map of the teacher (unlike the
            official code).
        longest_side: px at which pictures are described, at most; as the library has them by default.
    """

    def __init__(
        self,
        library: SceneLibrary,
        teacher: str,
        stride: int,
        projection: TokenProjection,
        per_scene: bool,
        budget: int,
        device: torch.device | str,
        balanced: bool = False,
        longest_side: int | None = None,
    ) -> None:
        self.library, self.projection, self.per_scene = library, projection, per_scene
        self.balanced, self.longest_side = balanced, longest_side
        self.name, self.stride, self.device = teacher, stride, device
        self.grids = BoundedCache(budget)
        self._of_scenes: dict[int, TokenProjection] = {}

    @cached_property
    def cache(self) -> FeatureCache:
        """The teacher's own features, on disk.

        Raises:
            SemfieldError: the weights of the teacher are not found.
        """
        teacher, channels = build_teacher(self.name, self.stride, self.device), self.projection.basis.shape[0]
        if teacher.dim != channels:
            raise SemfieldError(f"The teacher {self.name} has {teacher.dim} channels here, not {channels}.")
        return FeatureCache(teacher)

    @property
    def teacher(self) -> Teacher:
        """The extractor."""
        return self.cache.teacher

    def forget(self) -> None:
        """To be called when the projection has changed."""
        self.grids.clear()

    def picture(self, scene: int, index: int) -> Picture:
        """An image, as the cache wants it."""
        frame = self.library.scenes[scene].frames[index]
        if self.longest_side is None:
            return Picture(frame.image_path, frame.size, lambda: self.library.image(scene, index).float() / 255)
        what = f"{frame.where}, image"
        height, width = image_size(frame.image_path, what)
        factor = min(1.0, self.longest_side / max(height, width))
        size = max(1, round(factor * height)), max(1, round(factor * width))
        return Picture(
            frame.image_path, size, lambda: torch.from_numpy(read_rgb(frame.image_path, what, size)).float() / 255
        )

    def describe(self, scene: int, index: int) -> Float[Tensor, "h w teacher"]:
        """The teacher's own features of an image."""
        return self.cache[self.picture(scene, index)].features()

    @property
    def knows_words(self) -> bool:
        """Whether the teacher supports text queries, as far as its name tells: its weights may be missing."""
        return supports_text(self.name)

    def words(self, scene: int, texts: list[str]) -> Float[Tensor, "N dim"]:
        """Words through the projection that a scene's tokens go through.

        Raises:
            SemfieldError: the teacher does not support text queries.
        """
        if not isinstance(self.teacher, TextTeacher):
            raise SemfieldError(
                f"The features of this run are those of the teacher '{self.name}', which does not support text "
                "queries: they need a run with the teacher 'clip'."
            )
        return self.projection_of(scene)(self.teacher.encode_text(texts))

    def extract(self, pairs: Sequence[tuple[int, int]]) -> list[str]:
        """Extracts the features of images, (scene, index), that are not on disk; returns the names of their entries."""
        return self.cache.extract([self.picture(*pair) for pair in pairs])

    def extract_training(self) -> None:
        """Extracts the features of all training images that are not on disk."""
        self.extract([(s, i) for s, scene in enumerate(self.library.scenes) for i in scene.train])

    def fit(self, max_images: int, seed: int = 0) -> Float[Tensor, "N dim"]:
        """Fits the shared projection on training images spread over all scenes; returns some of their tokens."""
        pairs = self._spread(max_images, seed)
        self._fit(self.projection, pairs, standardise=True)
        self.forget()
        tokens = []
        for pair in pairs:
            flat = self.projection_of(pair[0]).of_grid(self.cache[self.picture(*pair)]).flatten(0, 1)
            tokens.append(flat[:: -(-len(flat) // _COLOUR_TOKENS)])
        return torch.cat(tokens)

    def _spread(self, max_images: int, seed: int) -> list[tuple[int, int]]:
        """Training images, every scene once before any scene twice."""
        pairs = [(s, i) for s, scene in enumerate(self.library.scenes) for i in scene.train]
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
        seen: dict[int, int] = {}
        ranked = []
        for place in order:
            scene = pairs[place][0]
            ranked.append((seen.get(scene, 0), pairs[place]))
            seen[scene] = seen.get(scene, 0) + 1
        ranked.sort(key=lambda item: item[0])
        return [pair for _, pair in ranked[:max_images]]

    def _fit(self, projection: TokenProjection, pairs: Sequence[tuple[int, int]], standardise: bool) -> None:
        keys = self.extract(pairs)
        shares = self.teacher.shares if self.balanced else None

        def fit() -> dict[str, np.ndarray]:
            projection.fit(self.cache.moments([self.picture(*pair) for pair in pairs]), shares, standardise)
            buffers = {"mean": projection.mean, "std": projection.std, "basis": projection.basis}
            return {name: value.cpu().numpy() for name, value in buffers.items()}

        name = f"axes-{projection.basis.shape[1]}-{standardise}" + "-balanced" * self.balanced
        arrays = self.cache.fitted(name, keys, fit)
        projection.set(**{name: torch.from_numpy(value) for name, value in arrays.items()})

    def projection_of(self, scene: int) -> TokenProjection:
        """The projection for a scene's tokens; its own is fitted on its training images, as the official code does."""
        if not self.per_scene:
            return self.projection
        if scene not in self._of_scenes:
            own = TokenProjection(*self.projection.basis.shape)
            train = self.library.scenes[scene].train
            few = train[:: -(-len(train) // _SCENE_IMAGES)]
            self._fit(own, [(scene, index) for index in few], standardise=self.balanced)
            self._of_scenes[scene] = own
        return self._of_scenes[scene]

    def grid(self, scene: int, index: int) -> Float16[Tensor, "dim h w"]:
        """The tokens of one image."""
        return self.grids.get((scene, index), lambda: self._load(scene, index))

    def stack(self, scene: int, indices: Sequence[int]) -> Float[Tensor, "V dim h w"]:
        """The tokens of several images of one scene."""
        # Each to float32 before they are joined: autocast knows no way to join float16.
        return torch.stack([self.grid(scene, index).float() for index in indices])

    def upright(self, scene: int, index: int, size: tuple[int, int]) -> Float[Tensor, "H W dim"]:
        """The tokens of a whole image at another size, interpolated."""
        grid = self.stack(scene, [index])
        return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)

    def _load(self, scene: int, index: int) -> Tensor:
        tokens = self.projection_of(scene).of_grid(self.cache[self.picture(scene, index)])
        return sent(tokens.permute(2, 0, 1).half().contiguous(), self.device)


def matching_tokens(
    library: SceneLibrary, teacher: str, stride: int, budget: int, device: torch.device | str
) -> TokenStore:
    """Features of pictures that strokes are compared by: principal components of each scene's own features.

    Args:
        library: the scenes.
        teacher: name of the teacher.
        stride: pixels a token of the classical teacher.
        budget: bytes.
        device: where grids are kept.
    """
    projection = TokenProjection(teacher_dim(teacher), MATCHING_DIM)
    return TokenStore(library, teacher, stride, projection, True, budget, device, True, MATCHING_SIDE)
