"""What pictures of a scene say together of a view: shape from silhouettes, for scenes where no depth can be trusted.

An object that many pictures show is where they all see it. Each superpixel of a view is a ray; the ray meets the object
if there is a place on it that most pictures see as the object (Laurentini 1994, with scores instead of outlines). This
needs the cameras and the features of the pictures themselves, and nothing rendered.

The same pictures tell whether a rendered surface can be trusted: at a true place they look alike, elsewhere on the ray
they do so by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semfield_ns.segmentation.appearance import Appearance
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.views import FeatureView, Pictures

PLACES = 32
"""on each ray, evenly spaced in inverse depth"""
SHARPNESS = 3.0
"""exponent of the mean over pictures: a place that half of them see is outside of the object"""
CERTAIN, LEAST_CERTAIN = 0.95, 0.5
"""quantile of the rays of a view whose mean counts as certain, and the least that may: pictures do not always agree"""
SEEN_BY = 0.5
"""share of the pictures that must see a place for it to be judged"""
JUDGES = 8
"""nearest pictures that tell whether a surface is where they agree"""
ELSEWHERE = 16
"""places on a ray that the surface is compared with"""


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """The rays of a view's superpixels, and where the pictures see their places."""

    pictures: Pictures
    cells: Int[Tensor, "D R K"]
    """flat indices into the cells of all pictures; one more than there are where a picture does not see the place"""
    seen_by: Int[Tensor, "D R"]
    """how many pictures do"""
    trust: float
    """in the surface that was rendered, in [0, 1]; 0 if it is no better than any other place"""

    def scores(self, objects: Sequence[Appearance]) -> tuple[Float[Tensor, "O R"], Float[Tensor, "R"]]:
        """For each object the highest score of a place on each ray, in [0, 1]; and where that is known."""
        flat = self.pictures.features.flatten(0, 2)
        judged = self.seen_by >= max(2, SEEN_BY * self.cells.shape[-1])
        known = judged.any(dim=0)
        found = []
        for entry in objects:
            total = F.pad(entry.similarity(flat), (0, 1))[self.cells].sum(dim=-1)
            mean = torch.where(judged, total / self.seen_by.clamp(min=1), 0.0).amax(dim=0)
            found.append(sharpened(mean, known))
        return torch.stack(found), known.float()


def sharpened(means: Float[Tensor, "R"], known: Bool[Tensor, "R"]) -> Float[Tensor, "R"]:
    """Scores in [0, 1] from the means over pictures, whose level differs from object to object."""
    if not bool(known.any()):
        return means
    certain = torch.quantile(means[known], CERTAIN).clamp(min=LEAST_CERTAIN)
    return (means / certain).clamp(0, 1) ** SHARPNESS


def silhouettes(view: FeatureView, pictures: Pictures) -> Silhouettes:
    """Looks up the rays of a view's superpixels in the pictures.

    Args:
        view: its surface is known.
        pictures: of the same scene, which does not move.
    """
    surface = view.region_points
    pose = surface.new_tensor(view.camera.camera_to_world).view(3, 4)
    along = surface - pose[:, 3]
    rays = along / (-(along @ pose[:, 2])).clamp(min=1e-6)[:, None]
    depths = 1 / torch.linspace(1 / pictures.near, 1 / pictures.far, PLACES, device=surface.device)
    places = pose[:, 3] + depths[:, None, None] * rays
    cells, seen = _look(torch.cat([surface[None], places]), pictures)
    trust = _trust(view.camera, cells, seen, pictures)
    nowhere = pictures.features.shape[:3].numel()
    return Silhouettes(pictures, torch.where(seen, cells, nowhere)[1:], seen[1:].sum(dim=-1), trust)


def _look(points: Float[Tensor, "D R 3"], pictures: Pictures) -> tuple[Int[Tensor, "D R K"], Bool[Tensor, "D R K"]]:
    """Cells of the pictures that points fall into, and whether they are in the pictures."""
    height, width = pictures.features.shape[1:3]
    cells, seen = [], []
    for number, camera in enumerate(pictures.cameras):
        pixels, _, inside = camera.project(points)
        column = (pixels[..., 0] * (width / camera.width)).nan_to_num().long().clamp(0, width - 1)
        row = (pixels[..., 1] * (height / camera.height)).nan_to_num().long().clamp(0, height - 1)
        cells.append((number * height + row) * width + column)
        seen.append(inside)
    return torch.stack(cells, dim=-1), torch.stack(seen, dim=-1)


def _trust(camera: ViewCamera, cells: Tensor, seen: Tensor, pictures: Pictures) -> float:
    """How much better the nearest pictures agree on the surface, which comes first, than elsewhere on its rays.

    0 where it is no better than the mean of other places, 1 where it is always the best, or where nobody can tell.
    """
    apart = [float(((other.centre - camera.centre) ** 2).sum()) for other in pictures.cameras]
    nearest = sorted(range(len(apart)), key=apart.__getitem__)[:JUDGES]
    few = torch.linspace(1, len(cells) - 1, ELSEWHERE).round().long()
    rows = torch.cat([few.new_zeros(1), few]).to(cells.device)
    cells, seen = cells[rows][..., nearest], seen[rows][..., nearest]
    count = seen.sum(dim=-1)
    together = (pictures.features.flatten(0, 2)[cells] * seen[..., None]).sum(dim=-2).square().sum(dim=-1)
    # The mean cosine over pairs of pictures.
    agreement = (together - count) / (count * (count - 1)).clamp(min=1)
    compared = (count >= 2) & (count[:1] >= 2)
    of = compared[1:].sum(dim=0)
    usual = torch.where(compared, agreement, 0.0)[1:].sum(dim=0) / of.clamp(min=1)
    best = torch.where(compared, agreement, -1.0).amax(dim=0)
    judged = of >= ELSEWHERE / 4
    gain, possible = (agreement[0] - usual)[judged], (best - usual)[judged]
    if not bool((possible > 0).any()):
        return 1.0
    # Rays on which the pictures agree everywhere, as on a bare wall, say little: all count by what there is to gain.
    share = min(max(float((gain * possible).sum() / possible.square().sum()), 0.0), 1.0)
    # As the odds of two that are equally likely at a half.
    return share**2 / (share**2 + (1 - share) ** 2)
