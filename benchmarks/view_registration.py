"""The pose of a held-out view, found by its picture while the trained model is held fixed.

Where training did not know the given poses, its world is not exactly a scaled and turned copy of the given one: a focal
length that is off by a percent bends it. The given pose of another camera then shows a picture that is right, but
shifted. Methods that find poses are measured with test views that are registered by colour this way (BARF, Lin et al.
2021; NoPe-NeRF, Bian et al. 2023); for a fair comparison, so must be those of a model that knew the poses.

They descend through the model; here the picture is aligned directly to what is rendered, with the rendered depth
(Gauss-Newton on the pose, robust weights), and rendered again, which takes three renders instead of hundreds.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras

_ITERATIONS = 15
_BLUR = (2.0, 1.0, 0.7)  # px, from render to render
_SCALE = 0.05  # of the Cauchy weights; colours are in [0, 1]


@torch.no_grad()
def registered(model, camera: Cameras, picture: Float[np.ndarray, "height width 3"]) -> Cameras:
    """The camera, turned and moved so that what the model renders fits the picture.

    Args:
        model: trained, in evaluation mode.
        camera: one, without distortion, with a time; its pose is the beginning.
        picture: what it shows, in [0, 1].
    """
    camera = camera[torch.arange(1)]
    for blur in _BLUR:
        rendered = model.get_outputs_for_camera(camera)
        rays = camera.generate_rays(0)
        c2w = camera.camera_to_worlds[0].numpy().astype(np.float64)
        points = rays.directions.numpy() @ c2w[:, :3] * rendered["depth"].numpy()
        lens = [float(v) for v in (camera.fx[0], camera.fy[0], camera.cx[0], camera.cy[0])]
        shown, wanted = (
            cv2.GaussianBlur(p.astype(np.float64), (0, 0), blur) for p in (rendered["rgb"].numpy(), picture)
        )
        turn, shift = align(shown.reshape(-1, 3), wanted, points.reshape(-1, 3).astype(np.float64), lens)
        moved = np.concatenate([c2w[:, :3] @ turn, c2w[:, :3] @ shift[:, None] + c2w[:, 3:]], axis=-1)
        camera.camera_to_worlds = torch.from_numpy(moved).float()[None]
    return camera


def align(
    colors: Float[np.ndarray, "K 3"],
    picture: Float[np.ndarray, "height width 3"],
    points: Float[np.ndarray, "K 3"],
    lens: list[float],
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """(rotation, shift) of a camera, in its own OpenGL axes, from which points of these colours look like the picture.

    lens: fx, fy, cx, cy, px.
    """
    fx, fy, cx, cy = lens
    image = picture.astype(np.float32)
    slopes = [cv2.Sobel(image, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1))]
    turn, shift = np.eye(3), np.zeros(3)
    for _ in range(_ITERATIONS):
        local = (points - shift) @ turn
        x, y, z = local.T
        ahead = -np.minimum(z, -1e-6)
        u, v = (fx * x / ahead + cx - 0.5).astype(np.float32), (cy - 0.5 - fy * y / ahead).astype(np.float32)
        inside = (u > 0) & (v > 0) & (u < image.shape[1] - 1) & (v < image.shape[0] - 1) & (z < 0)
        seen, across, down = (cv2.remap(p, u[None], v[None], cv2.INTER_LINEAR)[0] for p in (image, *slopes))
        miss = seen - colors
        weight = inside / (1 + np.square(miss / _SCALE).sum(-1))
        # Pixels by the point in the camera, and that by a small turn and shift: -w x p - s.
        du = np.stack([fx / ahead, 0 * x, fx * x / ahead**2], axis=-1)
        dv = np.stack([0 * x, -fy / ahead, -fy * y / ahead**2], axis=-1)
        by_point = across[..., None] * du[:, None] + down[..., None] * dv[:, None]  # (K, 3 colours, 3)
        jacobian = np.concatenate([np.cross(by_point, local[:, None]), -by_point], axis=-1)
        system = np.einsum("k,kci,kcj->ij", weight, jacobian, jacobian)
        side = np.einsum("k,kci,kc->i", weight, jacobian, miss)
        step = -np.linalg.solve(system + 1e-9 * np.trace(system) * np.eye(6), side)
        turn, shift = turn @ cv2.Rodrigues(step[:3])[0], shift + turn @ step[3:]
    return turn, shift
