"""Camera poses by structure from motion (pycolmap) on what does not move."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import image_size, reason
from semfield_ns.process.bundle import WRONG_CORNER, Freedom, drop_wrong, polished, settle_focal, without_moving
from semfield_ns.process.colmap import load_pycolmap, mean_error, read_model
from semfield_ns.process.frames import FEWEST, Report
from semfield_ns.process.models import ModelCard
from semfield_ns.process.registration import Registration, median_parallax
from semfield_ns.process.tracks import Followed, follow_corners, with_corners
from semfield_ns.scenes.flow import Mask

LensModel = Literal["radial", "pinhole"]

_EXHAUSTIVE = 120  # frames up to which each is matched with each
_OVERLAP = 20  # neighbours that a frame is matched with in longer videos
_MASK_MARGIN = 5  # px around moving things where no feature is taken: its patch would see them
_GOOD_ERROR = 1.0  # px; a worse reprojection error makes the next attempt worth its time
_WORST_ERROR = 2.0  # px; what is placed all at once is registered whether it fits or not
_GLOBAL = "all frames at once"
_SPACE = 4  # MiB a frame, for at most 8192 features of 152 bytes, and their matches
_LEAST_SHARE = 0.5  # of the frames that must be registered
_SEED = 0
_MOST_LEFT_OUT = 0.25  # of the registered frames


class TooFewRegistered(SemfieldError):
    """Structure from motion found no path that most frames are on."""


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


@dataclass(frozen=True)
class Rig:
    """What is known, and what may be assumed, of the cameras."""

    focal: float | None = None
    """px, if known: it then stays as it is"""
    lens: LensModel = "radial"
    """radial: one coefficient of distortion is estimated too"""
    shared: bool = True
    """whether all images are by one camera that does not zoom"""

    @property
    def freedom(self) -> Freedom:
        return Freedom(focal=self.focal is None, distortion=self.lens == "radial")


def register(
    images: Path, names: Sequence[str], masks: Sequence[Mask] | None, work: Path, rig: Rig, threads: int = 1
) -> Registration:
    """Poses of the images by incremental structure from motion and robust bundle adjustment.

    Tries the settings of ATTEMPTS until all images are registered with less than a pixel of error, and keeps the best;
    where that leaves too many out, all images are placed at once (global structure from motion).

    Args:
        images: folder.
        names: of the images in it, in order.
        masks: what must not be used of each.
        work: folder for the database and the model, emptied first.
        rig: the cameras.
        threads: of pycolmap.
    Raises: TooFewRegistered saying how many frames were registered and what to try; SemfieldError where the disk is all
        but full.
    """
    pycolmap = load_pycolmap()
    shutil.rmtree(work, ignore_errors=True)
    _require_space(work, len(names))
    if masks is not None:
        for name, mask in zip(names, masks, strict=True):
            _write_feature_mask(work / "masks" / f"{name}.png", mask)
    best: tuple[Any, str] | None = None
    for attempt in ATTEMPTS:
        found = _reconstruct(pycolmap, images, names, work, attempt, rig, threads)
        if found is not None and (best is None or _goodness(found) > _goodness(best[0])):
            best = found, attempt.name
        if best is not None and best[0].num_reg_images() == len(names) and mean_error(best[0]) < _GOOD_ERROR:
            break
    enough = max(FEWEST, _LEAST_SHARE * len(names))
    if best is None or best[0].num_reg_images() < enough:
        found = _all_at_once(pycolmap, images, work, rig, threads)
        if found is not None and found.num_reg_images() >= enough and mean_error(found) < _WORST_ERROR:
            best = found, _GLOBAL
    registered = best[0].num_reg_images() if best else 0
    if best is None or registered < enough:
        raise TooFewRegistered(
            f"{registered} of {len(names)} frames could be registered. Of photos: take more, each with most of "
            "what the one before shows. Of a video: walk sideways or around the scene while filming, keep what moves "
            "to less than half of the picture, avoid blur; or take more frames (--num-frames). Or give the focal "
            "length (--focal), or import poses (--poses)."
        )
    (work / "model").mkdir()
    best[0].write(work / "model")
    return _finished(pycolmap, best[0], names, work, rig, best[1])


def leave_out(frames: Sequence[int], names: Sequence[str], work: Path, rig: Rig, found: Registration) -> Registration:
    """What `register` found in `work`, without some frames.

    Raises: TooFewRegistered if there are too few others, or so many to leave out that the path is not to be believed.
    """
    left = len(found.poses) - len(frames)
    if left < max(FEWEST, _LEAST_SHARE * len(names)) or len(frames) > _MOST_LEFT_OUT * len(found.poses):
        raise TooFewRegistered(
            f"The poses of {len(frames)} of {len(found.poses)} frames contradict most of what can be followed from "
            "frame to frame: they may be those of something that moves and fills much of the picture."
        )
    pycolmap = load_pycolmap()
    model = pycolmap.Reconstruction(work / "model")
    unwanted = {names[frame] for frame in frames}
    for image in [image for image in model.images.values() if image.name in unwanted]:
        model.deregister_frame(image.frame_id)
    model.write(work / "model")
    rest = _finished(pycolmap, model, names, work, rig, found.figures["settings"])
    return replace(rest, figures=rest.figures | {"contradicted": len(frames)})


def refine(
    images: Path,
    names: Sequence[str],
    moving: dict[int, Mask],
    work: Path,
    rig: Rig,
    settings: str,
    report: Report = lambda share: None,
) -> Registration:
    """The poses that `register` found in `work`, without the points that lie on what moves by now better knowledge, and
    with corners followed through the video.

    moving: number of the frame -> mask, of those with a pose; settings: what `register` said of its attempt;
    report: called with the share of the corners that are followed.
    """
    pycolmap = load_pycolmap()
    model = pycolmap.Reconstruction(work / "model")
    model = without_moving(pycolmap, model, {names[number]: mask for number, mask in moving.items()})
    followed = list(follow_corners(images, sorted(moving), moving, report))
    return _finished(pycolmap, model, names, work, rig, settings, followed)


def _finished(
    pycolmap: Any,
    model: Any,
    names: Sequence[str],
    work: Path,
    rig: Rig,
    settings: str,
    followed: Sequence[Followed] = (),
) -> Registration:
    """The model after bundle adjustment, which is written to `work`/final, with figures."""
    with _quiet(pycolmap):
        model = polished(pycolmap, model, rig.freedom)
        certain = True
        if rig.shared:
            model, certain = settle_focal(pycolmap, model, rig.freedom)
        if followed:
            freedom = replace(rig.freedom, focal=rig.freedom.focal and certain)
            joined = with_corners(pycolmap, model, names, followed)
            better = polished(pycolmap, joined, freedom, WRONG_CORNER)
            if better is not joined:  # what is not adjusted comes back as it was
                model = better
                drop_wrong(model, WRONG_CORNER)
    (work / "final").mkdir(exist_ok=True)
    model.write(work / "final")
    cameras, poses, xyz, seen = read_model(model, names)
    first = next(iter(cameras.values()))
    figures = {
        "camera_motion": "moving",
        "registered": len(poses),
        "frames": len(names),
        "reprojection_error_px": mean_error(model),
        "points": len(xyz),
        "mean_track_length": float(model.compute_mean_track_length()) if len(xyz) else 0.0,
        "median_parallax_deg": median_parallax(xyz, poses, seen),
        "focal_px": first.focal,
        "focal_given": rig.focal is not None,
        "focal_certain": certain,
        "distortion_k1": float(first.distortion[0]),
        "settings": settings,
    }
    method = f"pycolmap, {'global' if settings == _GLOBAL else 'incremental'} structure from motion"
    card = ModelCard("poses", method, pycolmap.__version__, "BSD-3-Clause")
    return Registration(cameras, poses, xyz, seen, figures, card)


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """Its log is for its developers; what matters is in the report."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 3
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def _require_space(work: Path, count: int) -> None:
    """COLMAP on a full disk ends the whole program, without an exception that could be caught."""
    work.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(work).free / 2**20, _SPACE * count
    if free < needed:
        raise SemfieldError(
            f"{work.resolve()} has {free:.0f} MiB left, and structure from motion of {count} frames may need {needed}: "
            "free some space or choose another folder."
        )


