"""Beyond the radius at which a lens folds back, nothing is in its picture."""

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from semfield_ns.rendering.projection import turning_radius
from semfield_ns.segmentation.cameras import ViewCamera


@pytest.mark.parametrize("bent", [(-0.3, 0, 0, 0, 0, 0), (-0.2, 0.02, 0, 0, 0.001, 0), (0.1, -0.2, 0, 0, 0, 0)])
def test_nothing_beyond_the_turning_radius_is_inside(bent):
    lens = torch.tensor([bent])
    camera = ViewCamera.of(Cameras(torch.eye(4)[None, :3], 68.0, 68.0, 40.0, 30.0, 80, 60, distortion_params=lens), 0)
    limit = float(turning_radius(lens)[0])
    for angle in np.radians(np.arange(1, 89)):
        pixel, _, inside = camera.project(torch.tensor([[3 * np.sin(angle), 0, -3 * np.cos(angle)]]).float())
        assert torch.isfinite(pixel).all()
        assert not (np.tan(angle) > limit and inside)
    assert camera.project(torch.tensor([[0.1, 0.1, -3.0]]))[2].all()


def test_lenses_that_do_not_fold_have_no_limit():
    lenses = torch.tensor([[0.1, 0.02, 0, 0, 0, 0], [0.0] * 6, [-0.3, 0.2, 0.0, 0, 0, 0]])
    found = turning_radius(lenses)
    assert found[:2].isinf().all() and found[2].isinf() == (0.9**2 < 4 * 5 * 0.2)
