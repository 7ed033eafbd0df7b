"""From what frames show along a trajectory to the class of a Gaussian (paper, section 3.3, on whole trajectories).

A Gaussian's trajectory is known at all times, so its flow feature is gathered along the whole of it: a token for each
of a few frames spread over the video, with the image feature that the frame shows of the Gaussian, whether it shows the
Gaussian at all, and where and when the Gaussian is then. Tokens attend to each other, and a network turns them into
logits. Labels of frames are gathered in the same way, as evidence that the network only corrects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semfield_ns.gaussians.projection import project
from semfield_ns.gaussians.rasterize import uplift
from semfield_ns.semantic_flow.flow_attention.attention import FlowAttention, SemanticNetwork
from semfield_ns.semantic_flow_splat.moving import MovingGaussians
from semfield_ns.semantic_flow_splat.view import View

SEEN = 0.05
"""contributions, in pixels, from which a frame counts as showing a Gaussian"""
PSEUDO_COUNT = 0.5
"""contributions added to each class, in pixels: what is seen little says little"""


@dataclass(frozen=True)
class Gathered:
    """What frames show along the trajectories of N Gaussians, at K of them."""

    features: Float[Tensor, "N K F"]
    """mean image feature of the pixels that show the Gaussian; 0 where none does"""
    visible: Float[Tensor, "N K 1"]
    """0 or 1"""
    displacements: Float[Tensor, "N K 3"]
    """position then, less the mean over the video; world units"""
    times: Float[Tensor, "K"]
    """from -1 to 1 over the video"""


@torch.no_grad()
def uplift_image(
    gaussians: MovingGaussians, view: View, image: Float[Tensor, "h w values"], backend: str = "auto"
) -> tuple[Float[Tensor, "N values"], Float[Tensor, "N"]]:
    """Sums over an image's pixels of contribution times value, and of contributions, for every Gaussian.

    Args:
        gaussians: the scene.
        view: the camera of the image; it is looked through at the image's own resolution.
        image: values of pixels.
        backend: of the rasteriser.
    """
    height, width = image.shape[:2]
    sized = view.resized(width, height)
    opacities = gaussians.opacities_at(view.step)
    projection = project(
        gaussians.means_at(view.step),
        gaussians.quaternions,
        gaussians.scales.exp(),
        view.pose,
        sized.intrinsics.tolist(),
        width,
        height,
        opacities=opacities,
        backend=backend,  # type: ignore[arg-type]
    )
    return uplift(projection, opacities, image.float(), backend=backend)  # type: ignore[arg-type]


@torch.no_grad()
def gather_features(
    gaussians: MovingGaussians,
    views: Sequence[View],
    features: Callable[[int], Float[Tensor, "h w F"]],
    backend: str = "auto",
) -> Gathered:
    """Image features along all trajectories.

    Args:
        gaussians: the scene.
        views: K cameras of frames, in the order of time.
        features: number of a view -> features of its frame.
        backend: of the rasteriser.
    """
    found, visible, places = [], [], []
    for number, view in enumerate(views):
        sums, weight = uplift_image(gaussians, view, features(number), backend)
        # A feature cell covers many pixels.
        shown = weight * view.width / features(number).shape[1] > SEEN
        found.append(torch.where(shown[:, None], sums / weight.clamp(min=1e-9)[:, None], 0.0))
        visible.append(shown.float())
        places.append(gaussians.means_at(view.step))
    centre = torch.cat([gaussians.still, gaussians.tracks.mean(dim=1)])
    last = max(gaussians.num_steps - 1, 1)
    return Gathered(
        torch.stack(found, dim=1),
        torch.stack(visible, dim=1)[..., None],
        torch.stack(places, dim=1) - centre[:, None],
        torch.tensor([2 * view.step / last - 1 for view in views], device=centre.device),
    )


@torch.no_grad()
def mean_features(
    gaussians: MovingGaussians,
    views: Sequence[View],
    features: Callable[[int], Float[Tensor, "h w F"]],
    backend: str = "auto",
) -> Float[Tensor, "N F"]:
    """Mean image feature of all pixels that show each Gaussian; that of the nearest one, where none does.

    Args:
        gaussians: the scene.
        views: cameras of frames.
        features: number of a view -> features of its frame.
        backend: of the rasteriser.
    """
    total, weights = torch.zeros_like(gaussians.features), gaussians.opacities.new_zeros(len(gaussians))
    for number, view in enumerate(views):
        image = features(number)
        sums, weight = uplift_image(gaussians, view, image, backend)
        pixels = view.width / image.shape[1]  # a feature cell covers many
        total += sums.mul_(pixels)
        weights += weight * pixels
    seen = weights > SEEN
    total /= weights.clamp(min=SEEN)[:, None]
    if bool(seen.any()) and not bool(seen.all()):
        from scipy.spatial import cKDTree

        places = gaussians.means_at(0.0).cpu().numpy()
        known = torch.nonzero(seen)[:, 0]
        _, nearest = cKDTree(places[known.cpu().numpy()]).query(places[~seen.cpu().numpy()])
        total[~seen] = total[known[torch.from_numpy(nearest).to(known.device)]]
    return total


@torch.no_grad()
def gather_labels(
    gaussians: MovingGaussians,
    views: Sequence[View],
    labels: Callable[[int], tuple[Int[Tensor, "H W"], Float[Tensor, "H W"]]],
    backend: str = "auto",
) -> Float[Tensor, "N C"]:
    """Log-probabilities of the classes of all Gaussians, by the labels of the pixels that show them.

    Args:
        gaussians: the scene.
        views: cameras of frames.
        labels: number of a view -> class ids, negative where there is none, and how far they are trusted, 0 to 1.
        backend: of the rasteriser.

    Returns:
        log((counts + p) / (sum of counts + C p)), with pseudo-counts p; the mean over classes is taken off.
    """
    count = gaussians.num_classes
    counts = gaussians.logits.new_zeros(len(gaussians), count)
    for number, view in enumerate(views):
        ids, trust = (value.to(counts.device) for value in labels(number))
        image = torch.nn.functional.one_hot(ids.clamp(min=0).long(), count) * (trust * (ids >= 0))[..., None]
        counts += uplift_image(gaussians, view, image, backend)[0]
    scores = (counts + PSEUDO_COUNT).log()
    return scores - scores.mean(dim=-1, keepdim=True)


class TrajectorySemantics(nn.Module):
    """Flow attention over the tokens of whole trajectories, and the semantic network; begins at logits of zero.

    Args:
        feature_dim: F, channels of an image feature.
        num_tokens: K, frames that are looked at.
        num_classes: C.
        token_dim: channels of a token.
        heads: of the attention.
        hidden: channels of the network.
    """

    def __init__(
        self, feature_dim: int, num_tokens: int, num_classes: int, token_dim: int = 32, heads: int = 4, hidden: int = 64
    ) -> None:
        super().__init__()
        self.attention = FlowAttention(feature_dim, token_dim, heads, num_tokens=num_tokens)
        # Besides the flow feature: the Gaussian's colour, and whether it moves.
        self.network = SemanticNetwork(self.attention.out_dim, 4, num_classes, hidden)
        for parameter in self.network.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, gathered: Gathered, own: Float[Tensor, "N 4"], which: Int[Tensor, "B"]) -> Float[Tensor, "B C"]:
        """Logits of some Gaussians.

        Args:
            gathered: what frames show of all of them.
            own: colour and whether it moves, of all of them.
            which: of them.
        """
        visible = gathered.visible[which]
        durations = gathered.times[:, None].expand(len(which), -1, 1)
        context = self.attention(gathered.features[which].float(), visible, gathered.displacements[which], durations)
        return self.network(context, own[which])