def _write_feature_mask(path: Path, mask: Mask) -> None:
    size = 2 * _MASK_MARGIN + 1
    wide = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), (255 * (1 - wide)).astype(np.uint8))


def _goodness(reconstruction: Any) -> tuple[int, float]:
    return reconstruction.num_reg_images(), -mean_error(reconstruction)


def _reconstruct(
    pycolmap: Any, images: Path, names: Sequence[str], work: Path, attempt: Attempt, rig: Rig, threads: int
) -> Any:
    """The largest model of one attempt; None if there is none."""
    database, output = work / "database.db", work / "models"
    database.unlink(missing_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)

    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_RADIAL" if rig.lens == "radial" else "SIMPLE_PINHOLE"
    if (work / "masks").is_dir():
        reader.mask_path = work / "masks"
    if rig.focal is not None:
        height, width = image_size(images / names[0])
        params = [rig.focal, width / 2, height / 2] + [0] * (rig.lens == "radial")
        reader.camera_params = ",".join(str(v) for v in params)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = threads
    extraction.use_gpu = False
    extraction.sift.peak_threshold = attempt.peak_threshold
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = threads
    matching.use_gpu = False
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.num_threads = threads
    mapping.random_seed = mapping.mapper.random_seed = mapping.triangulation.random_seed = _SEED
    mapping.min_model_size = 3
    mapping.ba_refine_focal_length = rig.focal is None
    mapping.mapper.init_min_tri_angle = attempt.first_angle
    mapping.mapper.filter_min_tri_angle = attempt.least_angle
    mapping.triangulation.min_angle = attempt.least_angle
    mapping.triangulation.ignore_two_view_tracks = not attempt.two_views

    pycolmap.set_random_seed(_SEED)
    try:
        with _quiet(pycolmap):
            pycolmap.extract_features(
                database,
                images,
                image_names=list(names),
                camera_mode=pycolmap.CameraMode.SINGLE if rig.shared else pycolmap.CameraMode.PER_IMAGE,
                reader_options=reader,
                extraction_options=extraction,
                device=pycolmap.Device.cpu,
            )
            _match(pycolmap, database, len(names), matching)
            models = pycolmap.incremental_mapping(database, images, output, options=mapping)
    except (RuntimeError, ValueError) as error:
        raise SemfieldError(
            f"Structure from motion failed in {work} ({reason(error)}): is there space left on the disk?"
        ) from error
    return max(models.values(), key=_goodness, default=None)


