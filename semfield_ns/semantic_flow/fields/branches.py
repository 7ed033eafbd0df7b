"""The fields of a dynamic scene: static and dynamic radiance, velocity, and the densities that place samples.

Every field maps flat batches of world points (the warp to the cube is inside) to features and heads. Times are in
frames; the encodings see them in [-1, 1].
"""

import torch
from jaxtyping import Float
from nerfstudio.field_components.activations import trunc_exp
from torch import Tensor, nn

from semfield_ns.rendering.constants import constant
from semfield_ns.semantic_flow.encodings import EncodingConfig, Implementation, build_encoding, require_encoding


def scaled_time(time: Float[Tensor, "points 1"], num_frames: int) -> Float[Tensor, "points 1"]:
    """Times in frames as encodings see them: frame 0 is -1 and the last frame is 1."""
    return torch.addcmul(constant((-1,), time), time, constant((2 / max(num_frames - 1, 1),), time))


class ResidualTrunk(nn.Module):
    """Pre-activation residual blocks; image features may be added before the first few (pixelNeRF style).

    Args:
        in_dim: channels of the input.
        width: channels of every block and of the output.
        blocks: residual blocks.
        injected_dim: channels of the image feature, 0 for none.
        injected_blocks: how many blocks receive it.
    """

    def __init__(self, in_dim: int, width: int, blocks: int, injected_dim: int = 0, injected_blocks: int = 3) -> None:
        super().__init__()
        self.inject = nn.ModuleList(
            nn.Linear(injected_dim, width) for _ in range(min(injected_blocks, blocks) if injected_dim else 0)
        )
        self.first = nn.Linear(in_dim, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.out_dim = width

    def forward(
        self, x: Float[Tensor, "points in"], injected: Float[Tensor, "#points image"] | None = None
    ) -> Float[Tensor, "points width"]:
        """Applies the blocks; `injected`, of each point or of all, is used if the trunk was built for it."""
        x = self.first(x)
        for index, block in enumerate(self.blocks):
            if injected is not None and index < len(self.inject):
                x = x + self.inject[index](injected)
            x = x + block(x)
        return torch.relu(x)


HARMONICS = (
    (0.28209479177387814, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0.4886025119029199, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0.4886025119029199, 0, 0, 0, 0, 0, 0),
    (0, 0.4886025119029199, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 1.0925484305920792, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 1.0925484305920792, 0, 0, 0, 0),
    (-0.31539156525251999, 0, 0, 0, 0, 0, 0, 0, 0, 0.9461746957575601),
    (0, 0, 0, 0, 0, 0, 1.0925484305920792, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 0.5462742152960396, -0.5462742152960396, 0),
)
"""rows: real spherical harmonics up to the second degree; columns: 1, x, y, z, xy, yz, zx, xx, yy, zz"""


def harmonics(directions: Float[Tensor, "points 3"]) -> Float[Tensor, "points 9"]:
    """Nerfstudio's `SHEncoding` of three levels, in fewer kernels."""
    terms = [directions, directions * directions.roll(-1, 1), directions.square()]
    table = constant(sum(HARMONICS, ()), directions).reshape(len(HARMONICS), -1)
    return nn.functional.linear(torch.cat(terms, dim=-1), table[:, 1:], table[:, 0])


class ColorHead(nn.Module):
    """[trunk feature, encoded view direction] -> RGB in [0, 1]."""

    def __init__(self, in_dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_dim + len(HARMONICS), hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(
        self, feature: Float[Tensor, "points dim"], directions: Float[Tensor, "points 3"]
    ) -> Float[Tensor, "points 3"]:
        """Colour seen along unit `directions`."""
        return torch.sigmoid(self.layers(torch.cat([feature, harmonics(directions)], dim=-1)))


class DensityHead(nn.Module):
    """Trunk feature -> density per world unit. Positive everywhere, so that no branch is born dead."""

    def __init__(self, in_dim: int, bias: float = -1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(in_dim, 1)
        nn.init.constant_(self.layer.bias, bias)

    def forward(self, feature: Float[Tensor, "points dim"]) -> Float[Tensor, "points 1"]:
        """`exp` with a truncated gradient."""
        return trunc_exp(self.layer(feature))


class StaticField(nn.Module):
    """What does not move: density, colour and a feature of a world point."""

    def __init__(
        self,
        warp: nn.Module,
        encoding: EncodingConfig,
        width: int,
        blocks: int,
        injected_dim: int = 0,
        implementation: Implementation = "torch",
    ) -> None:
        super().__init__()
        self.warp = warp
        self.encoding = require_encoding(encoding, 3, implementation=implementation)
        self.trunk = ResidualTrunk(self.encoding.out_dim, width, blocks, injected_dim)
        self.density = DensityHead(width)
        self.color = ColorHead(width, width)
        self.out_dim = width

    def features(
        self, points: Float[Tensor, "points 3"], injected: Float[Tensor, "points image"] | None = None
    ) -> Float[Tensor, "points width"]:
        """The trunk's feature at world points."""
        return self.trunk(self.encoding(self.warp(points)), injected)


class FlowField(nn.Module):
    """Velocity of world points at a time, and the trunk that the dynamic field shares.

    Velocity is `max_velocity * tanh(.)`, in world units a frame. A latent code of the scene is fed to every block.
    """

    def __init__(
        self,
        warp: nn.Module,
        encoding: EncodingConfig,
        num_frames: int,
        width: int = 128,
        blocks: int = 2,
        latent_dim: int = 16,
        max_velocity: float = 1.0,
    ) -> None:
        super().__init__()
        self.warp = warp
        self.num_frames = num_frames
        self.max_velocity = max_velocity
        self.encoding = require_encoding(encoding, 4, num_frames)
        self.latents = nn.Embedding(1, latent_dim)
        nn.init.normal_(self.latents.weight, std=0.1)
        self.trunk = ResidualTrunk(self.encoding.out_dim, width, blocks, latent_dim, injected_blocks=blocks)
        self.velocity_head = nn.Linear(width, 3)
        # Starts almost at rest: long random trajectories would gather features from random pixels.
        nn.init.normal_(self.velocity_head.weight, std=1e-3)
        nn.init.zeros_(self.velocity_head.bias)
        self.out_dim = width

    def coordinates(
        self, points: Float[Tensor, "points 3"], time: Float[Tensor, "points 1"]
    ) -> Float[Tensor, "points 4"]:
        """Point in the cube and time in [-1, 1]."""
        return torch.cat([self.warp(points), scaled_time(time, self.num_frames)], dim=-1)

    def features(self, coordinates: Float[Tensor, "points 4"]) -> Float[Tensor, "points width"]:
        """The trunk's feature."""
        return self.trunk(self.encoding(coordinates), self.latents.weight)

    def velocity(
        self, points: Float[Tensor, "*#batch 3"], time: Float[Tensor, "*#batch 1"]
    ) -> Float[Tensor, "*batch 3"]:
        """World units a frame, each component below `max_velocity`."""
        flat = self.coordinates(points.reshape(-1, 3), time.expand(*points.shape[:-1], 1).reshape(-1, 1))
        return self.velocity_of(self.features(flat)).reshape(points.shape)

    def velocity_of(self, feature: Float[Tensor, "points width"]) -> Float[Tensor, "points 3"]:
        """The velocity that goes with the trunk's feature."""
        return self.max_velocity * torch.tanh(self.velocity_head(feature))


class DynamicField(nn.Module):
    """What moves: density, colour, blending weight and a feature of a world point at a time.

    It continues the flow field's trunk, joined with an encoding of its own where the flow's is coarse.
    """

    def __init__(
        self,
        flow: FlowField,
        encoding: EncodingConfig,
        width: int,
        blocks: int,
        injected_dim: int = 0,
        source_color: bool = False,
    ) -> None:
        super().__init__()
        self.encoding = build_encoding(encoding, 4, flow.num_frames)
        own = self.encoding.out_dim if self.encoding is not None else 0
        self.trunk = ResidualTrunk(flow.out_dim + own, width, blocks, injected_dim)
        self.density = DensityHead(width)
        self.color = ColorHead(width, width)
        self.blending_head = nn.Linear(width, 1)
        nn.init.constant_(self.blending_head.bias, -1.0)
        self.source_gate = nn.Linear(width, 1) if source_color else None
        self.out_dim = width

    def features(
        self,
        shared: Float[Tensor, "points flow"],
        coordinates: Float[Tensor, "points 4"],
        injected: Float[Tensor, "points image"] | None = None,
    ) -> Float[Tensor, "points width"]:
        """The trunk's feature where the flow field has the feature `shared` and the coordinates."""
        if self.encoding is not None:
            shared = torch.cat([shared, self.encoding(coordinates)], dim=-1)
        return self.trunk(shared, injected)

    def gated_color(
        self,
        feature: Float[Tensor, "points width"],
        directions: Float[Tensor, "points 3"],
        source: Float[Tensor, "points 3"] | None,
        visible: Float[Tensor, "points 1"] | None,
    ) -> Float[Tensor, "points 3"]:
        """The field's colour, blended by a learned gate with the colour `source` that the frame shows there."""
        own = self.color(feature, directions)
        if self.source_gate is None or source is None or visible is None:
            return own
        gate = torch.sigmoid(self.source_gate(feature)) * visible
        return own + gate * (source - own)

    def blending(self, feature: Float[Tensor, "points width"]) -> Float[Tensor, "points 1"]:
        """Weight b in (0, 1): 1 where the point belongs to the dynamic branch."""
        return torch.sigmoid(self.blending_head(feature))


class SamplingDensity(nn.Module):
    """A small density over space and time that only decides where samples go."""

    def __init__(self, warp: nn.Module, encoding: EncodingConfig, num_frames: int, width: int = 16) -> None:
        super().__init__()
        self.warp = warp
        self.num_frames = num_frames
        self.encoding = require_encoding(encoding, 4, num_frames)
        self.layers = nn.Sequential(nn.Linear(self.encoding.out_dim, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(
        self, points: Float[Tensor, "rays samples 3"], time: Float[Tensor, "rays 1"]
    ) -> Float[Tensor, "rays samples 1"]:
        """Density at world points; `time` in frames, one a ray."""
        flat = self.warp(points).reshape(-1, 3)
        frames = time[:, None].expand(*points.shape[:-1], 1).reshape(-1, 1)
        coordinates = torch.cat([flat, scaled_time(frames, self.num_frames)], dim=-1)
        return trunc_exp(self.layers(self.encoding(coordinates)) - 1.0).reshape(*points.shape[:-1], 1)
