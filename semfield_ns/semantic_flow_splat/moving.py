"""Gaussians that move: still ones have one position, moving ones a position and an opacity at every time step."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semfield_ns.gaussians.harmonics import CONSTANT
from semfield_ns.gaussians.splats import Splats
from semfield_ns.semantic_flow_splat.start import Start

UNSEEN = -1.5
"""added to the logit of the opacity, at first, where the flow does not lead"""


def logit(values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The inverse of the sigmoid, of values that are kept off 0 and 1."""
    return torch.logit(values, eps=1e-4)


class MovingGaussians(nn.Module):
    """N Gaussians of a scene with T time steps: first the S that stand still, then the M that move.

    Args:
        num_steps: T.
        num_classes: C, logits of each Gaussian.
        degree: of the spherical harmonics of colours.
        feature_dim: F, channels of image features.
        num_shades: K, times, spread over the video, between which brightness changes evenly; 0 for one that stays.
    """

    NAMES = (
        "still",
        "tracks",
        "presence",
        "opacities",
        "scales",
        "quaternions",
        "colors",
        "details",
        "shades",
        "logits",
    )

    still: nn.Parameter
    """[S, 3] positions, world"""
    tracks: nn.Parameter
    """[M, T, 3] positions at all time steps, world"""
    presence: nn.Parameter
    """[M, T] added to the logits of opacities"""
    opacities: nn.Parameter
    """[N] logits"""
    scales: nn.Parameter
    """[N, 3] logarithms of standard deviations, world units"""
    quaternions: nn.Parameter
    """[N, 4] w first"""
    colors: nn.Parameter
    """[N, 3] spherical harmonic of degree 0"""
    details: nn.Parameter
    """[N, terms - 1, 3] the higher ones"""
    shades: nn.Parameter
    """[N, K] logarithms of brightness over time: shadows that pass, sides that turn to the light"""
    logits: nn.Parameter
    """[N, C] of classes, learned freely"""
    known: Tensor
    """[N, C] logits that labels and image features along the trajectory give"""
    features: Tensor
    """[N, F] mean image feature of the pixels that show the Gaussian"""

    def __init__(self, num_steps: int, num_classes: int, degree: int, feature_dim: int, num_shades: int = 0) -> None:
        super().__init__()
        self.num_shades = num_shades
        self.num_steps, self.num_classes, self.degree, self.feature_dim = num_steps, num_classes, degree, feature_dim
        for name, shape in self._shapes(0, 0).items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))
        self.register_buffer("known", torch.zeros(0, num_classes))
        self.register_buffer("features", torch.zeros(0, feature_dim))

    def _shapes(self, still: int, moving: int) -> dict[str, tuple[int, ...]]:
        n = still + moving
        return {
            "still": (still, 3),
            "tracks": (moving, self.num_steps, 3),
            "presence": (moving, self.num_steps),
            "opacities": (n,),
            "scales": (n, 3),
            "quaternions": (n, 4),
            "colors": (n, 3),
            "details": (n, (self.degree + 1) ** 2 - 1, 3),
            "shades": (n, self.num_shades),
            "logits": (n, self.num_classes),
        }

    def __len__(self) -> int:
        return len(self.opacities)

    @property
    def num_still(self) -> int:
        """S"""
        return len(self.still)

    @torch.no_grad()
    def begin(self, start: Start, opacity: float = 0.7) -> "MovingGaussians":
        """Sets everything from a start."""
        device = self.still.device
        count = len(start.colors)
        values = {
            "still": start.still,
            "tracks": start.tracks,
            "presence": torch.where(start.seen, 0.0, UNSEEN),
            "opacities": logit(torch.full((count,), opacity)),
            "scales": (0.9 * start.spacing).clamp(min=1e-6).log()[:, None].expand(-1, 3),
            "quaternions": torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4),
            "colors": (start.colors - 0.5) / CONSTANT,
        }
        for name, shape in self._shapes(len(start.still), len(start.tracks)).items():
            value = values.get(name, torch.zeros(shape))
            getattr(self, name).data = value.to(device, torch.float32).clone().contiguous()
        self.known = torch.zeros(count, self.num_classes, device=device)
        self.features = torch.zeros(count, self.feature_dim, device=device)
        return self

    @torch.no_grad()
    def fill(self, count: int, parts: Iterable[Splats], world: Float[Tensor, "4 4"]) -> "MovingGaussians":
        """Sets everything to still Gaussians that somebody else trained; features are zero.

        Args:
            count: of all of them.
            parts: some of them after another, in their own world, with harmonics of this degree.
            world: from their world to this one: a rotation, a scale and a shift; double.
        """
        device = self.still.device
        for name, shape in self._shapes(count, 0).items():
            getattr(self, name).data = torch.zeros(shape, device=device)
        factor = float(torch.linalg.det(world[:3, :3]) ** (1 / 3))
        rotation, shift = (world[:3, :3] / factor).float(), world[:3, 3].float()
        done = 0
        for part in parts:
            rows = slice(done, done + len(part.gaussians))
            moved = part.transformed(rotation, factor, shift)
            values = moved.gaussians
            self.still.data[rows] = values.means.to(device)
            self.opacities.data[rows] = torch.logit(values.opacities, eps=1e-6).to(device)
            self.scales.data[rows] = values.scales.log().to(device)
            self.quaternions.data[rows] = values.quaternions.to(device)
            self.colors.data[rows] = moved.coefficients[:, 0].to(device)
            self.details.data[rows] = moved.coefficients[:, 1:].to(device)
            done = rows.stop
        self.known = torch.zeros(count, self.num_classes, device=device)
        self.features = torch.zeros(count, self.feature_dim, device=device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes the number of Gaussians from the checkpoint; everything else has to fit."""
        for name in (*self.NAMES, "known", "features"):
            value, own = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(value, Tensor) and value.shape[1:] == own.shape[1:]:
                # The same parameter, as optimisers know it.
                own.data = torch.empty(value.shape, dtype=own.dtype, device=own.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def means_at(self, step: float) -> Float[Tensor, "N 3"]:
        """Positions at a time step or between two."""
        return torch.cat([self.still, between(self.tracks, step)])

    def opacities_at(self, step: float) -> Float[Tensor, "N"]:
        """Opacities in 0..1 at a time step or between two."""
        added = torch.cat([self.opacities.new_zeros(self.num_still), between(self.presence, step)])
        return torch.sigmoid(self.opacities + added)

    def class_logits(self) -> Float[Tensor, "N C"]:
        """Of classes: what is known, and what is learned on top of it."""
        return self.known + self.logits

    def brightness_at(self, step: float) -> Float[Tensor, "N"]:
        """Of colours at a time step or between two, relative to `colors`."""
        if not self.num_shades:
            return self.opacities.new_ones(len(self))
        return between(self.shades, step * (self.num_shades - 1) / max(self.num_steps - 1, 1)).exp()

    def coefficients_at(self, step: float, light: Float[Tensor, "N"] | None = None) -> Float[Tensor, "N terms 3"]:
        """Spherical harmonics of colours at a time step or between two.

        Args:
            step: the time.
            light: by which factor each is brighter than it was learned to be.
        """
        if not self.num_shades and light is None:
            return torch.cat([self.colors[:, None], self.details], dim=1)
        brightness = self.brightness_at(step) * (1.0 if light is None else light)
        brightness = brightness[:, None]
        grey = 0.5 / CONSTANT  # what a coefficient of 0 looks like
        colors = (self.colors + grey) * brightness - grey
        return torch.cat([colors[:, None], self.details * brightness[..., None]], dim=1)


def between(table: Float[Tensor, "N K *value"], place: float) -> Float[Tensor, "N *value"]:
    """Values of a table's columns at a column or between two."""
    last = table.shape[1] - 1
    low = min(max(int(place), 0), last)
    part = place - low
    if part <= 0 or low == last:
        return table[:, low]
    return torch.lerp(table[:, low], table[:, low + 1], part)
