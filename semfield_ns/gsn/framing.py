"""The coordinates in which the network receives positions and directions. Pure functions.

The official code tells them in those of the scene, and weights then learn where the things of training scenes are: of a
scene never seen before, they render another picture if the whole scene is turned. In the coordinates of the camera
itself there is nothing to learn by heart, and which sample of a ray is the nearer one can be read off.
"""

from dataclasses import replace

import torch
from nerfstudio.cameras.rays import RayBundle

from semfield_ns.gsn.projection import SourceViews


def in_view_frame(bundle: RayBundle, views: SourceViews) -> tuple[RayBundle, SourceViews]:
    """Rays of one camera and their source views, moved: the camera to the origin, turned as the nearest source view is.

    The source view, because rays do not say how their camera is turned; it is turned nearly the same way.
    """
    centre = bundle.origins.reshape(-1, 3)[0]
    poses = views.camera_to_world
    nearest = (poses[:, :, 3] - centre).norm(dim=-1).argmin(dim=0, keepdim=True)
    rotation = poses.index_select(0, nearest)[0, :, :3]  # by a tensor: the host does not wait for the index
    moved = torch.cat([poses[:, :, :3], poses[:, :, 3:] - centre[:, None]], dim=-1)
    return (
        replace(bundle, origins=(bundle.origins - centre) @ rotation, directions=bundle.directions @ rotation),
        views._replace(camera_to_world=rotation.T @ moved),
    )
