"""`semfield track VIDEO --labels FIRST.png --output-dir DIR`: labels of all frames of a video from those of a few."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from semfield_ns.cli.progress import shown
from semfield_ns.errors import SemfieldError

if TYPE_CHECKING:
    from semfield_ns.process.frames import Source
    from semfield_ns.process.names import PickedFrames
    from semfield_ns.tracking.results import Trust

RATE = 24.0
"""frames a second where the source has none"""


def track(
    source: Annotated[Path, tyro.conf.Positional],
    labels: Path,
    output_dir: Path,
    start: float = 0.0,
    end: float | None = None,
    max_size: int = 864,
    teacher: str = "lite",
) -> None:
    """Follow the labels of a few frames through a video.

    No scene and no camera poses are needed. Writes images/, labels/ (a PNG of class ids for every frame, and
    classes.json), overlay.mp4, and tracking.json, which says how certain each frame is and which ones are worth
    correcting. The folder labels/ can be given to --labels of semfield process and, with corrections, of this command.

    Args:
        source: A video file, or a folder with the frames of a video.
        labels: A mask of the first frame (a PNG), or labels of some frames in any format of semfield process --labels.
        output_dir: Folder for the results.
        start: Where to start, in seconds; for a folder, the number of the image.
        end: Where to stop, in seconds; for a folder, the number of the image.
        max_size: Longer side of the frames in pixels, at most.
        teacher: Image features that recognise things: lite, or another teacher.
    """
    from semfield_ns.process.frames import open_source
    from semfield_ns.process.labels import import_labels
    from semfield_ns.teachers.registry import build_teacher
    from semfield_ns.tracking.features import FrameFeatures
    from semfield_ns.tracking.pictures import Pictures
    from semfield_ns.tracking.results import write_labels, write_overlay, write_trust
    from semfield_ns.tracking.tracker import Tracker

    if max_size < 64:
        raise SemfieldError(f"--max-size must be at least 64, not {max_size}.")
    if end is not None and end <= start:
        raise SemfieldError(f"--end {end:g} must be later than --start {start:g}.")
    if not labels.exists():
        raise SemfieldError(f"The labels {labels} do not exist: give a mask (PNG), a folder of them, or a .json file.")
    opened = open_source(source)
    images, found_in = output_dir / "images", output_dir / "labels"
    if images.resolve() == source.resolve() or found_in.resolve() == labels.resolve():
        raise SemfieldError(f"{output_dir} holds what is read: choose another --output-dir.")
    with shown("frames") as progress:
        files, names = decoded(opened, images, max_size, start, end, progress)
    pictures = Pictures(files)
    height, width = pictures[0].shape[:2]
    found = import_labels(labels, names, (width, height), images, output_dir / "flow")
    print(f"Labels of {len(found.labels)} of {len(files)} frames, {len(found.label_map)} classes ({found.origin}).")
    # Small frames are enlarged before features are taken: a cell of a large one covers less of a thing.
    fine = teacher == "lite" and 2 * max(height, width) <= 1.5 * 864
    features = FrameFeatures(pictures, build_teacher("lite-fine" if fine else teacher))
    tracker = Tracker(pictures, found.labels, len(found.label_map), features)
    with shown("tracking") as progress:
        trust = write_labels(tracker, pictures, found.labels, found.label_map, found_in, progress)
    write_trust(trust, output_dir / "tracking.json")
    with shown("video") as progress:
        write_overlay(pictures, found.label_map, found_in, output_dir / "overlay.mp4", opened.rate or RATE, progress)
    _tell(trust, output_dir)


def decoded(
    source: "Source", folder: Path, longest: int, start: float, end: float | None, report: Callable[[float], None]
) -> tuple[list[Path], "PickedFrames"]:
    """Writes the frames between two times into a folder; returns their files, and what others may call them."""
    from semfield_ns.io import write_png
    from semfield_ns.process.frames import decode
    from semfield_ns.process.names import FrameNames, PickedFrames

    shutil.rmtree(folder, ignore_errors=True)
    files: list[Path] = []
    names: list[FrameNames] = []
    until = float("inf") if end is None else end
    for index, _, name, rgb in decode(source, longest, lambda _, time: time >= start, until):
        files.append(folder / f"{Path(name).stem if name else f'{index:05d}'}.png")
        names.append(FrameNames(len(names), index, name))
        write_png(files[-1], rgb)
        report((index + 1) / (source.count or index + 1))
    if not files:
        raise SemfieldError(f"{source.path} has no frames between {start:g} and {until:g}: change --start or --end.")
    return files, PickedFrames(tuple(names), tuple(file.name for file in source.images), source.count)


def _tell(trust: "Trust", folder: Path) -> None:
    if trust.agreement:
        mean = sum(trust.agreement.values()) / len(trust.agreement)
        print(f"Followed to {len(trust.agreement)} frames with labels of their own, they agree: mean IoU {mean:.2f}.")
    if trust.correct:
        frames = ", ".join(trust.correct[:5])
        print(f"Least certain: {frames}. To correct them, label them too and run the command again with all labels.")
    print(f"Labels: {folder / 'labels'}")
    print(f"To look at: {folder / 'overlay.mp4'}")
