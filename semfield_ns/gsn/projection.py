"""From samples in space to what the source views show there. Pure functions on tensors.

Pixels are the official code's: the centre of the first pixel is (0, 0). Nerfstudio's has it at (0.5, 0.5);
`semfield_ns.gsn.library.posed_views` converts intrinsics where cameras come in.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.gsn.grids import Table, sample_enlarged, sample_grid, table_of
from semfield_ns.rendering.constants import constant
from semfield_ns.rendering.projection import distort

_MIN_DEPTH = 1e-8
_FAR_AWAY = 1e6  # pixels: points near a camera's plane project towards infinity
_EPS = 1e-6


class Tables(NamedTuple):
    """What source views show as tables, for many look-ups."""

    images: Table
    maps: Table
    tokens: tuple[Table, ...]


class SourceViews(NamedTuple):
    """V posed images and what was computed from them, once, for any number of rays."""

    images: Float[Tensor, "V 3 H W"]
    """RGB in [0, 1]"""
    camera_to_world: Float[Tensor, "V 3 4"]
    """OpenGL axes (x right, y up, z back), normalised scene units"""
    intrinsics: Float[Tensor, "V 4"]
    """fx, fy, cx, cy in pixels, the centre of the first pixel at (0, 0)"""
    distortion: Float[Tensor, "V 6"] | None = None
    """OpenCV coefficients in Nerfstudio's order; None for pinholes"""
    maps: Float[Tensor, "V C h w"] | None = None
    """of the image encoder"""
    tokens: tuple[Float[Tensor, "V F ht wt"], ...] = ()
    """of each teacher, each token of unit norm"""
    tables: Tables | None = None
    """of images, maps and tokens, where whole pictures are rendered; see `tabled`"""


class Observations(NamedTuple):
    """What V source views show at R x S samples."""

    shown: Float[Tensor, "V R S shown"]
    """colour (3), image features (C), `ray_difference` (4) and 1, side by side"""
    hidden: Bool[Tensor, "V R S 1"]
    """the sample is behind the camera or outside of its image"""
    pixels: Float[Tensor, "V N 2"]
    """where the sample is in the image; the centre of the first pixel is (0, 0)"""

    @property
    def visible(self) -> Float[Tensor, "V N 1"]:
        """1 where a view sees a sample, else 0."""
        return (~self.hidden).flatten(1, 2).to(self.shown.dtype)

    @property
    def colors(self) -> Float[Tensor, "V R S 3"]:
        """Colours alone."""
        return self.shown[..., :3]

    @property
    def relative(self) -> Float[Tensor, "V R S 4"]:
        """`ray_difference` alone."""
        return self.shown[..., -5:-1]


def project(points: Float[Tensor, "N 3"], views: SourceViews) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
    """Pixel coordinates of points in every view, and whether they are in front of it and inside its image."""
    rotation, centre = views.camera_to_world[:, :, :3], views.camera_to_world[:, :, 3]
    flip = constant((1.0, -1.0, -1.0), points)
    # Rows of world-to-camera with OpenCV axes: x right, y down, z forwards.
    to_camera = rotation.transpose(1, 2) * flip[:, None]
    with torch.autocast(points.device.type, enabled=False):  # bfloat16 would be wrong by a third of a pixel
        offset = -(to_camera @ centre[..., None])
        local = torch.baddbmm(offset, to_camera, points.T.expand(len(centre), -1, -1))
    depth = local[:, 2]
    xy = (local[:, :2] / depth.clamp(min=_MIN_DEPTH)[:, None]).transpose(1, 2)
    if views.distortion is not None:
        xy = distort(xy.clamp(-2, 2), views.distortion[:, None].expand(*xy.shape[:2], 6))
    pixels = xy * views.intrinsics[:, None, :2] + views.intrinsics[:, None, 2:]
    pixels = pixels.clamp(-_FAR_AWAY, _FAR_AWAY)
    height, width = views.images.shape[-2:]
    last = constant((width - 1.0, height - 1.0), points)
    return pixels, (depth > 0) & ((pixels >= 0) & (pixels <= last)).all(dim=-1)


