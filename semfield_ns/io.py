"""Files read with errors that name them, and written whole or not at all."""

import json
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from semfield_ns.errors import SemfieldError

logger = logging.getLogger("semfield")

# What a truncated, foreign or unreadable image, array or archive can raise while it is decoded.
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)


LOSSY = (".jpg", ".jpeg", ".webp")
"""suffixes of pictures whose black is not exactly black"""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".exr")
"""suffixes of pictures, those included that need a library or another format first"""
_NOT_READ = {
    ".heic": "install pillow-heif (pip install pillow-heif), or convert it to JPEG",
    ".heif": "install pillow-heif (pip install pillow-heif), or convert it to JPEG",
    ".exr": "convert it to a 16-bit PNG",
    ".npy": "save its numbers as a PNG",
    ".npz": "save its numbers as a PNG",
}
_RGB_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
_GREY16 = ("I;16", "I;16B", "I;16L", "I")


def natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """Sorts frame2 before frame10; names that differ in leading zeros only stay apart."""
    parts = re.split("([0-9]+)", name)
    return (*((text.casefold(), int(digits or 0)) for text, digits in zip_longest(parts[::2], parts[1::2])), (name, 0))


def reason(error: BaseException) -> str:
    """The first line of an exception's text, without file names (the caller names the file)."""
    text = getattr(error, "strerror", None) or str(error)
    return next(iter(text.strip().splitlines()), "") or type(error).__name__


