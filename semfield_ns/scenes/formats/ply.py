"""PLY files of points: vertices with any scalar properties, read and written without changing a bit of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float
from plyfile import PlyData, PlyElement, PlyListProperty, PlyParseError

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path, require_file


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
    """The vertices of a PLY file, ASCII or binary; other elements are left out.

    Raises:
        SemfieldError: the file is missing, broken, or its vertices have no x, y, z or hold lists.
    """
    require_file(path, "point cloud")
    try:
        data = _read(path)
        element = data["vertex"]
        scalars = {entry.name for entry in element.properties if not isinstance(entry, PlyListProperty)}
        if not {"x", "y", "z"} <= scalars or len(scalars) < len(element.properties):
            raise ValueError("no positions, or lists")
    except (PlyParseError, OSError, ValueError, KeyError, MemoryError) as error:
        raise SemfieldError(f"Point cloud: cannot read {path} as PLY with vertices x, y, z.") from error
    comments = [f"comment {text}" for text in (*data.comments, *element.comments)]
    return Ply(element.data, (*comments, *(f"obj_info {text}" for text in data.obj_info)))


def _read(path: Path) -> PlyData:
    """The file; comments in any encoding are shown as far as they are ASCII, which the format asks for."""
    try:
        return PlyData.read(str(path), mmap="r")
    except UnicodeDecodeError:
        header, mark, rest = path.read_bytes().partition(b"end_header")
        plain = bytes(byte if byte < 128 else ord("?") for byte in header)
        return PlyData.read(BytesIO(plain + mark + rest))


def write_ply(path: Path, vertices: np.ndarray, comments: Sequence[str] = ()) -> None:
    """Writes vertices as a binary PLY, atomically; every number keeps its type and its bits.

    Args:
        path: the file.
        vertices: structured, [N].
        comments: whole header lines, as in `Ply`; the format wants ASCII, so other letters are escaped.
    """
    texts: dict[str, list[str]] = {"comment": [], "obj_info": []}
    for line in comments:
        kind, _, text = " ".join(line.split("\n")).partition(" ")
        texts[kind].append(text.encode("ascii", "backslashreplace").decode("ascii"))
    element = PlyElement.describe(vertices, "vertex")
    data = PlyData([element], byte_order="<", comments=texts["comment"], obj_info=texts["obj_info"])
    with atomic_path(path) as temporary:
        data.write(str(temporary))


def read_ply_points(path: Path) -> Float[np.ndarray, "M 3"]:
    """Positions of the vertices, float64.

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
