"""Frames of a video or a folder: survey them, pick the sharp ones that show something new, write them upright.

Two passes: the first looks at small grey copies of at most a few thousand frames, the second decodes the picked ones at
the size that is wanted. So neither the length nor the resolution of a video matters to memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import ImageOps

from semfield_ns.errors import SemfieldError
from semfield_ns.io import PICTURES, image_size, natural_key, read_image, reason, rgb_of, write_png

Rgb = UInt8[np.ndarray, "H W 3"]
Report = Callable[[float], None]
"""called with the share of a step that is done"""

FEWEST = 4
"""frames; fewer give neither poses nor a scene to train on"""

_SURVEY_WIDTH = 320  # px; sharpness and motion are compared at this width
_SURVEY_PER_PICK = 8  # frames looked at for each one picked, at most
_BLACK = 6.0  # standard deviation of grey levels below which there is nothing to see
_BLUR_RATIO = 0.35  # of the median sharpness around it: what is below counts as blurred in the report
_FEATURES = 200  # corners followed from one surveyed frame to the next


@dataclass(frozen=True)
class Candidate:
    """A frame that was looked at."""

    index: int
    """number in the video, or in the sorted folder"""
    time: float
    """s from the start of the video; the number of the image for a folder"""
    name: str
    """of the image file; empty for a video"""
    sharpness: float
    """variance of the Laplacian of the grey levels at 320 px, relative to their variance"""
    contrast: float
    """standard deviation of the grey levels, 0 to 255"""
    motion: float
    """median shift of corners since the candidate before, as a share of the width"""


@dataclass(frozen=True)
class Source:
    """Where frames come from."""

    path: Path
    count: int | None
    """frames, if known without decoding"""
    rotation: int
    """degrees, clockwise, that a frame has to be turned to stand upright"""
    width: int
    """px, upright, before any resizing"""
    height: int
    images: tuple[Path, ...] = ()
    """of a folder; empty for a video"""
    rate: float | None = None
    """frames per second that a video claims"""


def open_source(path: Path) -> Source:
    """Look at a video file or a folder of images.

    Raises SemfieldError naming the path where it is missing, no video, broken, or holds images of several sizes.
    """
    path = Path(path)
    if not path.exists():
        raise SemfieldError(f"{path} does not exist: give a video file or a folder of images.")
    if path.is_file() and path.suffix.lower() in PICTURES:
        raise SemfieldError(f"{path} is one picture: give a video, or the folder of several.")
    return _open_folder(path) if path.is_dir() else _open_video(path)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, in the order of the numbers in their names."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES and file.name[0] != "."]
    return sorted(files, key=lambda file: natural_key(file.name))


def _open_folder(path: Path) -> Source:
    images = tuple(image_files(path))
    if not images:
        raise SemfieldError(f"{path} holds no images ({', '.join(PICTURES)}): give a video or a folder of them.")
    height, width = upright_size(images[0])
    return Source(path, len(images), 0, width, height, images)


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image as its EXIF orientation wants it shown."""
    height, width = image_size(path)
    # 5 to 8 are the orientations that lie on their side.
    return (width, height) if orientation(path) in (5, 6, 7, 8) else (height, width)


def orientation(path: Path) -> int:
    """How EXIF wants a picture shown: 1 as stored, 3 turned by half, 6 to the right, 8 to the left, others mirrored."""
    from PIL import Image

    with Image.open(path) as image:
        return int(image.getexif().get(0x0112, 1))


def _open_video(path: Path) -> Source:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SemfieldError(f"{path} has no picture track: give a video file or a folder of images.")
            stream = container.streams.video[0]
            frame = next(container.decode(stream), None)
            if frame is None:
                raise SemfieldError(f"{path} holds no frame that can be decoded: is the file complete?")
            width, height = _displayed_size(stream, frame)
            rotation = -int(frame.rotation) % 360
            if rotation % 180:
                width, height = height, width
            rate = stream.average_rate or stream.guessed_rate
            return Source(path, stream.frames or None, rotation, width, height, rate=float(rate) if rate else None)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, SemfieldError):
            raise
        raise SemfieldError(
            f"{path} cannot be read as a video ({reason(error)}): the file is broken or incomplete, copy it again or "
            "convert it with ffmpeg."
        ) from error


def _displayed_size(stream: Any, frame: Any) -> tuple[int, int]:
    """Width and height with square pixels."""
    aspect = stream.sample_aspect_ratio
    wide = frame.width * (float(aspect) if aspect else 1.0)
    return max(2, round(wide)), frame.height


