"""What `ns-export gaussian-splat` reads of a model: it knows `splatfacto` alone."""

import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.gaussians.harmonics import CONSTANT
from semfield_ns.gaussians.splats import OPACITY_RANGE, Splats

EXPORTER = "nerfstudio.scripts.exporter"


Value = TypeVar("Value")


class asked(cached_property[Value]):
    """A property that Nerfstudio's viewer does not evaluate when it goes through a model: it passes over cached ones.

    These take long, as they look for the objects of the scene. Nothing is kept: weights and edits change.
    """

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else self.func(owner)


class SplatfactoValues:
    """The Gaussians of the first moment under the names that Nerfstudio's `SplatfactoModel` has for them.

    World coordinates of the model, as in an export of splatfacto. Other moments: `semfield export --formats splats`.
    """

    splats: Callable[[float], Splats]
    """the Gaussians at a time step"""

    @asked
    def means(self) -> Float[Tensor, "N 3"]:
        """Positions."""
        return self.splats(0.0).gaussians.means

    @asked
    def quats(self) -> Float[Tensor, "N 4"]:
        """Orientations, w first, of unit length."""
        return F.normalize(self.splats(0.0).gaussians.quaternions, dim=-1)

    @asked
    def scales(self) -> Float[Tensor, "N 3"]:
        """Logarithms of standard deviations."""
        return self.splats(0.0).gaussians.scales.log()

    @asked
    def opacities(self) -> Float[Tensor, "N 1"]:
        """Logits."""
        return torch.logit(self.splats(0.0).gaussians.opacities.clamp(*OPACITY_RANGE))[:, None]

    @asked
    def shs_0(self) -> Float[Tensor, "N 3"]:
        """Spherical harmonic of degree 0."""
        return self.splats(0.0).coefficients[:, 0]

    @asked
    def shs_rest(self) -> Float[Tensor, "N terms 3"]:
        """The higher ones."""
        return self.splats(0.0).coefficients[:, 1:]

    @asked
    def colors(self) -> Float[Tensor, "N 3"]:
        """In [0, 1], without what changes with the direction."""
        return self.shs_0 * CONSTANT + 0.5


def register() -> None:
    """Lets `ns-export`, if that is what runs, take a `SplatfactoValues` where it asks for a `SplatfactoModel`."""
    exporter = sys.modules.get(EXPORTER)
    if exporter is not None and isinstance(exporter.SplatfactoModel, type):
        exporter.SplatfactoModel = (exporter.SplatfactoModel, SplatfactoValues)  # type: ignore[attr-defined]
