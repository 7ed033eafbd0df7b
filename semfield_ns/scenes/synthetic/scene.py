"""Analytic scenes: objects with known surfaces and motions, rendered to exact pictures, labels, depth and flow."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from semfield_ns.errors import SemfieldError
from semfield_ns.scenes.labels import SemanticClass
from semfield_ns.scenes.synthetic.cameras import (
    CameraPath,
    Intrinsics,
    inside_image,
    pixel_grid,
    project,
    rays_through,
)
from semfield_ns.scenes.synthetic.motion import Motion
from semfield_ns.scenes.synthetic.shapes import Shape, meets_ball
from semfield_ns.scenes.synthetic.textures import Texture

LIGHT = np.array([-0.45, -0.6, 0.66]) / np.linalg.norm([-0.45, -0.6, 0.66])
"""Direction towards the one distant light, in world coordinates; the same in every scene."""
VISIBLE_TOLERANCE = 1e-5
"""A point counts as seen if nothing is nearer by more than this share of its depth."""


@dataclass(frozen=True)
class SceneObject:
    """One thing of one class. `instance` 0 is background (walls, floor), which cannot be removed."""

    name: str
    class_name: str
    instance: int
    shape: Shape
    texture: Texture
    motion: Motion = field(default_factory=Motion)
    placement: tuple[tuple[float, ...], ...] | None = None
    """A further affine world map [4, 4] applied after the motion: to move, mirror or copy an object."""

    def pose_at(self, time: float) -> Float[np.ndarray, "4 4"]:
        """Affine map from material to world coordinates at a time in frames."""
        pose = self.motion.pose_at(time)
        return pose if self.placement is None else np.array(self.placement) @ pose


@dataclass(frozen=True)
class Hits:
    """What rays meet first. Index -1 is nothing, and then the depth is infinite."""

    index: np.ndarray
    """Position in the list of objects, int [n]."""
    depth: np.ndarray
    """Distance in lengths of the ray's direction, [n]: z-depth for rays of `rays_through`."""
    position: np.ndarray
    """World points, [n, 3]; NaN where nothing is met."""


