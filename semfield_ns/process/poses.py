"""Camera poses: structure from motion on what does not move (pycolmap), or those of another program.

Poses are OpenGL camera-to-world; names of images are those of the picked frames.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path, image_size, read_npz, reason
from semfield_ns.process.frames import FEWEST
from semfield_ns.process.geometry import Camera, Pose, camera_to_world
from semfield_ns.process.models import ModelCard
from semfield_ns.scenes.flow import Mask

Lens = Literal["radial", "pinhole"]

_EXHAUSTIVE = 120  # frames up to which each is matched with each
_OVERLAP = 20  # neighbours that a frame is matched with in longer videos
_MASK_MARGIN = 5  # px around moving things where no feature is taken: its patch would see them
_GOOD_ERROR = 1.0  # px; a worse reprojection error makes the next attempt worth its time
_LEAST_SHARE = 0.5  # of the frames that must be registered


@dataclass(frozen=True)
class Attempt:
    """How to look for poses."""

    name: str
    peak_threshold: float
    """of SIFT; lower finds more and weaker features"""
    first_angle: float
    """degrees between the rays of the first pair"""
    least_angle: float
    """degrees between the rays of a point"""
    two_views: bool = False
    """whether points seen by two frames only count"""


ATTEMPTS = (
    Attempt("default", 0.0067, 16.0, 1.5),
    Attempt("more features and smaller angles", 0.002, 4.0, 0.5),
    Attempt("pairs of frames", 0.001, 2.0, 0.25, two_views=True),
)


@dataclass(frozen=True, eq=False)
class Registration:
    """Posed frames and the sparse points they see."""

    cameras: dict[int, Camera]
    """of each registered frame, by its number"""
    poses: dict[int, Pose]
    points: Float[np.ndarray, "M 3"]
    """world"""
    seen: dict[int, list[int]]
    """points that a frame sees, by its number"""
    figures: dict[str, Any]
    """for the report"""
    card: ModelCard

    def depths(self, number: int) -> tuple[Float[np.ndarray, "K 2"], Float[np.ndarray, "K"]]:
        """Pixels and z-depths of the sparse points that a frame sees, in front of it and inside the image."""
        points = self.points[self.seen.get(number, [])]
        w2c = np.linalg.inv(self.poses[number])
        local = (points @ w2c[:3, :3].T + w2c[:3, 3]) * [1, -1, -1]
        local = local[local[:, 2] > 1e-9]
        camera = self.cameras[number]
        pixels = camera.project(local) if len(local) else np.zeros((0, 2))
        inside = ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(-1)
        return pixels[inside], local[inside, 2]

    def save(self, path: Path) -> None:
        """One .npz, written atomically; `load` reads it."""
        numbers = sorted(self.poses)
        rows = [self.cameras[n] for n in numbers]
        lengths = [len(self.seen.get(n, [])) for n in numbers]
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                numbers=np.array(numbers),
                poses=np.stack([self.poses[n] for n in numbers]),
                intrinsics=np.array([[c.fx, c.fy, c.cx, c.cy, c.width, c.height, *c.distortion] for c in rows]),
                points=self.points.reshape(-1, 3),
                lengths=np.array(lengths),
                seen=np.array([p for n in numbers for p in self.seen.get(n, [])], dtype=np.int64),
                about=np.array(json.dumps({"figures": self.figures, "card": self.card.to_json()})),
            )

    @classmethod
    def load(cls, path: Path) -> "Registration":
        arrays = read_npz(path, "poses")
        numbers = [int(n) for n in arrays["numbers"]]
        cameras = {
            n: Camera(row[0], row[1], row[2], row[3], int(row[4]), int(row[5]), row[6:])
            for n, row in zip(numbers, arrays["intrinsics"], strict=True)
        }
        parts = np.split(arrays["seen"], np.cumsum(arrays["lengths"])[:-1])
        about = json.loads(str(arrays["about"]))
        return cls(
            cameras,
            dict(zip(numbers, arrays["poses"], strict=True)),
            arrays["points"],
            {n: part.tolist() for n, part in zip(numbers, parts, strict=True)},
            about["figures"],
            ModelCard(**about["card"]),
        )


# --- structure from motion -------------------------------------------------------------------------------------------


def register(
    images: Path,
    names: Sequence[str],
    masks: Sequence[Mask] | None,
    work: Path,
    focal: float | None = None,
    lens: Lens = "radial",
    threads: int = 1,
    shared_camera: bool = True,
) -> Registration:
    """Poses of the images by incremental structure from motion.

    Tries the settings of ATTEMPTS until all images are registered with less than a pixel of error, and keeps the best.

    Args:
        images: folder.
        names: of the images in it, in order.
        masks: what must not be used of each.
        work: folder for the database, emptied first.
        focal: px, if known: it then stays as it is.
        lens: radial: one coefficient of distortion is estimated too.
        threads: of pycolmap.
        shared_camera: whether all images are by one camera that does not zoom.
    Raises: SemfieldError saying how many frames were registered and what to try.
    """
    pycolmap = _pycolmap()
    shutil.rmtree(work, ignore_errors=True)
    if masks is not None:
        for name, mask in zip(names, masks, strict=True):
            _write_feature_mask(work / "masks" / f"{name}.png", mask)
    best: tuple[Any, Attempt] | None = None
    for attempt in ATTEMPTS:
        found = _reconstruct(
            pycolmap, images, names, work, attempt, focal, lens, threads, masks is not None, shared_camera
        )
        if found is not None and (best is None or _goodness(found) > _goodness(best[0])):
            best = found, attempt
        if best is not None and best[0].num_reg_images() == len(names) and _error(best[0]) < _GOOD_ERROR:
            break
    registered = best[0].num_reg_images() if best else 0
    if best is None or registered < max(FEWEST, _LEAST_SHARE * len(names)):
        raise SemfieldError(
            f"{registered} of {len(names)} frames could be registered. Walk sideways or around the scene "
            "while filming, keep what moves to less than half of the picture, avoid blur; or take more frames "
            "(--num-frames), give the focal length (--focal), or import poses (--poses)."
        )
    return _to_registration(pycolmap, best[0], names, best[1], focal)


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise SemfieldError(
            "Poses are found by pycolmap, which is not installed: pip install 'semfield-ns[process]', or import poses "
            "(--poses)."
        ) from error
    return pycolmap


def _write_feature_mask(path: Path, mask: Mask) -> None:
    size = 2 * _MASK_MARGIN + 1
    wide = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), (255 * (1 - wide)).astype(np.uint8))


def _goodness(reconstruction: Any) -> tuple[int, float]:
    return reconstruction.num_reg_images(), -_error(reconstruction)


def _error(reconstruction: Any) -> float:
    return float(reconstruction.compute_mean_reprojection_error())


def _reconstruct(
    pycolmap: Any,
    images: Path,
    names: Sequence[str],
    work: Path,
    attempt: Attempt,
    focal: float | None,
    lens: Lens,
    threads: int,
    masked: bool,
    shared_camera: bool,
) -> Any:
    """The largest model of one attempt; None if there is none."""
    database, output = work / "database.db", work / "models"
    database.unlink(missing_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)

    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_RADIAL" if lens == "radial" else "SIMPLE_PINHOLE"
    if masked:
        reader.mask_path = work / "masks"
    if focal is not None:
        height, width = image_size(images / names[0])
        reader.camera_params = ",".join(str(v) for v in [focal, width / 2, height / 2] + [0] * (lens == "radial"))
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = threads
    extraction.use_gpu = False
    extraction.sift.peak_threshold = attempt.peak_threshold
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = threads
    matching.use_gpu = False
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.num_threads = threads
    mapping.random_seed = 0
    mapping.min_model_size = 3
    mapping.ba_refine_focal_length = focal is None
    mapping.mapper.init_min_tri_angle = attempt.first_angle
    mapping.mapper.filter_min_tri_angle = attempt.least_angle
    mapping.triangulation.min_angle = attempt.least_angle
    mapping.triangulation.ignore_two_view_tracks = not attempt.two_views

    mode = pycolmap.CameraMode.SINGLE if shared_camera else pycolmap.CameraMode.PER_IMAGE
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 3  # its log is for its developers; what matters is in the report
    try:
        pycolmap.set_random_seed(0)
        pycolmap.extract_features(
            database,
            images,
            image_names=list(names),
            camera_mode=mode,
            reader_options=reader,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        if len(names) <= _EXHAUSTIVE:
            pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)
        else:
            pairing = pycolmap.SequentialPairingOptions()
            pairing.overlap = _OVERLAP
            pycolmap.match_sequential(
                database, matching_options=matching, pairing_options=pairing, device=pycolmap.Device.cpu
            )
        models = pycolmap.incremental_mapping(database, images, output, options=mapping)
    except (RuntimeError, ValueError) as error:
        raise SemfieldError(
            f"Structure from motion failed in {work} ({reason(error)}): is there space left on the disk?"
        ) from error
    finally:
        pycolmap.logging.minloglevel = level
    return max(models.values(), key=_goodness, default=None)


def _to_registration(
    pycolmap: Any, model: Any, names: Sequence[str], attempt: Attempt, focal: float | None
) -> Registration:
    cameras, poses, images = _read_model(model, names)
    points = sorted(model.points3D)
    row = {point: i for i, point in enumerate(points)}
    xyz = np.array([model.points3D[point].xyz for point in points]).reshape(-1, 3)
    seen = {
        number: [row[p.point3D_id] for p in image.points2D if p.has_point3D() and p.point3D_id in row]
        for number, image in images.items()
    }
    first = next(iter(cameras.values()))
    figures = {
        "registered": len(poses),
        "frames": len(names),
        "reprojection_error_px": _error(model),
        "points": len(points),
        "mean_track_length": float(model.compute_mean_track_length()) if points else 0.0,
        "median_parallax_deg": median_parallax(xyz, poses, seen),
        "focal_px": first.focal,
        "focal_given": focal is not None,
        "distortion_k1": float(first.distortion[0]),
        "settings": attempt.name,
    }
    card = ModelCard("poses", "pycolmap, incremental structure from motion", pycolmap.__version__, "BSD-3-Clause")
    return Registration(cameras, poses, xyz, seen, figures, card)


def _read_model(model: Any, names: Sequence[str]) -> tuple[dict[int, Camera], dict[int, Pose], dict[int, Any]]:
    """Cameras, poses and images of a COLMAP model by the number of the frame; images of other names are left out."""
    number_of = {name: number for number, name in enumerate(names)}
    cameras, poses, images = {}, {}, {}
    for image in model.images.values():
        if image.has_pose and image.name in number_of:
            number = number_of[image.name]
            w2c = np.eye(4)
            w2c[:3] = image.cam_from_world().matrix()
            cameras[number] = _from_colmap(model.cameras[image.camera_id])
            poses[number] = camera_to_world(w2c)
            images[number] = image
    return cameras, poses, images


def _from_colmap(camera: Any) -> Camera:
    """A COLMAP camera of one of the models that Nerfstudio's distortion covers."""
    values: dict[str, float] = dict(
        zip((part.strip() for part in camera.params_info.split(",")), camera.params, strict=True)
    )
    if camera.model_name not in ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"):
        raise SemfieldError(
            f"The COLMAP camera model {camera.model_name} is not supported: undistort the images, or use PINHOLE, "
            "SIMPLE_RADIAL, RADIAL or OPENCV."
        )
    fx = values["f"] if "f" in values else values["fx"]
    distortion = [values.get("k", values.get("k1", 0.0)), values.get("k2", 0.0), 0.0, 0.0]
    distortion += [values.get("p1", 0.0), values.get("p2", 0.0)]
    return Camera(
        fx, values.get("fy", fx), values["cx"], values["cy"], camera.width, camera.height, np.array(distortion)
    )


