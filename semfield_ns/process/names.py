"""Which picked frame does a file of another program mean, by its name?

A name may be that of the picked frame (0007.png) or of the original image; or it has a number that counts picked frames
or those of the source, from 0 or from 1. One reading must fit all files together, and where two of them fit and differ,
nobody can tell: that is an error which shows both.
"""

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload
from urllib.parse import unquote

from semfield_ns.errors import SemfieldError
from semfield_ns.process.frames import frame_name

Meaning = Literal["auto", "picked", "picked-from-1", "original", "original-from-0", "original-from-1"]
"""what names of frames mean: names or numbers of picked frames, or of the frames of the source"""

_SUFFIX = r"\.(?:png|jpe?g|webp|tiff?|bmp|heic|heif|exr|npy|npz|json|txt|mp4)"
_ROBOFLOW = re.compile(r"^(.+)_(?:png|jpe?g|webp|tiff?|bmp)\.rf\.\w+$", re.IGNORECASE)
_HASHED = re.compile(r"^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{6,40})-(.+)$", re.IGNORECASE)
_WORD = r"(?:masks?|labels?|labelids|colou?rs?|seg|segm|segmentation|gt|gtfine|ids|instances?|semantics?|alpha|matte)"
_BEFORE, _AFTER = (re.compile(p, re.IGNORECASE) for p in (rf"^(?:{_WORD}[ _.\-]+)+", rf"(?:[ _.\-]+{_WORD})+$"))
# Numbers after these count something else than frames.
_OTHER = re.compile(r"(?:cam|camera|view|obj|object|scene|take|shot|clip|seq|rig|task)[ _\-]?$", re.IGNORECASE)

MISSING = -1
"""no frame that is known"""
Places = tuple[int, ...]
"""for each name, the place of its frame in the source, or MISSING"""


@dataclass(frozen=True)
class FrameNames:
    """What a picked frame may be called by others."""

    number: int
    """of the picked frame: 0000.png is 0"""
    index: int
    """in the video, or in the folder of images"""
    name: str
    """of the image in the folder; empty for a video"""


@dataclass(frozen=True)
class PickedFrames(Sequence[FrameNames]):
    """The picked frames, and what is known of the frames that were not picked."""

    frames: tuple[FrameNames, ...]
    originals: tuple[str, ...] = ()
    """names of all images of the folder, in order; none for a video"""
    total: int | None = None
    """frames of the source; None: only the picked ones are known"""
    meaning: Meaning = "auto"

    @overload
    def __getitem__(self, place: int) -> FrameNames: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[FrameNames]: ...
    def __getitem__(self, place: int | slice) -> FrameNames | Sequence[FrameNames]:
        return self.frames[place]

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def number_of(self) -> dict[int, int]:
        """The numbers of the picked frames by their places in the source."""
        return {frame.index: frame.number for frame in self.frames}

    @cached_property
    def original_of(self) -> dict[int, str]:
        """The names of original images by their places in the source, as far as they are known."""
        return dict(enumerate(self.originals)) or {frame.index: frame.name for frame in self.frames if frame.name}


@dataclass(frozen=True)
class Reading:
    """One way to read all names together."""

    meaning: Meaning
    places: Places
    exact: bool
    """whether names are equal to those of frames, not just numbers in them"""

    @property
    def whole(self) -> bool:
        return MISSING not in self.places


Judge = Callable[[Sequence[dict[int, int]]], int | None]
"""picks one of several {number of the picked frame: place in the list of names}, or None"""


def match_names(
    names: Sequence[str], frames: Sequence[FrameNames], where: str = "The files", judge: Judge | None = None
) -> list[int | None]:
    """The number of the picked frame that each name means; None where it is another frame, or nobody knows.

    Args:
        names: of files, with or without folders and suffixes.
        frames: the picked ones.
        where: the names are from, for errors.
        judge: decides between readings by more than names.

    Raises:
        SemfieldError: two readings fit, and differ; or two names mean one frame.
    """
    known = frames if isinstance(frames, PickedFrames) else PickedFrames(tuple(frames))
    readings = [reading for reading in _readings(names, known) if known.meaning in ("auto", reading.meaning)]
    numbers = [known.number_of.get(place) for place in _decided(names, readings, known, where, judge)]
    first: dict[int, str] = {}
    for name, number in zip(names, numbers, strict=True):
        if number in first:
            raise SemfieldError(
                f"{where}: {first[number]} and {name} both seem to be of frame {frame_name(number)}, by their names: "
                "leave images of other cameras, and altered copies, out."
            )
        if number is not None:
            first[number] = name
    return numbers


