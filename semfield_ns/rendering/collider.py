"""Where rays start and end."""

from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.scene_colliders import SceneCollider


class DepthRangeCollider(SceneCollider):
    """Cuts rays at two depths along the optical axis, the measure that scenes give their bounds in.

    Nerfstudio's `NearFarCollider` cuts at distances along the ray: in the corners of a wide picture content at the far
    depth would be cut off, and squeezed against the end of the rays.

    Args:
        near: depth of the nearest content, world units.
        far: depth of the furthest content, world units.
        margin: content seen by other cameras may be nearer or further by this part.
    """

    def __init__(self, near: float, far: float, margin: float = 0.1) -> None:
        super().__init__()
        self.near = near * (1 - margin)
        self.far = far * (1 + margin)

    def set_nears_and_fars(self, ray_bundle: RayBundle) -> RayBundle:
        """The same bundle with `nears` and `fars` [..., 1], distances along the rays."""
        norm = ray_bundle.metadata["directions_norm"]
        ray_bundle.nears, ray_bundle.fars = self.near * norm, self.far * norm
        return ray_bundle
