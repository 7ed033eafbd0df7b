import torch

from semfield_ns.gaussians.values import Gaussians

NAMES = ("means", "quaternions", "scales", "opacities", "channels")
WIDTH, HEIGHT = 50, 37
INTRINSICS = (45.0, 47.0, 24.0, 19.5)


def pose() -> torch.Tensor:
    """An OpenGL pose that looks at the origin from about three units away, a little turned."""
    angle = torch.tensor(0.2, dtype=torch.float64)
    turned = torch.eye(4, dtype=torch.float64)
    turned[0, 0] = turned[2, 2] = angle.cos()
    turned[0, 2], turned[2, 0] = angle.sin(), -angle.sin()
    turned[:3, 3] = torch.tensor([0.6, 0.1, 3.0])
    return turned


def gaussians(num: int = 300, channels: int = 5, seed: int = 0, size: float = 0.15, dtype=torch.float64) -> Gaussians:
    """Leaves in a box about the origin; some are outside the picture, some behind the camera."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    values = (
        (uniform(num, 3) - 0.5) * torch.tensor([5.0, 4.0, 7.0]),
        torch.randn(num, 4, generator=generator, dtype=torch.float64),
        0.01 + size * uniform(num, 3),
        uniform(num),
        uniform(num, channels) - 0.3,
    )
    return leaves(Gaussians(*values), dtype)


def leaves(values: Gaussians, dtype=torch.float64) -> Gaussians:
    return Gaussians(*(getattr(values, name).detach().to(dtype, copy=True).requires_grad_() for name in NAMES))
