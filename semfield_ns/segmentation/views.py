"""A view with features, and who can render one. Segmentation knows nothing else of models."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.regions import Regions, find_regions

if TYPE_CHECKING:
    from semfield_ns.segmentation.clouds import Cloud

SMALLEST_SPACING = 1e-12
LOGITS_SHARE = 0.5
"""of semantics in |df|^2, where a model has both semantics and features"""
MAX_PICTURES, PICTURE_CELLS = 48, 40
"""how many pictures are asked what a view shows, and cells of their longer side"""


@dataclass(frozen=True, eq=False)
class FeatureView:
    """What a camera sees: float32 tensors on one device. Superpixels are found at first use, and kept."""

    camera: ViewCamera
    rgb: Float[Tensor, "H W 3"]
    """in [0, 1]"""
    features: Float[Tensor, "H W F"]
    """of unit norm"""
    points: Float[Tensor, "H W 3"] | None
    """the visible surface in world coordinates, at the camera's time; None where no depth is known"""
    moving: Bool[Tensor, "H W"] | None = None
    """what moves; None for static scenes"""
    photo: bool = False
    """whether colours and features are those of a picture that the camera took"""

    @cached_property
    def regions(self) -> Regions:
        """Superpixels."""
        return find_regions(self.rgb)

    @cached_property
    def region_features(self) -> Float[Tensor, "R F"]:
        """Mean feature of each superpixel, of unit norm."""
        return F.normalize(self.regions.mean(self.features), dim=-1)

    @cached_property
    def region_points(self) -> Float[Tensor, "R 3"]:
        """A point on the surface of each superpixel: the median of a few samples, so that no point hangs in the air."""
        assert self.points is not None, "asked of views with known surface only"
        return self.points.flatten(0, 1)[self.regions.samples].median(dim=1).values

    @cached_property
    def region_spacing(self) -> Float[Tensor, ""]:
        """Distance in space between superpixels that touch: the median, above 0 also where nothing is seen."""
        edges = self.regions.edges
        apart = (self.region_points[edges[:, 0]] - self.region_points[edges[:, 1]]).norm(dim=1)
        return apart.median().clamp(min=SMALLEST_SPACING)

    @cached_property
    def depth(self) -> Float[Tensor, "H W"]:
        """Of the surface, along the optical axis, in world units."""
        assert self.points is not None, "asked of views with known surface only"
        pose = self.points.new_tensor(self.camera.camera_to_world).view(3, 4)
        return -(self.points - pose[:, 3]) @ pose[:, 2]

    def prepare(self) -> "FeatureView":
        """Computes what is computed at first use, so that the first stroke does not wait for it."""
        _ = self.region_features
        if self.points is not None:
            _ = self.region_spacing
        return self


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures that a static scene was taken in, or some of them, as small grids of features."""

    cameras: Sequence[ViewCamera]
    """K of them"""
    features: Float[Tensor, "K h w F"]
    """of the pictures themselves, of unit norm"""
    near: float
    """depths between which there is anything, along the optical axes"""
    far: float


def asked_pictures(count: int) -> list[int]:
    """Numbers of those of a scene's pictures that are asked: at most `MAX_PICTURES`.

    Evenly over the scene: what is on the other side of an object matters as well.
    """
    chosen = min(count, MAX_PICTURES)
    return [round(i * (count - 1) / max(chosen - 1, 1)) for i in range(chosen)]


def picture_cells(camera: ViewCamera) -> tuple[int, int]:
    """Height and width of the grid of features of a camera's picture."""
    side = PICTURE_CELLS / max(camera.width, camera.height)
    return max(2, round(camera.height * side)), max(2, round(camera.width * side))


class ViewProvider(Protocol):
    """Renders views with features."""

    def version(self) -> Hashable:
        """Changes whenever the same camera would see something else (weights, edits)."""

    def render_view(self, camera: ViewCamera) -> FeatureView:
        """What a camera sees.

        Raises:
            SemfieldError: the model has no features.
        """

    def view_of(self, raw: Mapping[str, Tensor], cameras: Cameras) -> FeatureView:
        """The same, from what the model rendered for that camera already."""

    def photo_of(self, view: FeatureView) -> FeatureView:
        """A view with the features of the photo that its camera took; the view itself where none did."""

    def pictures(self) -> Pictures | None:
        """The pictures of the scene, where their features are known and nothing moves."""

    def cloud(self) -> "Cloud | None":
        """The Gaussians of a static scene that strokes select among, rather than pixels of views; None without any."""

    def trace(self, points: Float[Tensor, "N 3"], time: float | None, to: float | None) -> Float[Tensor, "N 3"]:
        """Where surface points of one time are at another time. Static scenes give back the points."""

    def text_features(self, texts: list[str]) -> Float[Tensor, "N F"]:
        """Words in the space of the features, of unit norm.

        Raises:
            SemfieldError: the features are not of a teacher that supports text queries.
        """


def view_of_outputs(raw: Mapping[str, Tensor], cameras: Cameras) -> FeatureView:
    """The view that a model's raw outputs for one camera amount to.

    Args:
        raw: [H, W, channels] each: "rgb", "features" or "logits", "surface" or "depth".
        cameras: the camera that looked, of shape [1].

    Raises:
        SemfieldError: there are no features and no logits.
    """
    parts = []
    if "features" in raw:
        parts.append(F.normalize(raw["features"].float(), dim=-1))
    if "logits" in raw:
        # The square roots of probabilities have unit norm, and their distance is Hellinger's.
        parts.append(raw["logits"].float().softmax(dim=-1).sqrt())
    if not parts:
        raise SemfieldError("This run has no features yet: train it into its second stage, or attach one that was.")
    if len(parts) == 2:
        parts = [parts[0] * (1 - LOGITS_SHARE) ** 0.5, parts[1] * LOGITS_SHARE**0.5]
    points = surface_points(raw, cameras)
    moving = raw["dynamic_weight"][..., 0] > 0.5 if "dynamic_weight" in raw else None
    rgb = raw["rgb"].float().clamp(0, 1)
    return FeatureView(ViewCamera.of(cameras), rgb, torch.cat(parts, dim=-1), points, moving)


def surface_points(
    raw: Mapping[str, Tensor], cameras: Cameras, pixels: Int[Tensor, "*N 2"] | None = None
) -> Float[Tensor, "*N 3"]:
    """World points that a render shows.

    Args:
        raw: "surface", or "depth" along the rays, [H, W, channels].
        cameras: the camera that looked, of shape [1].
        pixels: (row, column) of those asked for; by default all, [H, W, 3].
    """
    chosen = ... if pixels is None else pixels.unbind(dim=-1)
    if "surface" in raw:
        return raw["surface"][chosen].float()
    depth = raw["depth"]
    coords = None if pixels is None else pixels.to(depth.device) + 0.5
    bundle = cameras.to(depth.device).generate_rays(camera_indices=0, coords=coords)
    return (bundle.origins + bundle.directions * depth[chosen]).float()
