"""More Gaussians where pictures are wrong, fewer where they do nothing; what optimisers know of them goes along.

Gaussians that are all but transparent are put beside others, and new ones are added up to a number: beside those whose
pixels are furthest from the truth. Both halves of a pair then look together as the one did before (3-D Gaussian
splatting as Markov chain Monte Carlo, Kheradmand et al. 2024, equation 9 for two).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from semfield_ns.semantic_flow_splat.moving import MovingGaussians, logit

TRANSPARENT = 0.02
"""opacity, at the time step at which it is highest, below which a Gaussian is put elsewhere"""
JITTER = 0.5
"""distance of the halves of a pair, in standard deviations"""


@torch.no_grad()
def grow(
    gaussians: MovingGaussians,
    error: Float[Tensor, "N"],
    added: int,
    optimizers: Mapping[str, Optimizer],
    generator: torch.Generator,
) -> int:
    """Puts transparent Gaussians, and new ones, beside those with the largest errors.

    Still ones stay still ones, moving ones moving ones; new ones are divided between both by their share of the error.

    Args:
        gaussians: changed in place; what grows becomes a new parameter.
        error: of the pixels that show each Gaussian, summed; not negative.
        added: new ones.
        optimizers: by the name of the parameter.
        generator: of what is drawn.

    Returns:
        How many were put elsewhere or added.
    """
    still = gaussians.num_still
    highest = gaussians.opacities.clone()
    if len(gaussians) > still:
        highest[still:] += gaussians.presence.amax(dim=1)
    dead = torch.sigmoid(highest) < TRANSPARENT
    weight = torch.where(dead, 0.0, error.clamp(min=0) + 1e-12)
    total = weight.sum()
    share = float(weight[:still].sum() / total) if float(total) > 0 else 1.0
    changed = 0
    new_still = round(added * share)
    parents, targets = [], []
    for start, end, extra in ((0, still, new_still), (still, len(gaussians), added - new_still)):
        lost = torch.nonzero(dead[start:end])[:, 0] + start
        alive = weight[start:end]
        count = min(len(lost) + extra, int((alive > 0).sum()))
        drawn = torch.multinomial(alive.cpu(), count, generator=generator) if count else lost[:0].cpu()
        parents.append(drawn.to(alive.device) + start)
        targets.append(lost[: min(len(lost), count)])
        changed += count
    _halve(gaussians, torch.cat(parents), optimizers)
    for group, (chosen, lost) in enumerate(zip(parents, targets, strict=True)):
        # Moving ones have moved up by what was added to the still ones.
        shift = len(gaussians) - len(highest)
        chosen, lost = chosen + shift, lost + shift
        _copy(gaussians, chosen[: len(lost)], lost, optimizers, generator)
        _append(gaussians, chosen[len(lost) :], group == 0, optimizers, generator)
    return changed


def _halve(gaussians: MovingGaussians, parents: Int[Tensor, "K"], optimizers: Mapping[str, Optimizer]) -> None:
    """Opacity and size of each parent such that two of it look as one did."""
    opacity = torch.sigmoid(gaussians.opacities[parents])
    half = 1 - (1 - opacity).clamp(min=1e-6).sqrt()
    factor = opacity / (2 * half - half.square() / 2**0.5).clamp(min=1e-6)
    gaussians.opacities[parents] = logit(half)
    gaussians.scales[parents] += factor.log()[:, None]
    for name in ("opacities", "scales"):
        _forget(getattr(gaussians, name), parents, optimizers.get(name))


def _children(
    gaussians: MovingGaussians, parents: Int[Tensor, "K"], generator: torch.Generator
) -> dict[str, Float[Tensor, "K *value"]]:
    """The values of copies that stand a little beside their parents."""
    still = gaussians.num_still
    shift = torch.randn(len(parents), 3, generator=generator).to(gaussians.scales) * JITTER
    shift = shift * gaussians.scales[parents].exp()
    names = ("opacities", "scales", "quaternions", "colors", "details", "shades", "logits", "known", "features")
    values: dict[str, Tensor] = {name: getattr(gaussians, name)[parents] for name in names}
    if len(parents) and int(parents[0]) < still:
        return values | {"still": gaussians.still[parents] + shift}
    own = parents - still
    return values | {"tracks": gaussians.tracks[own] + shift[:, None], "presence": gaussians.presence[own]}


def _copy(
    gaussians: MovingGaussians,
    parents: Int[Tensor, "K"],
    targets: Int[Tensor, "K"],
    optimizers: Mapping[str, Optimizer],
    generator: torch.Generator,
) -> None:
    """Gaussians in the place of others of the same kind."""
    for name, values in _children(gaussians, parents, generator).items():
        rows = targets - gaussians.num_still if name in ("tracks", "presence") else targets
        getattr(gaussians, name)[rows] = values
        _forget(getattr(gaussians, name), rows, optimizers.get(name))


def _append(
    gaussians: MovingGaussians,
    parents: Int[Tensor, "K"],
    still: bool,
    optimizers: Mapping[str, Optimizer],
    generator: torch.Generator,
) -> None:
    """More Gaussians: still ones behind the last still one, moving ones at the end."""
    if not len(parents):
        return
    place = gaussians.num_still if still else len(gaussians)
    for name, values in _children(gaussians, parents, generator).items():
        own = getattr(gaussians, name)
        at = len(own) if name in ("still", "tracks", "presence") else place
        larger = torch.cat([own.detach()[:at], values, own.detach()[at:]])
        if not isinstance(own, nn.Parameter):
            setattr(gaussians, name, larger)
            continue
        # A new parameter: graphs that are still alive know the size of the old one.
        setattr(gaussians, name, nn.Parameter(larger))
        if name in optimizers:
            _hand_over(optimizers[name], own, getattr(gaussians, name), at)


def _hand_over(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, at: int) -> None:
    """Lets an optimiser go on with a parameter that has more rows, from `at` on; of these it remembers nothing."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    more = len(new) - len(old)
    state = optimizer.state.pop(old, {})
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim():
            zeros = value.new_zeros(more, *value.shape[1:])
            state[key] = torch.cat([value[:at], zeros, value[at:]])
    if state:
        optimizer.state[new] = state


def _forget(own: Tensor, rows: Int[Tensor, "K"], optimizer: Optimizer | None) -> None:
    for state in _memory(own, optimizer).values():
        state[rows] = 0


def _memory(own: Tensor, optimizer: Optimizer | None) -> dict[str, Tensor]:
    """What an optimiser remembers of every number of a parameter: moments, for Adam."""
    if optimizer is None or own not in optimizer.state:
        return {}
    return {key: value for key, value in optimizer.state[own].items() if isinstance(value, Tensor) and value.dim()}
