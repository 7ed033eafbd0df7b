"""What a scene is: posed frames with optional per-pixel files, and the checks that hold across all of them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import capital, image_size, npy_shape, npz_shapes
from semfield_ns.scenes.labels import LabelMap

DepthKind = Literal["metric", "disparity"]
CameraMotion = Literal["moving", "turning", "still"]

logger = logging.getLogger("semfield")

_MOST = 0.8  # of the pictures: the frames of the others may be left out
_ROTATION_TOLERANCE = 2e-3  # poses are often stored as float32, or written with few digits
_IMAGE_KEYS = {
    "image_path": "image",
    "semantic_path": "label image",
    "instance_path": "instance image",
    "dynamic_mask_path": "dynamic mask",
    "object_mask_path": "object mask",
    "mask_path": "mask",
}
_FLOW_KEYS = {"flow_fwd_path": "forward flow", "flow_bwd_path": "backward flow"}


@dataclass(frozen=True)
class Lens:
    """What a picture was taken through, at the resolution of its frame. Hashable."""

    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in px"""
    distortion: tuple[float, ...]
    """k1 k2 k3 k4 p1 p2"""
    width: int
    height: int
    fisheye: bool = False
    """whether the coefficients are of OpenCV's fisheye model, with p1 and p2 of 0"""


@dataclass(frozen=True, eq=False)
class Frame:
    """One posed image and the files that belong to it. Paths are absolute or relative to the working folder."""

    image_path: Path
    """the picture"""
    c2w: Float[np.ndarray, "4 4"]
    """camera-to-world, float64, OpenGL axes (x right, y up, z back), in the scene's own units"""
    fx: float
    """focal length, px"""
    fy: float
    """focal length, px"""
    cx: float
    """principal point, px; the centre of the top left pixel is at 0.5"""
    cy: float
    """principal point, px"""
    width: int
    """px"""
    height: int
    """px"""
    stored_size: tuple[int, int] | None = None
    """(height, width) of the picture in its file, px, where it is brought to a larger size when it is read"""
    time: float = 0.0
    """raw time, as the scene's files give it"""
    time_index: int = 0
    """index into the distinct times of the training video; the nearest one for a held-out frame"""
    camera_id: str = "0"
    """frames of one camera, in the order of time, are a video"""
    distortion: Float[np.ndarray, "6"] = field(default_factory=lambda: np.zeros(6))
    """k1 k2 k3 k4 p1 p2 (OpenCV names)"""
    fisheye: bool = False
    """whether these are of OpenCV's fisheye model (p1 and p2 are 0); data parsers make pinholes of such frames"""
    lens: Lens | None = None
    """what the pictures in the files were taken through, where the numbers above are those of a pinhole instead"""
    semantic_path: Path | None = None
    """class ids or palette colours"""
    instance_path: Path | None = None
    """instance ids"""
    dynamic_mask_path: Path | None = None
    """not 0 where things move"""
    object_mask_path: Path | None = None
    """not 0 on the object of interest"""
    flow_fwd_path: Path | None = None
    """optical flow to the next frame in time"""
    flow_bwd_path: Path | None = None
    """optical flow to the previous frame in time"""
    depth_path: Path | None = None
    """.npy or 16-bit PNG; Scene.depth_kind says what it holds"""
    mask_path: Path | None = None
    """0 where the picture must not be used"""

    @property
    def where(self) -> str:
        """How errors call this frame."""
        return f"frame {self.image_path.parent.name}/{self.image_path.name}"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.height, self.width


