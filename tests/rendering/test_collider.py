"""Rays end where content ends, in the corners of a picture too."""

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from semfield_ns.rendering.collider import DepthRangeCollider


def test_rays_span_the_depth_range_at_every_pixel():
    width, height = 40, 30
    camera = Cameras(torch.eye(4)[None, :3], 20.0, 20.0, width / 2, height / 2, width, height)
    bundle = DepthRangeCollider(near=2.0, far=6.0, margin=0.25)(camera.generate_rays(camera_indices=0))
    for distances, depth in ((bundle.nears, 1.5), (bundle.fars, 7.5)):
        # The camera looks along -z, so the depth of a point is minus its z.
        points = bundle.origins + distances * bundle.directions
        assert torch.allclose(-points[..., 2], torch.full((height, width), depth), atol=1e-5)
    assert float(bundle.fars.max()) == pytest.approx(7.5 * (1 + 1.0**2 + 0.75**2) ** 0.5, rel=0.03)
