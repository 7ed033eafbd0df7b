"""`semfield track VIDEO --labels FIRST.png --output-dir DIR`: labels of all frames of a video from those of a few."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from semfield_ns.cli.progress import shown
from semfield_ns.errors import SemfieldError

if TYPE_CHECKING:
    from semfield_ns.process.frames import Source
    from semfield_ns.process.names import PickedFrames
    from semfield_ns.tracking.pictures import Pictures
    from semfield_ns.tracking.results import Trust
    from semfield_ns.tracking.tracker import Arrival, LabelImage, Opinion, Tracked

RATE = 24.0
"""frames a second where the source has none"""


def track(
    source: Annotated[Path, tyro.conf.Positional],
    output_dir: Path,
    labels: Path | None = None,
    words: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    max_size: int = 864,
    teacher: str = "lite",
    models: Literal["auto", "classical", "learned"] = "auto",
    sam_model: str | None = None,
    device: str = "cpu",
) -> None:
    """Follow the labels of a few frames through a video.

    No scene and no camera poses are needed. Writes images/, labels/ (a PNG of class ids for every frame, and
    classes.json), overlay.mp4, and tracking.json, which says how certain each frame is and which ones are worth
    correcting. The folder labels/ can be given to --labels of semfield process and, with corrections, of this command.

    Args:
        source: A video file, or a folder with the frames of a video.
        output_dir: Folder for the results.
        labels: A mask of the first frame (a PNG), or labels of some frames in any format of semfield process --labels.
        words: Instead of labels, what to find, such as "person, ball"; needs the weights of SAM 3.
        start: Where to start, in seconds; for a folder, the number of the image.
        end: Where to stop, in seconds; for a folder, the number of the image.
        max_size: Longer side of the frames in pixels, at most.
        teacher: Image features that recognise things: lite, or another teacher.
        models: auto: SAM 2 has a say where its weights are available. learned: it must. classical: it has none.
        sam_model: Weights of SAM 2, or with --words of SAM 3: a name in the local cache of transformers, or a folder.
        device: Device for SAM, such as cuda.
    """
    from semfield_ns.process.frames import open_source
    from semfield_ns.process.labels import import_labels
    from semfield_ns.process.labels.imported import named_classes
    from semfield_ns.tracking.pictures import Pictures
    from semfield_ns.tracking.results import write_labels, write_overlay, write_trust

    if max_size < 64:
        raise SemfieldError(f"--max-size must be at least 64, not {max_size}.")
    if end is not None and end <= start:
        raise SemfieldError(f"--end {end:g} must be later than --start {start:g}.")
    if (labels is None) == (words is None):
        raise SemfieldError("Give either --labels, a mask of the first frame for example, or --words.")
    if labels is not None and not labels.exists():
        raise SemfieldError(f"The labels {labels} do not exist: give a mask (PNG), a folder of them, or a .json file.")
    phrases = [word.strip() for word in (words or "").split(",") if word.strip()]
    if words is not None and not phrases:
        raise SemfieldError('--words names nothing: give words such as "person, ball".')
    opened = open_source(source)
    images, written = output_dir / "images", output_dir / "labels"
    if images.resolve() == source.resolve() or (labels is not None and written.resolve() == labels.resolve()):
        raise SemfieldError(f"{output_dir} holds what is read: choose another --output-dir.")
    # What can be missing is missed before anything is done.
    sam = _sam(models if words is None else "learned", sam_model, words is not None, device)
    with shown("frames") as progress:
        files, names = decoded(opened, images, max_size, start, end, progress)
    pictures = Pictures(files)
    if words is None:
        assert labels is not None
        height, width = pictures[0].shape[:2]
        imported = import_labels(labels, names, (width, height), images, output_dir / "flow")
        label_map, given = imported.label_map, imported.labels
        print(f"Labels of {len(given)} of {len(files)} frames, {len(label_map)} classes ({imported.origin}).")
        results = _followed(pictures, given, len(label_map), teacher, sam)
    else:
        label_map, given = named_classes(phrases), {}
        results = _found(pictures, phrases, sam)
    with shown("tracking") as progress:
        trust = write_labels(results, pictures, given, label_map, written, progress)
    write_trust(trust, output_dir / "tracking.json")
    with shown("video") as progress:
        write_overlay(pictures, label_map, written, output_dir / "overlay.mp4", opened.rate or RATE, progress)
    _tell(trust, output_dir)


def _sam(models: str, weights: str | None, by_words: bool, device: str) -> Any:
    """SAM 2, or SAM 3 for words; None where it is not to be had and need not be."""
    from semfield_ns.tracking.sam import SAM2, SAM3, Sam2, Sam3

    if models == "classical":
        return None
    try:
        return Sam3(weights or SAM3, device) if by_words else Sam2(weights or SAM2, device)
    except SemfieldError as absent:
        if models == "learned" or weights is not None:
            raise
        print(f"Without SAM 2: {absent}")
        return None


def _followed(
    pictures: "Pictures", given: "Mapping[int, LabelImage]", classes: int, teacher: str, opinion: "Opinion | None"
) -> "Iterator[Tracked | Arrival]":
    from semfield_ns.teachers.registry import build_teacher
    from semfield_ns.tracking.features import FrameFeatures, suited_to
    from semfield_ns.tracking.tracker import Tracker

    features = FrameFeatures(pictures, build_teacher(suited_to(teacher, max(pictures[0].shape))))
    tracker = Tracker(pictures, given, classes, features, opinion=opinion)
    if opinion is not None:
        print(f"SAM 2 counts {tracker.share:.0%}" + (", as measured on labelled frames." if len(given) > 1 else "."))
    yield from tracker.run()


def _found(pictures: "Pictures", words: Sequence[str], sam: Any) -> "Iterator[Tracked]":
    import numpy as np

    from semfield_ns.tracking.tracker import Tracked, one_hot

    for number, ids in enumerate(sam.find(pictures, words)):
        yield Tracked(number, one_hot(np.asarray(ids), len(words) + 1, ids.shape))


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