@dataclass(frozen=True, eq=False)
class Scene:
    """A whole scene, in its own units and world axes."""

    root: Path
    """folder that the scene was read from"""
    name: str
    """what to call it"""
    train: list[Frame]
    """sorted by (time, camera_id)"""
    test: list[Frame] = field(default_factory=list)
    """held-out frames, sorted the same way"""
    label_map: LabelMap | None = None
    """None: a scene without semantics"""
    depth_kind: DepthKind | None = None
    """metric: z-depth along the optical axis; disparity: relative inverse depth, up to scale and shift"""
    depth_unit_scale: float = 1.0
    """multiplies values of metric depth files to give the scene's own units"""
    near: float | None = None
    """depth of the nearest content, own units"""
    far: float | None = None
    """depth of the furthest content, own units"""
    points: Float[np.ndarray, "M 3"] | None = None
    """sparse points, own units"""
    camera_motion: CameraMotion = "moving"
    """turning, still: all poses are of one place, and other viewpoints and depth are not known"""

    @property
    def times(self) -> Float[np.ndarray, "T"]:
        """Distinct raw times of the training frames, ascending."""
        return np.unique([frame.time for frame in self.train])


def with_pictures(pictures: Mapping[str, Path], where: str) -> set[str]:
    """Names of frames whose pictures are there: all, or the others are left out where they are few, and said.

    Where more than a fifth is missing all names are given, and the check of the files says which picture it misses.
    """
    there = {name for name, picture in pictures.items() if picture.is_file()}
    if len(there) == len(pictures) or len(there) < _MOST * len(pictures):
        return set(pictures)
    logger.warning(
        "%s: the pictures of %d of %d frames are missing; these frames are left out.",
        where,
        len(pictures) - len(there),
        len(pictures),
    )
    return there


def assemble_scene(
    root: Path,
    train: Sequence[Frame],
    test: Sequence[Frame] = (),
    *,
    name: str | None = None,
    multiples: bool = False,
    **fields: Any,
) -> Scene:
    """Check frames given in the order of the scene's files, sort them, number their times, check everything.

    multiples: images may be a whole multiple of the camera's size; `fields` are the remaining fields of Scene.
    Raises SemfieldError for fewer than 2 training frames, and as check_times and check_scene do.
    """
    if len(train) < 2:
        found = "one frame" if train else "no frames"
        raise SemfieldError(f"Scene {root} has {found} to train on; at least 2 are needed.")
    check_times(train)
    check_times(test)
    times = np.unique([frame.time for frame in train])
    scene = Scene(
        root, name or root.resolve().name, _sorted_frames(train, times), _sorted_frames(test, times), **fields
    )
    check_scene(scene, multiples)
    return scene


def _sorted_frames(frames: Sequence[Frame], times: np.ndarray) -> list[Frame]:
    ordered = sorted(frames, key=lambda frame: (frame.time, frame.camera_id))
    return [replace(frame, time_index=int(np.abs(times - frame.time).argmin())) for frame in ordered]


# --- checks ----------------------------------------------------------------------------------------------------------


def check_times(frames: Sequence[Frame]) -> None:
    """Times must be numbers and must ascend for each camera, in the order in which frames are listed."""
    last: dict[str, Frame] = {}
    for frame in frames:
        if not np.isfinite(frame.time):
            raise SemfieldError(f"{capital(frame.where)}: its time is {frame.time}, not a finite number.")
        previous = last.get(frame.camera_id)
        if previous is not None and frame.time <= previous.time:
            if frame.time == previous.time:
                problem = f"has the time {frame.time:g} that {previous.where} of the same camera has"
            else:
                problem = (
                    f"has the time {frame.time:g}, before the {previous.time:g} of {previous.where} listed ahead of it"
                )
            raise SemfieldError(f"{capital(frame.where)} {problem}: list frames in the order of time, each time once.")
        last[frame.camera_id] = frame


