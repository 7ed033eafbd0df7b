"""The video that flow features are read from: cameras, times and encoder features of the training frames."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor, nn

from semfield_ns.labelling.evidence import Evidence
from semfield_ns.rendering.constants import constant
from semfield_ns.rendering.projection import gather_bilinear, inside, project
from semfield_ns.semantic_flow.flow_attention.tracing import nearest_frame

SEARCH_OFFSETS = (0, 1, -1, 2, -2, 3, -3, 5, -5, 8, -8, 12, -12)
"""frames in which, in this order, a point that may be covered is looked up"""


class SourceFrames(nn.Module):
    """Training frames as a look-up: which frame a time is, and which feature a world point has in a frame.

    Nothing here is learned or stored in checkpoints: cameras come from the scene, features from the cache.

    Args:
        cameras: training cameras in world (scene) units, `times` in [0, 1].
        features: (frames, h, w, dim) encoder features, any float type.
        colors: (frames, height, width, 3) the images in [0, 1], any float type, where a field reads their colours.
        moving: (frames, height, width) where something that moves covers the rest, if that is known.
        evidence: of labels, where heads correct it.
        camera_ids: of each frame, where several cameras film at once; a look-up takes the first camera of a time step.
        on_disk: features and colours are memory maps that stay where they are, whatever device the rest is on.
    """

    times: Tensor
    poses: Tensor
    intrinsics: Tensor
    sizes: Tensor
    distortion: Tensor
    features: Tensor
    colors: Tensor
    moving: Tensor
    carried_labels: Tensor
    carried_log_ratio: Tensor
    class_logits: Tensor
    source: Tensor
    neighbours: Tensor
    frame_poses: Tensor
    frame_intrinsics: Tensor
    frame_distortion: Tensor

    def __init__(
        self,
        cameras: Cameras,
        features: Float[Tensor, "frames h w dim"],
        colors: Float[Tensor, "frames height width 3"] | None = None,
        moving: Bool[Tensor, "frames height width"] | None = None,
        evidence: Evidence | None = None,
        camera_ids: Sequence[str] | None = None,
        on_disk: bool = False,
    ) -> None:
        super().__init__()
        assert cameras.times is not None, "the data parser gives every training camera its time"
        times = cameras.times.reshape(-1).float()
        # One frame a time step: with several cameras at a time, the first listed is the source of features.
        table, inverse = torch.unique(times, sorted=True, return_inverse=True)
        first = torch.full((len(table),), len(times), dtype=torch.long)
        first.scatter_reduce_(0, inverse, torch.arange(len(times)), reduce="amin")

        def keep(name: str, value: Tensor) -> None:
            self.register_buffer(name, value, persistent=False)

        keep("times", table)
        keep("source", first)
        keep("frame_poses", cameras.camera_to_worlds.float())
        keep("frame_intrinsics", torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=-1).float())
        distortion = cameras.distortion_params
        if distortion is None:
            distortion = torch.zeros(len(times), 6)
        self.distorted = bool((distortion != 0).any())
        keep("frame_distortion", distortion.float())
        keep("poses", self.frame_poses[first])
        keep("intrinsics", self.frame_intrinsics[first])
        keep("distortion", self.frame_distortion[first])
        keep("sizes", torch.cat([cameras.width, cameras.height], dim=-1)[first].float())
        self.width = float(self.sizes[0, 0])
        neighbours = same_camera_neighbours(inverse.tolist(), camera_ids)
        keep("neighbours", neighbours)
        # Asked of single frames in every step of training, which are not to wait for a device.
        self._times, self._neighbours = table.double().tolist(), neighbours.tolist()
        colors = colors if colors is not None else torch.zeros(len(times), 1, 1, 3)
        evidence = evidence if evidence is not None else Evidence()
        images = {"features": features, "colors": colors}
        self.has_classifier, self.has_carried = evidence.logits is not None, evidence.carried is not None
        images["class_logits"] = evidence.logits if evidence.logits is not None else torch.zeros(len(times), 1, 1, 1)
        if evidence.carried is not None:
            images |= {"carried_labels": evidence.carried.labels, "carried_log_ratio": evidence.carried.log_ratio}
        for name, stack in images.items():
            if on_disk:
                setattr(self, name, stack)
            else:
                keep(name, stack)
        self.has_moving = moving is not None
        keep("moving", moving if moving is not None else torch.zeros(len(times), 1, 1, dtype=torch.bool))
        self.feature_dim = features.shape[-1]

    def __len__(self) -> int:
        return len(self.times)

    def cameras(self, scale: float = 1.0) -> Iterator[Cameras]:
        """The camera of each time step, in order, with pictures `scale` times the size."""
        for step in range(len(self)):
            fx, fy, cx, cy = self.intrinsics[step].tolist()
            camera = Cameras(
                self.poses[step : step + 1],
                fx,
                fy,
                cx,
                cy,
                int(self.sizes[step, 0]),
                int(self.sizes[step, 1]),
                distortion_params=self.distortion[step : step + 1] if self.distorted else None,
                times=self.times[step : step + 1, None],
            )
            camera.rescale_output_resolution(scale)
            yield camera

    def to_frames(self, times: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 1"]:
        """Normalised times to fractional frame numbers, linear between the frames' own times."""
        if len(self) == 1:
            return torch.zeros_like(times)
        times = times.clamp(self.times[0], self.times[-1])
        upper = torch.searchsorted(self.times, times.contiguous()).clamp(1, len(self) - 1)
        low, high = self.times[upper - 1], self.times[upper]
        return (upper - 1) + (times - low) / (high - low)

    def to_frame(self, time: float) -> float:
        """`to_frames` of one time."""
        return float(np.interp(time, self._times, range(len(self))))

    def nearest(self, time: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """The time step nearest to a time in frames (see `to_frames`)."""
        return nearest_frame(time, len(self))

    def time_near(self, pose: Float[Tensor, "3 4"]) -> Float[Tensor, "1"]:
        """Normalised time of the point of the camera's own path that is nearest to a pose's position.

        Views that come without a time (interpolated paths) get the time at which the camera stood there.
        """
        if len(self) == 1:
            return self.times[:1]
        start, end = self.poses[:-1, :, 3], self.poses[1:, :, 3]
        along = end - start
        fraction = ((pose[:, 3].to(start) - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
        fraction = fraction.clamp(0, 1)
        distance = (start + fraction[:, None] * along - pose[:, 3].to(start)).square().sum(-1)
        best = distance.argmin()
        return (self.times[best] + fraction[best] * (self.times[best + 1] - self.times[best]))[None]

    def project(
        self, points: Float[Tensor, "*batch 3"], step: Int[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
        """Pixels (centres at +0.5) and depths of world points in the frames numbered `step`."""
        distortion = self.distortion[step] if self.distorted else None
        return project(points, self.poses[step], self.intrinsics[step], distortion)

    def project_into(
        self, points: Float[Tensor, "*rays 3"], frame: Int[Tensor, "*rays"]
    ) -> tuple[Float[Tensor, "*rays 2"], Float[Tensor, "*rays"]]:
        """Pixels and depths of world points in training frames, numbered as the data set does."""
        distortion = self.frame_distortion[frame] if self.distorted else None
        return project(points, self.frame_poses[frame], self.frame_intrinsics[frame], distortion)

    def neighbour(self, frame: Int[Tensor, "rays"], step: int) -> Int[Tensor, "rays"]:
        """The same camera's frame at the next (+1) or previous (-1) time step; -1 where it has none."""
        return self.neighbours[frame, (step + 1) // 2]

    def neighbour_of(self, frame: int, step: int) -> int:
        """`neighbour` of one frame."""
        return self._neighbours[frame][(step + 1) // 2]

    def gather(
        self, points: Float[Tensor, "*batch 3"], step: Int[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch 1"]]:
        """Features under world points in the frames numbered `step`, and 1 where the frame covers the point's pixel."""
        return self._look_up(self.features, points, step)

    def gather_color(
        self, points: Float[Tensor, "*batch 3"], step: Int[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 1"]]:
        """Colours under world points, and 1 where the frame covers the point's pixel."""
        return self._look_up(self.colors, points, step)

    def evidence(
        self, points: Float[Tensor, "*batch 3"], step: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch classes"]:
        """Log-likelihood of each class, up to a constant, at the pixel under a point; 0 outside, and without labels.

        Also for points that are hidden there: it is the pixel that is to be labelled, and while the branches are not
        yet separated, each of them alone has to explain what is seen.
        """
        said, visible = self._look_up(self.class_logits, points, step)
        logits = visible * said
        if not self.has_carried:
            return logits
        share = self.project(points.detach(), step)[0] / self.sizes[step]
        row, column = _cell(share, self.carried_labels.shape[2:])
        # Advanced indices around a slice come first: [*batch, 2].
        where = [index.to(self.carried_labels.device) for index in (self.source[step], row, column)]
        labels = self.carried_labels[where[0], :, where[1], where[2]].long().to(points.device)
        log_ratio = self.carried_log_ratio[where[0], :, where[1], where[2]].float().to(points.device)
        return logits.scatter_add(-1, labels, log_ratio * visible)

    def unobstructed(self, points: Float[Tensor, "*batch 3"], step: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """The frame closest to `step` in which nothing that moves covers points that stand still.

        `step` itself where it shows the point, or where no frame nearby does better.
        """
        if not self.has_moving:
            return step
        if not points.is_cpu:  # to know which are covered, the host would have to wait
            return self._uncovered(points, step)
        missing = torch.nonzero(self._covered(points, step), as_tuple=True)
        chosen = step.clone()
        chosen[missing] = self._uncovered(points[missing], step[missing])
        return chosen

    def _uncovered(self, points: Tensor, step: Tensor) -> Int[Tensor, "*batch"]:
        own = step[..., None]
        candidates = own + constant(SEARCH_OFFSETS, own)
        inner = candidates.clamp(0, len(self) - 1)
        places = points.detach()[..., None, :].expand(*inner.shape, 3)
        pixels, depth = self.project(places, inner)
        size = self.sizes[inner]
        # The frame itself may show it outside of the picture, where no other does better.
        elsewhere = (inner == candidates) & (inside(pixels, depth, size) | (candidates == own))
        seen = elsewhere & ~self._moves(pixels / size, inner)
        best = seen.int().argmax(dim=-1, keepdim=True)  # the first of those that are as good; of none, its own
        return inner.gather(-1, best)[..., 0]

    def _covered(self, points: Tensor, step: Tensor) -> Bool[Tensor, "*batch"]:
        return self._moves(self.project(points.detach(), step)[0] / self.sizes[step], step)

    def _moves(self, share: Float[Tensor, "*batch 2"], step: Tensor) -> Bool[Tensor, "*batch"]:
        """Whether something that moves is seen at a place in the picture, (0, 0) to (1, 1)."""
        row, column = _cell(share, self.moving.shape[1:])
        return self.moving[self.source[step], row, column]

    def _look_up(self, table: Tensor, points: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        pixels, depth = self.project(points, step)
        size = self.sizes[step]
        cells = constant(tuple(table.shape[2:0:-1]), pixels)
        visible = inside(pixels.detach(), depth.detach(), size)[..., None].float()
        where = pixels / size * cells - 0.5
        if table.device == where.device:
            return gather_bilinear(table, self.source[step], where), visible
        # On disk: looked up where it can be read.
        found = gather_bilinear(table, self.source[step].to(table.device), where.to(table.device))
        return found.to(where.device), visible


def _cell(share: Float[Tensor, "*batch 2"], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Row and column of the cell of a grid of `size` (rows, columns) at a place in the picture, (0, 0) to (1, 1)."""
    height, width = size
    last = constant((width - 1, height - 1), share)
    column, row = (share * constant((width, height), share)).clamp(min=0).minimum(last).long().unbind(dim=-1)
    return row, column


def same_camera_neighbours(steps: Sequence[int], camera_ids: Sequence[str] | None) -> Int[Tensor, "frames 2"]:
    """Of each frame, those of its camera one time step before and after; -1 where there is none.

    Args:
        steps: time step of each frame.
        camera_ids: of each frame; None for one camera.
    """
    cameras = ["0"] * len(steps) if camera_ids is None else list(camera_ids)
    known = {(camera, step): frame for frame, (camera, step) in enumerate(zip(cameras, steps, strict=True))}
    pairs = zip(cameras, steps, strict=True)
    return torch.tensor([[known.get((c, s + way), -1) for way in (-1, 1)] for c, s in pairs], dtype=torch.long)