def match_images(
    images: Iterable[Path], frames: Sequence[FrameNames], where: str = "The images", judge: Judge | None = None
) -> dict[int, Path]:
    """The image of each picked frame, as far as there is one; the others are left out.

    Raises:
        SemfieldError: as `match_names` does.
    """
    listed = list(images)
    numbers = match_names([image.as_posix() for image in listed], frames, where, judge)
    return {number: image for number, image in zip(numbers, listed, strict=True) if number is not None}


def _decided(
    names: Sequence[str], readings: list[Reading], known: PickedFrames, where: str, judge: Judge | None
) -> Places:
    """Exact names come first; then numbers, if they fit all names; then the names that are exact, and no others."""
    whole = [reading for reading in readings if reading.whole]
    if judge is not None and whole:
        chosen = judge([_by_number(reading.places, known) for reading in whole])
        if chosen is not None:
            return whole[chosen].places
    exact = [reading for reading in readings if reading.exact]
    for fitting in ([reading for reading in exact if reading.whole], [] if _covered(exact) else whole):
        if fitting:
            _require_agreement(names, fitting, known, where)
            return fitting[0].places
    _require_agreement(names, exact, known, where)
    return _merged(exact, len(names))


def _by_number(places: Places, known: PickedFrames) -> dict[int, int]:
    return {known.number_of[place]: i for i, place in enumerate(places) if place in known.number_of}


def _covered(exact: Sequence[Reading]) -> bool:
    """Whether each name is known to one of the readings."""
    return bool(exact) and MISSING not in _merged(exact, len(exact[0].places))


def _merged(readings: Sequence[Reading], count: int) -> Places:
    """Each name by the first reading that knows it."""
    found = [MISSING] * count
    for reading in readings:
        found = [new if old == MISSING else old for old, new in zip(found, reading.places, strict=True)]
    return tuple(found)


def _require_agreement(names: Sequence[str], readings: Sequence[Reading], known: PickedFrames, where: str) -> None:
    """Raise SemfieldError where readings give a name different picked frames; it shows all that do."""
    for place, name in enumerate(names):
        found: dict[int | None, Reading] = {}
        for reading in readings:
            if reading.places[place] != MISSING:
                found.setdefault(known.number_of.get(reading.places[place]), reading)
        if len(found) > 1:
            told = [_told(reading.meaning, reading.places[place], known) for reading in found.values()]
            options = [reading.meaning for reading in found.values()]
            raise SemfieldError(
                f"{where}: {name} may be {_either(told)}: say which with --frame-names {_either(options)}."
            )