def check_scene(scene: Scene, multiples: bool = False) -> None:
    """Everything that can be checked from poses and file headers.

    Raises SemfieldError naming the frame and the file: bad poses or intrinsics, files missing or
    unreadable, sizes that disagree, a class list without a single label, labels without a class list.
    A class absent from a frame, an empty mask or an unlabelled frame are normal.
    """
    frames = [*scene.train, *scene.test]
    for frame in frames:
        check_camera(frame)
        check_files(frame, multiples)
    far = next((f for f in frames if not (0 < f.cx < f.width and 0 < f.cy < f.height)), None)
    if far is not None:
        logger.warning(
            "%s: its principal point (%g, %g) is outside of the picture of %dx%d pixels: was it found at another size?",
            capital(far.where),
            *(far.cx, far.cy, far.width, far.height),
        )
    labelled = [frame for frame in frames if frame.semantic_path is not None]
    if scene.label_map is None and labelled:
        raise SemfieldError(f"{capital(labelled[0].where)} has a label image, but {scene.root} lists no classes.")
    if scene.label_map is not None and not labelled:
        raise SemfieldError(
            f"Scene {scene.root} lists {len(scene.label_map)} classes but no frame has a label image: "
            "label at least one frame, or drop the class list."
        )
    for name, value in (("near", scene.near), ("far", scene.far)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise SemfieldError(f"Scene {scene.root}: its {name} bound is {value}, not a positive depth.")


def check_camera(frame: Frame) -> None:
    """Pose finite, right-handed and orthonormal; intrinsics finite and positive."""
    if frame.c2w.shape != (4, 4):
        raise SemfieldError(f"{capital(frame.where)}: its camera-to-world matrix is not 4x4 or 3x4.")
    if not np.isfinite(frame.c2w).all():
        raise SemfieldError(f"{capital(frame.where)}: its pose contains NaN or infinity.")
    rotation = frame.c2w[:3, :3]
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise SemfieldError(
            f"{capital(frame.where)}: the rotation of its pose is not orthonormal and right-handed "
            "(no scale, shear or mirroring in a camera-to-world matrix)."
        )
    if np.abs(frame.c2w[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise SemfieldError(f"{capital(frame.where)}: the last row of its pose is not 0 0 0 1.")
    intrinsics = np.array([frame.fx, frame.fy, frame.cx, frame.cy, *frame.distortion], dtype=np.float64)
    if not np.isfinite(intrinsics).all() or frame.fx <= 0 or frame.fy <= 0 or frame.width < 1 or frame.height < 1:
        raise SemfieldError(
            f"{capital(frame.where)}: its intrinsics must be finite, with a positive focal length and image size."
        )


def check_files(frame: Frame, multiples: bool = False) -> None:
    """Every file of a frame is there, its header reads, and its size is the frame's (or a whole multiple of it)."""
    for key, what in _IMAGE_KEYS.items():
        path = getattr(frame, key)
        if path is not None:
            _check_size(frame, path, image_size(path, f"{frame.where}, {what}"), what, multiples)
    for key, what in _FLOW_KEYS.items():
        path = getattr(frame, key)
        if path is not None:
            check_flow_header(frame, path, what)
    if frame.depth_path is not None:  # any resolution: depth is resized to the image
        what = f"{frame.where}, depth"
        shape = (npy_shape if frame.depth_path.suffix == ".npy" else image_size)(frame.depth_path, what)
        if len([n for n in shape if n != 1]) > 2 or min(shape, default=0) < 1:
            raise SemfieldError(f"{capital(what)}: {frame.depth_path} has the shape {shape}, a map (H,W) is wanted.")


def check_flow_header(frame: Frame, path: Path, what: str) -> None:
    """A flow file holds `flow` (H,W,2), and `mask` (H,W) if any, at the size of the frame."""
    shapes = npz_shapes(path, f"{frame.where}, {what}")
    expected = {"flow": (*frame.size, 2), "mask": frame.size}
    if "flow" not in shapes:
        raise SemfieldError(f'{capital(frame.where)}, {what}: {path} holds no array "flow".')
    for name, shape in expected.items():
        if name in shapes and shapes[name] != shape:
            raise SemfieldError(
                f'{capital(frame.where)}, {what}: "{name}" in {path} has the shape {shapes[name]}, not {shape}.'
            )


def _check_size(frame: Frame, path: Path, size: tuple[int, int], what: str, multiples: bool) -> None:
    factor = max(1, size[0] // frame.height) if multiples else 1
    if size != (factor * frame.height, factor * frame.width):
        raise SemfieldError(
            f"{capital(frame.where)}: its {what} {path} is {size[1]}x{size[0]} pixels, "
            f"its camera {frame.width}x{frame.height}."
        )