@dataclass(frozen=True)
class AnalyticScene:
    """A scene with all that is needed to render it, to film it and to hold views out."""

    name: str
    seed: int
    classes: tuple[SemanticClass, ...]
    objects: tuple[SceneObject, ...]
    intrinsics: Intrinsics
    path: CameraPath
    num_frames: int
    held_out: tuple[tuple[float, tuple[float, float, float]], ...]
    """Held-out camera places: position on the path and (right, forward, up) offset from it."""
    static: bool = False
    """Nothing moves and only the camera's place matters: frames have neither time nor flow."""
    contact_shadow: float = 0.55
    """How much objects darken the surfaces close to them; 0 switches it off."""

    @property
    def instances(self) -> tuple[SceneObject, ...]:
        """Objects that can be removed, by rising instance id."""
        return tuple(sorted((o for o in self.objects if o.instance > 0), key=lambda o: o.instance))

    def camera_at(self, time: float) -> Float[np.ndarray, "4 4"]:
        """Camera-to-world matrix (OpenGL) of the filming camera at a time in frames."""
        return self.path.at(time / max(self.num_frames - 1, 1))

    def held_out_cameras(self) -> list[Float[np.ndarray, "4 4"]]:
        """Camera-to-world matrices of the held-out places; each of them sees all held-out times."""
        return [self.path.at(u, offset) for u, offset in self.held_out]

    def held_out_times(self, count: int = 6) -> list[int]:
        """Frame numbers at which held-out views are taken: spread evenly, away from the ends of the clip."""
        if self.static:
            return [0]
        inner = np.linspace(1, self.num_frames - 2, count) if self.num_frames > 2 else [0]
        return sorted({round(float(time)) for time in inner})

    def _class_ids(self) -> np.ndarray:
        names = [c.name for c in self.classes]
        return np.array([names.index(o.class_name) for o in self.objects])

    def _kept(self, without: Collection[int]) -> list[int]:
        """Indices of the objects that stay; SemfieldError for an instance that is not in the scene."""
        known = {o.instance for o in self.instances}
        for instance in without:
            if instance not in known:
                raise SemfieldError(
                    f"Scene '{self.name}' has no instance {instance} to remove: choose from {sorted(known)}."
                )
        return [k for k, o in enumerate(self.objects) if o.instance not in without]

    def cast(
        self,
        origin: Float[np.ndarray, " 3"],
        directions: Float[np.ndarray, "n 3"],
        time: float,
        without: Collection[int] = (),
    ) -> Hits:
        """First hits of rays from one origin at a time in frames, with the instances in `without` removed."""
        depth = np.full(len(directions), np.inf)
        index = np.full(len(directions), -1)
        for k in self._kept(without):
            shape = self.objects[k].shape
            inverse = np.linalg.inv(self.objects[k].pose_at(time))
            start = inverse[:3, :3] @ origin + inverse[:3, 3]
            local = directions @ inverse[:3, :3].T
            near = np.arange(len(local))
            if np.isfinite(shape.bound):
                near = np.flatnonzero(meets_ball(start, local, shape.bound))
            if not len(near):
                continue
            distance = shape.hit(np.broadcast_to(start, (len(near), 3)), local[near])
            closer = distance < depth[near]
            depth[near[closer]] = distance[closer]
            index[near[closer]] = k
        position = origin + np.where(np.isfinite(depth), depth, np.nan)[:, None] * directions
        return Hits(index, depth, position)

    def _shade(self, hits: Hits, time: float, without: Collection[int]) -> Float[np.ndarray, "n 3"]:
        """Colours of hits: albedo times a fixed ambient and Lambertian light, darkened next to objects."""
        rgb = np.zeros((len(hits.index), 3))
        occluders = [self._occluder(k, time) for k in self._kept(without) if self.objects[k].instance > 0]
        for k in np.unique(hits.index[hits.index >= 0]):
            here = np.flatnonzero(hits.index == k)
            inverse = np.linalg.inv(self.objects[k].pose_at(time))
            points = hits.position[here]
            material = points @ inverse[:3, :3].T + inverse[:3, 3]
            normals = self.objects[k].shape.normal(material) @ inverse[:3, :3]
            normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
            light = 0.68 + 0.36 * normals @ LIGHT
            if self.objects[k].instance == 0:
                light = light * self._openness(points, normals, occluders)
            rgb[here] = self.objects[k].texture(material) * np.maximum(light, 0.0)[:, None]
        return np.clip(rgb, 0.0, 1.0)

    def _occluder(self, k: int, time: float) -> tuple[np.ndarray, float]:
        """Centre and radius of a ball that darkens like object k; a tall object darkens as its lowest part does."""
        pose = self.objects[k].pose_at(time)
        radius = float(np.abs(np.linalg.det(pose[:3, :3])) ** (1 / 3))
        extent = float(np.linalg.norm(pose[2, :3]))
        centre = pose[:3, 3].copy()
        centre[2] = centre[2] - extent + min(radius, extent) if extent > 1.5 * radius else centre[2]
        return centre, radius

    def _openness(self, points: np.ndarray, normals: np.ndarray, occluders: list) -> np.ndarray:
        """Share of ambient light that reaches background points past balls: 1 - sum of (r / d)^2 cos, at least 0.25."""
        blocked = np.zeros(len(points))
        for centre, radius in occluders:
            towards = centre - points
            distance = np.maximum(np.linalg.norm(towards, axis=-1), radius)
            cosine = np.maximum(np.einsum("ni,ni->n", towards, normals), 0.0) / distance
            blocked += (radius / distance) ** 2 * cosine
        return np.maximum(1.0 - self.contact_shadow * np.minimum(blocked, 1.0), 0.25)

    def render(
        self,
        c2w: Float[np.ndarray, "4 4"],
        intrinsics: Intrinsics | None = None,
        time: float = 0.0,
        samples_per_axis: int = 3,
        without: Collection[int] = (),
    ) -> dict[str, np.ndarray]:
        """The picture and its truth for any camera and time, with the instances in `without` removed.

        Returns, with H and W of the intrinsics (the scene's own by default):
            rgb: float32 [H, W, 3] in [0, 1], the mean of samples_per_axis^2 samples; all else is at pixel centres
            depth: float32 [H, W], z-depth in scene units, 0 where nothing is met
            semantics: uint8 [H, W] class ids; 255 where nothing is met
            instances: uint8 [H, W] instance ids; 0 is background
            dynamic: bool [H, W], whether the class is a dynamic one
            position: float64 [H, W, 3] world points; NaN where nothing is met
        """
        intrinsics = intrinsics or self.intrinsics
        shape = (intrinsics.height, intrinsics.width)
        centres = self.cast(*rays_through(pixel_grid(intrinsics), c2w, intrinsics), time, without)
        rgb = np.zeros((shape[0] * shape[1], 3))
        offsets = (np.arange(samples_per_axis) + 0.5) / samples_per_axis
        for offset in [(x, y) for y in offsets for x in offsets]:
            hits = centres
            if offset != (0.5, 0.5):
                hits = self.cast(*rays_through(pixel_grid(intrinsics, offset), c2w, intrinsics), time, without)
            rgb += self._shade(hits, time, without)
        met = centres.index >= 0
        semantics = np.where(met, self._class_ids()[centres.index], 255)
        dynamic = np.array([*(c.dynamic for c in self.classes), False])
        return {
            "rgb": (rgb / samples_per_axis**2).astype(np.float32).reshape(*shape, 3),
            "depth": np.where(met, centres.depth, 0.0).astype(np.float32).reshape(shape),
            "semantics": semantics.astype(np.uint8).reshape(shape),
            "instances": np.where(met, np.array([o.instance for o in self.objects])[centres.index], 0)
            .astype(np.uint8)
            .reshape(shape),
            "dynamic": dynamic[np.where(met, semantics, -1)].reshape(shape),
            "position": centres.position.reshape(*shape, 3),
        }

    def flow_between(
        self,
        c2w_from: Float[np.ndarray, "4 4"],
        time_from: float,
        c2w_to: Float[np.ndarray, "4 4"],
        time_to: float,
        intrinsics: Intrinsics | None = None,
        without: Collection[int] = (),
    ) -> tuple[Float[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
        """Exact optical flow of the material seen at pixel centres, camera and object motion and deformation together.

        Returns:
            flow: float32 [H, W, 2], pixels (right, down) from one view to the other; 0 where the point is not in front
                of the other camera
            valid: bool [H, W], whether the point is inside the other picture and visible there
        """
        intrinsics = intrinsics or self.intrinsics
        uv = pixel_grid(intrinsics)
        hits = self.cast(*rays_through(uv, c2w_from, intrinsics), time_from, without)
        moved = hits.position.copy()
        for k in np.unique(hits.index[hits.index >= 0]):
            here = hits.index == k
            step = self.objects[k].pose_at(time_to) @ np.linalg.inv(self.objects[k].pose_at(time_from))
            moved[here] = hits.position[here] @ step[:3, :3].T + step[:3, 3]
        target, depth = project(moved, c2w_to, intrinsics)
        valid = inside_image(target, intrinsics)
        seen = self.cast(*rays_through(target[valid], c2w_to, intrinsics), time_to, without)
        valid[valid] = seen.depth > depth[valid] * (1 - VISIBLE_TOLERANCE)
        flow = np.nan_to_num(target - uv).astype(np.float32)
        shape = (intrinsics.height, intrinsics.width)
        return flow.reshape(*shape, 2), valid.reshape(shape)