def _either(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def _told(meaning: Meaning, place: int, known: PickedFrames) -> str:
    """A place as a reading calls it, with the picked frame that it is."""
    number = known.number_of.get(place)
    picked = "not picked" if number is None else f"picked as {frame_name(number)}"
    if meaning.startswith("picked"):
        assert number is not None, "a reading of picked frames knows no others"
        return f"the picked frame {frame_name(number)}" + (", counted from 1" if meaning == "picked-from-1" else "")
    if meaning == "original":
        return f"the original image {known.original_of[place]} ({picked})"
    return f"a frame of the source, counted from {meaning[-1]} ({picked})"


# --- readings --------------------------------------------------------------------------------------------------------


def _readings(names: Sequence[str], known: PickedFrames) -> Iterator[Reading]:
    """All readings of the names that know at least one of them, without those that give one frame to two numbers."""
    plain = [_stem(name) for name in names]
    bare = _undecorated(plain)
    stems = [_stem(name) for name in known.original_of.values()]
    once = {stem for stem, count in Counter(stems).items() if count == 1}
    originals = {stem: place for stem, place in zip(stems, known.original_of, strict=True) if stem in once}
    loose = _loose(originals)
    exact: list[tuple[Meaning, list[dict[str, int]], list[list[str]]]] = [
        ("picked", [{frame_name(frame.number): frame.index for frame in known}] * 2, [plain, bare]),
        ("original", [originals, originals, loose], [plain, bare, [_key(stem) for stem in bare]]),
    ]
    for meaning, tables, keys in exact:
        found = [Reading(meaning, _looked_up(table, key), True) for table, key in zip(tables, keys, strict=True)]
        places = _merged(found, len(names))
        if set(places) != {MISSING}:
            yield Reading(meaning, places, True)
    index_of = {frame.number: frame.index for frame in known}
    in_source: Container[int] = set(index_of.values())
    if known.total is not None:
        in_source = range(max(known.total, *(index + 1 for index in index_of.values())))
    by_number = _numbered(originals)
    for numbers in _numbers(bare):
        tries: list[tuple[Meaning, Places]] = [
            ("picked", _looked_up(index_of, numbers)),
            ("picked-from-1", _looked_up(index_of, [n - 1 for n in numbers])),
            ("original", _looked_up(by_number, numbers)),
            ("original-from-0", tuple(n if n in in_source else MISSING for n in numbers)),
            ("original-from-1", tuple(n - 1 if n - 1 in in_source else MISSING for n in numbers)),
        ]
        for meaning, places in tries:
            if MISSING not in places and len(set(places)) == len(places):
                yield Reading(meaning, places, False)


def _looked_up(table: Mapping[Any, int], keys: Sequence[Any]) -> Places:
    return tuple(table.get(key, MISSING) for key in keys)


def _stem(name: str) -> str:
    """The last part of a path or address, without the suffixes of files."""
    if "://" in name:
        name = re.sub(r"[?#](?!d=).*", "", name)  # of an address
    last = unquote(name.split("?d=")[-1]).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return re.sub(rf"(?:{_SUFFIX})+$", "", last, flags=re.IGNORECASE) or last


def _undecorated(stems: Sequence[str]) -> list[str]:
    """Stems without what tools put around them: Roboflow, Label Studio, words such as _mask."""
    bare = [found[1] if (found := _ROBOFLOW.match(stem)) else stem for stem in stems]
    hashed = [_HASHED.match(stem) for stem in bare]
    prefixes = {found[1] for found in hashed if found}
    # A date or the name of a video may look like a hash: hashes differ from file to file, and have letters and digits.
    if len(prefixes) == len(stems) and any(map(_mixed, prefixes)):
        bare = [found[2] for found in hashed if found]
    return [_AFTER.sub("", _BEFORE.sub("", stem)) for stem in bare]


def _mixed(text: str) -> bool:
    return bool(re.search("[0-9]", text)) and bool(re.search("[a-f]", text, re.IGNORECASE))


def _key(stem: str) -> str:
    """What stays of a name in tools that change case, signs or leading zeros."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[\W_]+", "_", stem.casefold()))


def _loose(table: dict[str, int]) -> dict[str, int]:
    """Places by `_key`, as far as it tells them apart. Plain numbers are none: they may count anything."""
    keys = Counter(_key(stem) for stem in table)
    return {_key(stem): place for stem, place in table.items() if keys[_key(stem)] == 1 and not stem.isdecimal()}


def skeleton(name: str) -> str:
    """What the names of one series have in common: all but folder, suffix, case and numbers."""
    return re.sub("[0-9]+", "#", _stem(name)).casefold()


def _numbers(stems: Sequence[str]) -> Iterator[list[int]]:
    """The numbers at each place of names that differ in their numbers only."""
    if len({skeleton(stem) for stem in stems}) != 1:
        return
    groups = [list(re.finditer("[0-9]+", stem)) for stem in stems]
    for places in zip(*groups, strict=True):
        if not _OTHER.search(stems[0][: places[0].start()]):
            yield [int(place[0]) for place in places]


def _numbered(originals: dict[str, int]) -> dict[int, int]:
    """Places of original images by the one number in which their names differ."""
    for numbers in _numbers(list(originals)):
        if len(set(numbers)) == len(numbers):
            return dict(zip(numbers, originals.values(), strict=True))
    return {}