def ray_difference(
    points: Float[Tensor, "N 3"],
    target: Float[Tensor, "N 3"] | None,
    centres: Float[Tensor, "V 3"],
) -> Float[Tensor, "V N 4"]:
    """How the direction from a point to each source camera differs from that to the target camera.

    With the unit vectors t to the target and s to the source: unit(t - s), t . s. Without a target t is 0, and the
    result does not depend on where one looks from.
    """
    s = centres[:, None] - points
    s = s / (s.norm(dim=-1, keepdim=True) + _EPS)
    if target is None:
        return torch.cat([-s, torch.zeros_like(s[..., :1])], dim=-1)
    t = target - points
    t = t / (t.norm(dim=-1, keepdim=True) + _EPS)
    difference = t - s
    unit = difference / difference.norm(dim=-1, keepdim=True).clamp(min=_EPS)
    return torch.cat([unit, (t * s).sum(dim=-1, keepdim=True)], dim=-1)


def tabled(views: SourceViews) -> SourceViews:
    """Encoded views with tables of what they show, for a picture on a CPU; on a GPU `grid_sample` is as fast."""
    if views.images.is_cuda or views.maps is None:
        return views
    tokens = tuple(table_of(grid) for grid in views.tokens)
    return views._replace(tables=Tables(table_of(views.images), table_of(views.maps), tokens))


def observe(points: Float[Tensor, "R S 3"], origins: Float[Tensor, "R 3"], views: SourceViews) -> Observations:
    """What the views show at samples of rays.

    Args:
        points: the samples, normalised world coordinates.
        origins: centre of the target camera of each ray.
        views: with maps of the image encoder.
    """
    assert views.maps is not None, "source views have been encoded"
    rays, samples = points.shape[:2]
    flat = points.reshape(-1, 3)
    pixels, visible = project(flat, views)
    height, width = views.images.shape[-2:]
    target = origins[:, None].expand(rays, samples, 3).reshape(-1, 3)
    relative = ray_difference(flat, target, views.camera_to_world[:, :, 3])
    rows, columns = views.maps.shape[-2:]
    cells = pixels * constant(((columns - 1) / (width - 1), (rows - 1) / (height - 1)), pixels)
    tables = views.tables
    parts = [
        sample_grid(views.images, pixels, "zeros", tables.images if tables else None),
        sample_grid(views.maps, cells, "zeros", tables.maps if tables else None),
        relative,
        torch.ones_like(relative[..., :1]),
    ]
    shown = torch.cat(parts, dim=-1).view(len(visible), rays, samples, -1)
    return Observations(shown, ~visible.view(len(visible), rays, samples, 1), pixels)


def observe_tokens(
    pixels: Float[Tensor, "V N 2"], views: SourceViews, teacher: int = 0, through_image: bool = False
) -> Float[Tensor, "V N F"]:
    """A teacher's features at pixels of the views.

    Args:
        pixels: of `Observations`.
        views: with tokens.
        teacher: which one.
        through_image: as if tokens were enlarged to the image first, which is what the official code does; a little
            different near the borders of cells. False samples the token grid.
    """
    grid, table = views.tokens[teacher], views.tables.tokens[teacher] if views.tables else None
    if through_image:
        height, width = views.images.shape[-2:]
        return sample_enlarged(table or table_of(grid), pixels, (height, width))
    return sample_grid(grid, token_places(pixels, views.images, grid), "border", table)


def token_places(
    pixels: Float[Tensor, "*batch 2"], images: Float[Tensor, "V 3 H W"], tokens: Float[Tensor, "V F ht wt"]
) -> Float[Tensor, "*batch 2"]:
    """Where pixels of the images lie in the token grids, in cells."""
    size = constant((images.shape[-1], images.shape[-2]), pixels)
    cells = constant((tokens.shape[-1], tokens.shape[-2]), pixels)
    return (pixels + 0.5) / size * cells - 0.5
