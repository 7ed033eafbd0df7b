"""PLY files of points: vertices with any scalar properties, read and written without changing a bit of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path, require_file

_TYPES = {
    **{name: "f4" for name in ("float", "float32")},
    **{name: "f8" for name in ("double", "float64")},
    **{name: "u1" for name in ("uchar", "uint8")},
    **{name: "i1" for name in ("char", "int8")},
    **{name: "u2" for name in ("ushort", "uint16")},
    **{name: "i2" for name in ("short", "int16")},
    **{name: "u4" for name in ("uint", "uint32")},
    **{name: "i4" for name in ("int", "int32")},
}
_NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "i1": "char", "u2": "ushort", "i2": "short"}
_NAMES |= {"u4": "uint", "i4": "int"}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_LIMIT = 1 << 16


@dataclass(frozen=True)
class Ply:
    """The vertices of a file."""

    vertices: np.ndarray
    """structured, [N]: one field a property, in the file's order; of a binary file a memory map"""
    comments: tuple[str, ...] = ()
    """header lines that begin with "comment" or "obj_info", whole"""

    def __len__(self) -> int:
        return len(self.vertices)

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the properties."""
        return self.vertices.dtype.names or ()

    def points(self) -> Float[np.ndarray, "N 3"]:
        """Positions, float64."""
        return np.stack([self.vertices[axis].astype(np.float64) for axis in "xyz"], axis=-1)


def read_ply(path: Path) -> Ply:
    """The vertices of a PLY file, ASCII or binary. They must be the first element; others are left out.

    Raises:
        SemfieldError: the file is missing, broken, or its vertices have no x, y, z or hold lists.
    """
    require_file(path, "point cloud")
    try:
        with path.open("rb") as stream:
            head, found, rest = stream.read(_HEADER_LIMIT).partition(b"end_header")
        if not found:
            raise ValueError("no end of the header")
        offset = len(head) + len(found) + rest.index(b"\n") + 1
        encoding, count, dtype, comments = _parse_header(head.decode("ascii"))
        if not {"x", "y", "z"} <= set(dtype.names or ()):
            raise ValueError("no positions")
        if encoding == "ascii":
            lines = path.read_bytes()[offset:].decode("ascii").splitlines()[:count]
            vertices = np.array([tuple(line.split()) for line in lines], dtype=dtype)
            if len(vertices) != count:
                raise ValueError("too few lines")
        elif count == 0:
            vertices = np.zeros(0, dtype)
        else:
            vertices = np.memmap(path, dtype, mode="r", offset=offset, shape=(count,))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise SemfieldError(f"Point cloud: cannot read {path} as PLY with vertices x, y, z.") from error
    return Ply(vertices, comments)


def write_ply(path: Path, vertices: np.ndarray, comments: Sequence[str] = ()) -> None:
    """Writes vertices as a binary PLY, atomically; every number keeps its type and its bits.

    Args:
        path: the file.
        vertices: structured, [N].
        comments: whole header lines, as in `Ply`.
    """
    big = any(vertices.dtype[name].byteorder == ">" for name in vertices.dtype.names or ())
    dtype = np.dtype([(name, vertices.dtype[name].newbyteorder("<")) for name in vertices.dtype.names or ()])
    lines = ["ply", "format binary_little_endian 1.0", *comments, f"element vertex {len(vertices)}"]
    lines += [f"property {_NAMES[dtype[name].str[1:]]} {name}" for name in dtype.names or ()]
    header = "\n".join([*lines, "end_header", ""])
    packed = vertices.astype(dtype) if big else np.ascontiguousarray(vertices)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(header.encode("ascii"))
        packed.view(np.dtype(packed.dtype)).tofile(stream)


def read_ply_points(path: Path) -> Float[np.ndarray, "M 3"]:
    """Positions of the vertices, float64. The vertices must be the first element of the file.

    Raises SemfieldError naming the file where it is missing, broken, or has positions that are not finite.
    """
    points = read_ply(path).points()
    if not np.isfinite(points).all():
        raise SemfieldError(f"Point cloud: {path} has positions that are NaN or infinite.")
    return points


def write_ply_points(path: Path, points: Float[np.ndarray, "M 3"]) -> None:
    """Write positions as a binary PLY of doubles, atomically."""
    vertices = np.empty(len(points), [(axis, "<f8") for axis in "xyz"])
    for index, axis in enumerate("xyz"):
        vertices[axis] = points[:, index]
    write_ply(path, vertices)


def _parse_header(text: str) -> tuple[str, int, np.dtype, tuple[str, ...]]:
    """Encoding, number of vertices, their structure, and the comments."""
    lines = [line.rstrip("\r") for line in text.splitlines() if line.strip()]
    comments = tuple(line for line in lines if line.split()[0] in ("comment", "obj_info"))
    words = [line.split() for line in lines if line not in comments]
    elements = [i for i, line in enumerate(words) if line[0] == "element"]
    if words[0] != ["ply"] or not elements or words[elements[0]][1] != "vertex":
        raise ValueError("no vertices where they should be")
    encoding = next(line[1] for line in words if line[0] == "format")
    end = elements[1] if len(elements) > 1 else len(words)
    properties = [line for line in words[elements[0] + 1 : end] if line[0] == "property"]
    dtype = np.dtype([(line[-1], _ORDERS[encoding] + _TYPES[line[1]]) for line in properties])
    return encoding, int(words[elements[0]][2]), dtype, comments