def fitted_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """(width, height), even numbers, not more than `longest` px on either side and never enlarged."""
    scale = min(1.0, longest / max(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


# --- decoding --------------------------------------------------------------------------------------------------------


def decode(
    source: Source,
    longest: int,
    wanted: Callable[[int, float], bool],
    until: float = float("inf"),
    last: int | None = None,
) -> Iterator[tuple[int, float, str, Rgb]]:
    """Upright frames in order as (index, time, name, picture), the longest side at most `longest` px.

    Args:
        source: where from.
        longest: px.
        wanted: index and time -> whether the frame is to be handed over; others are decoded without being converted.
        until: no frame later than this, s.
        last: no frame of a higher number.
    Raises: SemfieldError for an image that cannot be read. A video that breaks off ends there: the caller counts.
    """
    return (_decode_folder if source.images else _decode_video)(source, longest, wanted, until, last)


def _decode_folder(
    source: Source, longest: int, wanted: Callable[[int, float], bool], until: float, last: int | None
) -> Iterator[tuple[int, float, str, Rgb]]:
    for index, path in enumerate(source.images):
        if index > until or (last is not None and index > last):
            return
        if wanted(index, float(index)):
            image = rgb_of(ImageOps.exif_transpose(read_image(path)), str(path))
            if (image.width, image.height) != (source.width, source.height):
                raise SemfieldError(
                    f"{path} is {image.width}x{image.height} pixels, {source.images[0].name} {source.width}x"
                    f"{source.height}: all images of a folder must be of one size."
                )
            size = fitted_size(image.width, image.height, longest)
            yield index, float(index), path.name, _shrink(np.array(image), size)


def _decode_video(
    source: Source, longest: int, wanted: Callable[[int, float], bool], until: float, last: int | None
) -> Iterator[tuple[int, float, str, Rgb]]:
    import av

    size = fitted_size(source.width, source.height, longest)
    stored = size[::-1] if source.rotation % 180 else size
    start: float | None = None
    try:
        with av.open(str(source.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for index, frame in enumerate(container.decode(stream)):
                # A frame without a time stamp is as late as its number says.
                time = frame.time if frame.time is not None else index / (source.rate or 30.0)
                start = time if start is None else start
                time -= start
                if time > until or (last is not None and index > last):
                    return
                if wanted(index, time):
                    picture = frame.reformat(width=stored[0], height=stored[1], format="rgb24", interpolation="AREA")
                    yield index, time, "", np.ascontiguousarray(np.rot90(picture.to_ndarray(), -source.rotation // 90))
    except av.error.FFmpegError:
        return


def _shrink(picture: Rgb, size: tuple[int, int]) -> Rgb:
    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


# --- survey ----------------------------------------------------------------------------------------------------------


def survey(
    source: Source, num_frames: int, start: float = 0.0, end: float | None = None, report: Report = lambda share: None
) -> list[Candidate]:
    """Sharpness, contrast and motion of up to 8 evenly spaced frames for each one that will be picked.

    start, end: s for a video, image numbers for a folder.
    Raises SemfieldError where nothing lies between them.
    """
    until = float("inf") if end is None else end
    share = 1.0
    if source.count and source.rate and not source.images:
        share = min(1.0, max(0.0, (min(until, source.count / source.rate) - start) * source.rate / source.count))
    every = max(1, int((source.count or 0) * share / (_SURVEY_PER_PICK * num_frames)))
    found: list[Candidate] = []
    previous: UInt8[np.ndarray, "h w"] | None = None
    for index, time, name, rgb in decode(source, _SURVEY_WIDTH, lambda i, t: t >= start and i % every == 0, until):
        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        motion = 0.0 if previous is None else median_shift(previous, gray) / gray.shape[1]
        found.append(Candidate(index, time, name, *_sharpness(gray), motion))
        previous = gray
        if source.count:
            report(index / source.count)
    if not found:
        raise SemfieldError(f"{source.path} has no frames between {start:g} and {until:g}: change --start or --end.")
    return _ascending(found)


def _ascending(found: list[Candidate]) -> list[Candidate]:
    """Without frames whose time stamp does not go on (broken recordings repeat some)."""
    kept = found[:1]
    for candidate in found[1:]:
        if candidate.time > kept[-1].time:
            kept.append(candidate)
    return kept


def _sharpness(gray: UInt8[np.ndarray, "h w"]) -> tuple[float, float]:
    contrast = float(gray.std())
    return float(cv2.Laplacian(gray, cv2.CV_32F).var()) / max(contrast, 1.0) ** 2, contrast


def median_shift(before: UInt8[np.ndarray, "h w"], after: UInt8[np.ndarray, "h w"]) -> float:
    """Median length, px, of the way of corners from one image to the next; 0 where there are none.

    A cut, or motion too fast to follow, counts as a tenth of the width.
    """
    corners = cv2.goodFeaturesToTrack(before, _FEATURES, 0.01, 7)
    if corners is None or len(corners) < 8:
        return 0.0
    moved, status, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    kept = status[:, 0] == 1
    if kept.sum() < 8:
        return 0.1 * before.shape[1]
    return float(np.median(np.linalg.norm((moved - corners)[kept, 0], axis=-1)))


# --- picking ---------------------------------------------------------------------------------------------------------


def pick(candidates: Sequence[Candidate], num_frames: int) -> list[Candidate]:
    """Up to num_frames candidates: even steps along time and motion together, and of each step the sharpest.

    Time alone would waste frames where the camera rests and starve where it hurries; motion alone would lose what moves
    in front of a resting camera. Frames without contrast (black, fogged) are never picked.
    """
    seen = [candidate for candidate in candidates if candidate.contrast >= _BLACK]
    if len(seen) <= num_frames:
        return seen
    time = np.array([candidate.time for candidate in seen])
    motion = np.cumsum([candidate.motion for candidate in seen])
    progress = (time - time[0]) / (time[-1] - time[0])
    if motion[-1] > motion[0]:
        progress = 0.5 * progress + 0.5 * (motion - motion[0]) / (motion[-1] - motion[0])
    step = np.minimum((progress * num_frames).astype(int), num_frames - 1)
    groups = [[c for c, s in zip(seen, step, strict=True) if s == k] for k in range(num_frames)]
    return [max(group, key=lambda candidate: candidate.sharpness) for group in groups if group]


def blurred(candidates: Sequence[Candidate], window: int = 5) -> list[Candidate]:
    """Those much less sharp than the frames around them: motion blur or lost focus."""
    values = np.array([candidate.sharpness for candidate in candidates])
    result = []
    for i, candidate in enumerate(candidates):
        if candidate.sharpness < _BLUR_RATIO * np.median(values[max(0, i - window) : i + window + 1]):
            result.append(candidate)
    return result


# --- the step --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picked:
    """The picked frames, and what the report says of them."""

    frames: list[Candidate]
    size: tuple[int, int]
    """(width, height) of the written images, px"""
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"size": list(self.size), "warnings": self.warnings, "frames": [asdict(frame) for frame in self.frames]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Picked":
        return cls([Candidate(**entry) for entry in value["frames"]], tuple(value["size"]), value["warnings"])


def frame_name(number: int) -> str:
    """Stem of the files of a picked frame."""
    return f"{number:04d}"


def write_frames(
    source: Source,
    folder: Path,
    num_frames: int,
    longest: int,
    start: float = 0.0,
    end: float | None = None,
    report: Report = lambda share: None,
) -> Picked:
    """Survey, pick, and write the picked frames as 0000.png, 0001.png, ... into `folder`.

    Raises SemfieldError where too few frames can be used, saying why, and as write_png does when the disk is full.
    """
    candidates = survey(source, num_frames, start, end, lambda share: report(share / 2))
    chosen = pick(candidates, num_frames)
    dark = sum(candidate.contrast < _BLACK for candidate in candidates)
    if len(chosen) < FEWEST:
        why = f"{dark} of {len(candidates)} are black or without any contrast" if dark else "there are no more"
        raise SemfieldError(f"{source.path} has {len(chosen)} frames to use ({why}): at least {FEWEST} are needed.")
    places = {candidate.index: number for number, candidate in enumerate(chosen)}
    written: dict[int, Candidate] = {}
    size = (0, 0)
    for index, _, _, rgb in decode(source, longest, lambda i, t: i in places, last=chosen[-1].index):
        number = places[index]
        write_png(folder / f"{frame_name(number)}.png", rgb)
        size = (rgb.shape[1], rgb.shape[0])
        written[number] = chosen[number]
        report(0.5 + 0.5 * len(written) / len(chosen))
    if len(written) < len(chosen):
        raise SemfieldError(
            f"{source.path} changed while it was read: {len(written)} of {len(chosen)} frames were read."
        )
    return Picked(chosen, size, _warnings(source, candidates, chosen, dark))


def _warnings(source: Source, candidates: list[Candidate], chosen: list[Candidate], dark: int) -> list[str]:
    warnings = []
    if dark:
        warnings.append(f"{dark} of {len(candidates)} examined frames are black or without contrast and were left out.")
    if soft := blurred(chosen):
        warnings.append(f"{len(soft)} of {len(chosen)} frames are much less sharp than their neighbours.")
    if source.count and not source.images and candidates[-1].index < 0.9 * source.count - 8:
        reached = f"{candidates[-1].index + 1} of {source.count} frames"
        warnings.append(f"Only {reached} were used: the video or --end stops there.")
    steps = np.diff([candidate.time for candidate in candidates])
    if not source.images and len(steps) > 4 and steps.max() > 1.5 * np.median(steps):
        warnings.append("The frame rate varies; the scene's times are those of the recording.")
    return warnings
