"""Files of Gaussians in the ordinary format of 3D Gaussian splatting: a PLY with a vertex for every Gaussian."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import require_file
from semfield_ns.scenes.formats.ply import Ply, read_ply

NEEDED = ("x", "y", "z", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
COLORS = ("f_dc_0", "f_dc_1", "f_dc_2")
DEGREES = {0: 0, 9: 1, 24: 2, 45: 3}
"""of spherical harmonics, by the number of properties `f_rest_*`"""
CHUNK = 1 << 18
"""rows of a file that are looked at together"""


def read_splats(path: Path) -> Ply:
    """A file of Gaussians in the ordinary format of 3D Gaussian splatting.

    Raises:
        SemfieldError: the file is missing, broken, or of something else.
    """
    if (known := other_format(path)) is not None:
        raise SemfieldError(f"{path} is {known}: convert it to an ordinary .ply of Gaussians, such as with SuperSplat.")
    splats = read_ply(path)
    lacking = [name for name in NEEDED if name not in splats.properties]
    if lacking:
        raise SemfieldError(f"{path} holds no Gaussian splats: its vertices have no property '{lacking[0]}'.")
    if not len(splats):
        raise SemfieldError(f"{path} holds no Gaussian.")
    if not np.isfinite(splats.points()).all():
        raise SemfieldError(f"{path} has Gaussians at places that are NaN or infinite.")
    return splats


def other_format(path: Path) -> str | None:
    """What a file of splats is that is no ordinary .ply, by how it begins, or else by its suffix."""
    require_file(path, "splats")
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"ply"):
        header = head.partition(b"end_header")[0]
        packed = b"packed_position" in header or b"element chunk" in header
        return "a compressed PLY of PlayCanvas" if packed else None
    by_magic = {
        b"\x1f\x8b": "an .spz of Niantic",
        b"NGSP": "an .spz of Niantic",
        b"glTF": "a glTF",
        b"PK\x03\x04": "a .sog of PlayCanvas, or another archive",
        b"RIFF": "a picture of a .sog of PlayCanvas",
    }
    known = next((name for magic, name in by_magic.items() if head.startswith(magic)), None)
    by_suffix = {
        ".splat": "a .splat of antimatter15",
        ".ksplat": "a .ksplat of GaussianSplats3D",
        ".spz": "an .spz of Niantic",
        ".sog": "a .sog of PlayCanvas",
        ".sogs": "a .sog of PlayCanvas",
        ".rad": "a .rad of Spark",
    }
    # A checkpoint is an archive too.
    known = "a checkpoint" if path.suffix in (".ckpt", ".pt", ".pth") else known
    # Rows of a .splat have 32 bytes and no header.
    return known or by_suffix.get(path.suffix.lower())


def degree_of(properties: Sequence[str], path: Path) -> int:
    """The degree of the spherical harmonics of colours, 0 to 3, by the properties of a file.

    Raises:
        SemfieldError: their number fits none.
    """
    rest = {name for name in properties if name.startswith("f_rest_")}
    if rest != {f"f_rest_{number}" for number in range(len(rest))} or len(rest) not in DEGREES:
        raise SemfieldError(
            f"{path} has {len(rest)} properties f_rest_*: spherical harmonics of degree 0 to 3 have 0, 9, 24 or 45, "
            "numbered from 0."
        )
    return DEGREES[len(rest)]


def read_drawn_splats(path: Path) -> tuple[Ply, int]:
    """A file of Gaussians that can be drawn, and the degree of its spherical harmonics.

    Args:
        path: the file. Opacities and scales may be infinite: wholly opaque, transparent or flat.

    Raises:
        SemfieldError: as `read_splats`; there are no colours; or a number that is drawn is NaN or infinite.
    """
    splats = read_splats(path)
    lacking = [name for name in COLORS if name not in splats.properties]
    if lacking:
        raise SemfieldError(f"{path} holds Gaussians without colours: its vertices have no property '{lacking[0]}'.")
    degree = degree_of(splats.properties, path)
    rest = [name for name in splats.properties if name.startswith("f_rest_")]
    for name in (*NEEDED[3:], *COLORS, *rest):
        column = splats.vertices[name]
        for start in range(0, len(column), CHUNK):
            part = column[start : start + CHUNK]
            wrong = np.isnan(part) if name.startswith(("opacity", "scale")) else ~np.isfinite(part)
            if name.startswith("scale"):
                wrong |= np.isposinf(part)
            if wrong.any():
                row = start + int(wrong.argmax())
                raise SemfieldError(
                    f"{path}: '{name}' of Gaussian {row} is {column[row]}: remove such Gaussians in the program that "
                    "wrote the file, or in SuperSplat."
                )
    return splats, degree