def _all_at_once(pycolmap: Any, images: Path, work: Path, rig: Rig, threads: int) -> Any:
    """The largest model by global structure from motion, of the matches of the last attempt; None if there is none."""
    output = work / "global"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    mapping = pycolmap.GlobalPipelineOptions()
    mapping.num_threads = threads
    mapping.random_seed = mapping.mapper.random_seed = _SEED
    mapping.mapper.bundle_adjustment.refine_focal_length = rig.focal is None
    mapping.mapper.min_tri_angle_deg = ATTEMPTS[-1].least_angle
    with _quiet(pycolmap):
        try:
            models = pycolmap.global_mapping(work / "database.db", images, output, options=mapping)
        except (RuntimeError, ValueError):  # no pair of frames to begin with
            return None
    return max(models.values(), key=_goodness, default=None)


def _match(pycolmap: Any, database: Path, count: int, matching: Any) -> None:
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED  # for each pair: else it depends on which thread takes which pairs
    options = {"matching_options": matching, "verification_options": verification, "device": pycolmap.Device.cpu}
    if count <= _EXHAUSTIVE:
        pycolmap.match_exhaustive(database, **options)
        return
    pairing = pycolmap.SequentialPairingOptions()
    pairing.overlap = _OVERLAP
    pycolmap.match_sequential(database, pairing_options=pairing, **options)