def cache_root() -> Path:
    """Where caches live: `$SEMFIELD_CACHE` if it is set and not empty, else `~/.cache/semfield_ns`."""
    return Path(os.environ.get("SEMFIELD_CACHE") or Path.home() / ".cache" / "semfield_ns")


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it to `path` if the block succeeds, delete it if it does not.

    Missing parent folders are made. The temporary name keeps the suffix, which numpy and PIL look at.
    Raises SemfieldError naming `path` when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise SemfieldError(
            f"Cannot write {path} ({reason(error)}): free some space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):  # a folder that never came to be, or went read-only: there is nothing to tidy up
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; move its files into `folder` if the block succeeds, delete them if it does not.

    They go to the same places below `folder`, over files of the same names. Raises SemfieldError if that cannot be.
    """
    folder = Path(folder)
    require_writable(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
            yield Path(temporary)
            for path in sorted(Path(temporary).rglob("*")):
                if path.is_file():
                    place = folder / path.relative_to(temporary)
                    try:
                        place.parent.mkdir(parents=True, exist_ok=True)
                        path.replace(place)
                    except OSError as error:
                        why = f"Cannot write {place} ({reason(error)}): choose another folder."
                        raise SemfieldError(why) from error
    finally:
        if new:
            with suppress(OSError):  # it is not empty: all went well
                folder.rmdir()


def require_writable(folder: Path) -> None:
    """Raise SemfieldError if files cannot be written into `folder`, which need not be there yet and is not made."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        raise SemfieldError(f"{place} is a file: choose another folder for the output.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise SemfieldError(f"The folder {place} may not be written: choose another one for the output.")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a PNG atomically. image: (H,W) or (H,W,3|4) uint8, or (H,W) uint16."""
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary)


def write_ids(path: Path, ids: UInt8[np.ndarray, "H W"], colors: UInt8[np.ndarray, "C 3"]) -> None:
    """Write ids as a PNG with a palette, atomically: programs that show it see colours, `read_image` gives the ids."""
    image = Image.fromarray(np.ascontiguousarray(ids))
    image.putpalette(np.ascontiguousarray(colors).tobytes())
    with atomic_path(path) as temporary:
        image.save(temporary)


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write one array as .npy, atomically."""
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays as a compressed .npz, atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


# --- reading ---------------------------------------------------------------------------------------------------------


def require_file(path: Path, what: str) -> Path:
    """Return `path`, or raise SemfieldError saying that the file for `what` is missing, or a folder."""
    if path.is_dir():
        raise SemfieldError(f"{capital(what)}: {path} is a folder, not a file.")
    if not path.is_file():
        raise SemfieldError(f"{capital(what)}: the file {path} is missing.")
    return path


def read_json(path: Path) -> Any:
    """Parse a JSON file, which may begin with a mark of its encoding. Raises SemfieldError with where it goes wrong."""
    if path.is_dir():
        raise SemfieldError(f"{path} is a folder, not a file.")
    if not path.is_file():
        raise SemfieldError(f"The file {path} is missing.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SemfieldError(f"{path} is not valid JSON ({reason(error)}).") from error


def existing_picture(path: Path) -> Path:
    """The picture, or else the only one of its name whose suffix another program left out, or spells otherwise."""
    if path.is_file() or not path.parent.is_dir():
        return path
    whole = path.with_name(f"{path.name}.png")  # names without suffixes come in thousands
    if whole.is_file():
        return whole
    stems = {path.name.casefold(), path.stem.casefold()} if path.suffix.lower() in PICTURES else {path.name.casefold()}
    found = [
        file
        for file in path.parent.iterdir()
        if file.suffix.lower() in PICTURES and {file.stem.casefold(), file.name.casefold()} & stems
    ]
    return found[0] if len(found) == 1 else path


@cache
def _open_heif() -> None:
    """Let PIL read HEIC, where the library for it is installed."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def image_size(path: Path, what: str = "image") -> tuple[int, int]:
    """(height, width) from the image's header, without decoding it. `what` says whose file it is, for the error."""
    _require_picture(path, what)
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _DECODE_ERRORS as error:
        raise _unreadable(path, what, error) from error


def read_image(path: Path, what: str = "image") -> Image.Image:
    """Decode a whole image. `what` says whose file it is, for the error of a missing or broken one."""
    _require_picture(path, what)
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except _DECODE_ERRORS as error:
        raise _unreadable(path, what, error) from error


def _require_picture(path: Path, what: str) -> None:
    require_file(path, what)
    suffix = path.suffix.lower()
    if suffix in (".heic", ".heif"):
        _open_heif()
        suffix = "" if ".heic" in Image.registered_extensions() else suffix
    if suffix in _NOT_READ:
        raise SemfieldError(f"{capital(what)}: {path} is a format that is not read here: {_NOT_READ[suffix]}.")


def read_mask(path: Path, what: str = "mask") -> Bool[np.ndarray, "H W"]:
    """Where a mask is not black. Of a picture of one colour with transparency: where it is not transparent.

    A palette counts by its colours, as people see them, unless it has one colour only. In lossy formats, half of white
    is the limit.

    Raises:
        SemfieldError: the file is missing or broken.
    """
    image = read_image(path, what)
    image = image.convert("RGBA") if "transparency" in image.info else image
    alpha = np.array(image.getchannel("A")) if image.mode in ("LA", "PA", "RGBA") else np.array(255, np.uint8)
    values = np.array(image)
    if image.mode in ("LA", "RGBA"):
        values = values[..., :-1]
    elif image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        used = np.unique(values)
        if used[-1] < len(palette) and len(np.unique(palette[used], axis=0)) == len(used):
            values = palette[values]
    elif image.mode not in ("1", "L", "RGB", "I", "F", "I;16", "I;16B", "I;16L"):
        values = np.array(image.convert("RGB"))
    bright = values > (127 if path.suffix.lower() in LOSSY else 0)
    lit = np.asarray(bright.any(axis=-1) if bright.ndim == 3 else bright)
    if alpha.min() == alpha.max():
        return lit
    flat = values.reshape(len(values) * values.shape[1], -1)
    return np.asarray(alpha > 0) if (flat == flat[0]).all() else lit & (alpha > 0)


def read_rgb(
    path: Path,
    what: str = "image",
    size: tuple[int, int] | None = None,
    smaller: Image.Resampling | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the colours of a picture, as `rgb_of` does.

    Args:
        path: of the picture.
        what: whose file it is, for errors.
        size: (height, width) of the result; that of the file by default.
        smaller: filter to make pictures smaller with; by default, each pixel is the mean of what it covers, exactly
            (Pillow's BOX takes whole pixels: edges shift). They are made larger bicubically.

    Raises:
        SemfieldError: the file is missing, broken, or has numbers that are no grey levels.
    """
    image = rgb_of(read_image(path, what), f"{capital(what)}: {path}")
    if size is not None and size != (image.height, image.width):
        shrinks = size[1] < image.width
        if shrinks and smaller is None:
            return cv2.resize(np.array(image), size[::-1], interpolation=cv2.INTER_AREA)
        image = image.resize(size[::-1], smaller if shrinks else Image.Resampling.BICUBIC)
    return np.array(image)


def rgb_of(image: Image.Image, where: str) -> Image.Image:
    """A picture as RGB of 8 bits.

    What is transparent shows white, as in the data sets that have it; of 16-bit grey, the upper 8 bits.

    Raises:
        SemfieldError: it has numbers that are no grey levels.
    """
    if image.mode in _GREY16:
        values = np.array(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise SemfieldError(f"{where} has numbers from {values.min()} to {values.max()}: make it 16-bit or 8-bit.")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _RGB_MODES:
        raise SemfieldError(f"{where} is a {image.mode} image: convert it to 8-bit RGB or 16-bit grey.")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        picture = image.convert("RGBA")
        if np.array(picture.getchannel("A")).min() == 255:
            return picture.convert("RGB")
        say_once("Pictures have transparent parts, which are shown white.")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("RGB")


@cache
def say_once(text: str) -> None:
    """Tells in the log what many files give reason to."""
    logger.info(text)


def read_npy(path: Path, what: str = "array") -> np.ndarray:
    """Read a .npy file (never a pickle)."""
    require_file(path, what)
    try:
        array = np.load(path, allow_pickle=False)
    except _DECODE_ERRORS as error:
        raise _unreadable(path, what, error) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise SemfieldError(f"{capital(what)}: {path} is an archive, a single array (.npy) is wanted.")
    return array


def read_npz(path: Path, what: str = "arrays") -> dict[str, np.ndarray]:
    """Read every array of a .npz file (never a pickle)."""
    require_file(path, what)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (*_DECODE_ERRORS, AttributeError, TypeError, zipfile.LargeZipFile) as error:
        raise _unreadable(path, what, error) from error


def npy_shape(path: Path, what: str = "array") -> tuple[int, ...]:
    """Shape of a .npy array from its header."""
    require_file(path, what)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (*_DECODE_ERRORS, AttributeError) as error:
        raise _unreadable(path, what, error) from error


def npz_shapes(path: Path, what: str = "arrays") -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in a .npz file from their headers, without inflating them."""
    require_file(path, what)
    try:
        with zipfile.ZipFile(path) as archive:
            return {Path(name).stem: _npy_header_shape(archive, name) for name in archive.namelist()}
    except _DECODE_ERRORS as error:
        raise _unreadable(path, what, error) from error


def _npy_header_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read_header(member)[0]


def _unreadable(path: Path, what: str, error: BaseException) -> SemfieldError:
    # PIL repeats the whole path and more in some messages: the kind of error is enough then.
    detail = reason(error)
    detail = "truncated or not in the format its name says" if str(path) in detail else detail
    return SemfieldError(f"{capital(what)}: cannot read {path} ({detail}): replace the file.")


def capital(text: str) -> str:
    """`text` with its first letter in upper case: a sentence may begin with it."""
    return text[:1].upper() + text[1:]