def median_parallax(
    points: Float[np.ndarray, "M 3"], poses: dict[int, Pose], seen: dict[int, list[int]], most: int = 2000
) -> float:
    """Median over points of the widest angle, degrees, between the rays of cameras that see it."""
    if not len(points):
        return 0.0
    watchers: dict[int, list[np.ndarray]] = {}
    for number, visible in seen.items():
        for point in visible:
            watchers.setdefault(point, []).append(poses[number][:3, 3])
    angles = []
    for point in sorted(watchers)[:: max(1, len(watchers) // most)]:
        rays = np.stack(watchers[point]) - points[point]
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        angles.append(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))
    return float(np.median(angles)) if angles else 0.0


# --- poses of other programs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameNames:
    """What a picked frame may be called by others."""

    number: int
    """of the picked frame: 0000.png is 0"""
    index: int
    """in the video, or in the folder of images"""
    name: str
    """of the image in the folder; empty for a video"""


def import_poses(path: Path, frames: Sequence[FrameNames], size: tuple[int, int], source_count: int) -> Registration:
    """Poses of another program for the picked frames.

    Args:
        path: a transforms.json (or the folder of one, as ns-process-data writes it), a COLMAP model (a folder with
            cameras.bin or .txt, or one above its sparse/0; VGGT writes such), an .npz of MegaSaM (cam_c2w, intrinsic),
            or a folder of ViPE (pose/*.npz, intrinsics/*.npz).
        frames: the picked frames.
        size: (width, height) of the picked frames, px.
        source_count: frames of the video or images of the folder.
    Raises: SemfieldError for anything else, or poses for too few of the frames.
    """
    path = Path(path)
    if not path.exists():
        raise SemfieldError(f"The poses {path} do not exist: give a transforms.json, a COLMAP model or an .npz.")
    transforms = path / "transforms.json" if path.is_dir() else path
    model = _colmap_folder(path)
    if transforms.suffix == ".json" and transforms.is_file():
        found = _import_transforms(transforms, frames)
    elif model is not None:
        found = _import_colmap(model, frames)
    elif path.suffix == ".npz":
        found = _import_megasam(path, frames, source_count)
    elif path.is_dir() and (path / "pose").is_dir():
        found = _import_vipe(path, frames)
    else:
        raise SemfieldError(
            f"{path} holds no poses that are known here: give a transforms.json, a COLMAP model (cameras.bin), an .npz "
            "of MegaSaM (cam_c2w, intrinsic) or a folder of ViPE (pose/, intrinsics/)."
        )
    if len(found.poses) < FEWEST:
        raise SemfieldError(
            f"{path} has poses for {len(found.poses)} of the {len(frames)} picked frames: they are matched by the "
            "names of the images (0000.png, the name in the folder, or a number that is the frame's in the video)."
        )
    cameras = {number: resized(camera, size) for number, camera in found.cameras.items()}
    figures = found.figures | {"registered": len(found.poses), "frames": len(frames)}
    figures |= {"focal_px": next(iter(cameras.values())).focal, "points": len(found.points)}
    return replace(found, cameras=cameras, figures=figures)


def resized(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of the same picture at another size (width, height)."""
    x, y = size[0] / camera.width, size[1] / camera.height
    return Camera(camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y, *size, camera.distortion)


def match_name(name: str, frames: Sequence[FrameNames]) -> int | None:
    """The picked frame that an image of this name shows; None if it is another one.

    The name of the original image comes first, then that of the picked one, then a number that is that of the original.
    """
    stem = Path(name).stem
    digits = "".join(c for c in stem[::-1].partition("_")[0][::-1] if c.isdigit()) if stem[-1:].isdigit() else ""
    for frame in frames:
        if frame.name and Path(frame.name).stem == stem:
            return frame.number
    for frame in frames:
        if stem == f"{frame.number:04d}":
            return frame.number
    for frame in frames:
        if digits and int(digits) == frame.index:
            return frame.number
    return None


def _given(poses: dict[int, Pose], cameras: dict[int, Camera], name: str, **fields: Any) -> Registration:
    card = ModelCard("poses", f"imported from {name}", "given", "that of its maker")
    values: dict[str, Any] = {"points": np.zeros((0, 3)), "seen": {}, "figures": {}, "card": card} | fields
    return Registration(cameras, poses, **values)


def _import_transforms(path: Path, frames: Sequence[FrameNames]) -> Registration:
    from semfield_ns.scenes.formats.transforms import read_transforms

    scene = read_transforms(path)
    cameras, poses = {}, {}
    for frame in scene.train + scene.test:
        number = match_name(frame.image_path.name, frames)
        if number is not None:
            cameras[number] = Camera(
                frame.fx, frame.fy, frame.cx, frame.cy, frame.width, frame.height, frame.distortion
            )
            poses[number] = frame.c2w
    points = np.zeros((0, 3)) if scene.points is None else scene.points
    seen = {number: list(range(len(points))) for number in poses}  # which are hidden is not known
    return _given(poses, cameras, path.name, points=points, seen=seen)


def _colmap_folder(path: Path) -> Path | None:
    for folder in (path, path / "sparse" / "0", path / "sparse", path / "colmap" / "sparse" / "0"):
        if any((folder / f"cameras.{suffix}").is_file() for suffix in ("bin", "txt")):
            return folder
    return None


def _import_colmap(path: Path, frames: Sequence[FrameNames]) -> Registration:
    pycolmap = _pycolmap()
    try:
        model = pycolmap.Reconstruction(str(path))
    except (RuntimeError, ValueError) as error:
        raise SemfieldError(f"{path} is not a whole COLMAP model ({reason(error)}).") from error
    by_name = {image.name: match_name(image.name, frames) for image in model.images.values()}
    names = [next((name for name, n in by_name.items() if n == frame.number), "") for frame in frames]
    cameras, poses, images = _read_model(model, names)
    row = {point: i for i, point in enumerate(sorted(model.points3D))}
    xyz = np.array([model.points3D[point].xyz for point in row]).reshape(-1, 3)
    seen = {n: [row[p.point3D_id] for p in image.points2D if p.has_point3D()] for n, image in images.items()}
    figures = {"reprojection_error_px": _error(model)} if len(row) else {}
    return _given(poses, cameras, f"COLMAP ({path.name})", points=xyz, seen=seen, figures=figures)


def _import_megasam(path: Path, frames: Sequence[FrameNames], source_count: int) -> Registration:
    arrays = read_npz(path, "poses")
    c2w, intrinsic = arrays.get("cam_c2w"), arrays.get("intrinsic")
    if c2w is None or intrinsic is None or c2w.ndim != 3 or c2w.shape[1:] != (4, 4) or intrinsic.shape != (3, 3):
        raise SemfieldError(f"{path} needs cam_c2w (N,4,4) and intrinsic (3,3), as MegaSaM writes them.")
    place = _places(path, len(c2w), frames, source_count)
    camera = _from_matrix(arrays.get("depths"), intrinsic)
    poses = {number: camera_to_world(np.linalg.inv(c2w[i].astype(np.float64))) for number, i in place.items()}
    return _given(poses, dict.fromkeys(poses, camera), "MegaSaM")


def _places(path: Path, count: int, frames: Sequence[FrameNames], source_count: int) -> dict[int, int]:
    """Row of each picked frame in arrays that have no names."""
    if count == len(frames):
        return {frame.number: i for i, frame in enumerate(frames)}
    if count == source_count:
        return {frame.number: frame.index for frame in frames}
    raise SemfieldError(
        f"{path} has {count} poses, but {len(frames)} frames were picked of {source_count}: give one pose for each "
        "frame of the one or the other."
    )


def _from_matrix(depths: np.ndarray | None, intrinsic: Float[np.ndarray, "3 3"]) -> Camera:
    """A pinhole; the image is as large as the depth maps, or twice its principal point."""
    cx, cy = float(intrinsic[0, 2]), float(intrinsic[1, 2])
    height, width = depths.shape[1:3] if depths is not None and depths.ndim == 3 else (round(2 * cy), round(2 * cx))
    return Camera(float(intrinsic[0, 0]), float(intrinsic[1, 1]), cx, cy, width, height)


def _import_vipe(path: Path, frames: Sequence[FrameNames]) -> Registration:
    files = [sorted((path / kind).glob("*.npz")) for kind in ("pose", "intrinsics")]
    if not all(len(found) == 1 for found in files):
        raise SemfieldError(f"{path} needs one file in pose/ and one in intrinsics/, as ViPE writes them for a video.")
    pose, lens = (read_npz(found[0], "poses") for found in files)
    for arrays, file in zip((pose, lens), files, strict=True):
        if "data" not in arrays or "inds" not in arrays:
            raise SemfieldError(f"{file[0]} needs the arrays data and inds, as ViPE writes them.")
    lens_of = {int(i): row for i, row in zip(lens["inds"], lens["data"], strict=True)}
    pose_of = {int(i): row for i, row in zip(pose["inds"], pose["data"], strict=True)}
    poses, cameras = {}, {}
    for frame in frames:
        if frame.index in pose_of and frame.index in lens_of:
            fx, fy, cx, cy = (float(v) for v in lens_of[frame.index][:4])
            poses[frame.number] = camera_to_world(np.linalg.inv(pose_of[frame.index].astype(np.float64)))
            cameras[frame.number] = Camera(fx, fy, cx, cy, round(2 * cx), round(2 * cy))
    return _given(poses, cameras, "ViPE")
