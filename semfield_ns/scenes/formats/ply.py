"""Vertex positions in PLY files: as little of the format as sparse point clouds need."""

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
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


def read_ply_points(path: Path) -> Float[np.ndarray, "M 3"]:
    """Positions of the vertices, float64. The vertices must be the first element of the file.

    Raises SemfieldError naming the file where it is missing, broken, or has positions that are not finite.
    """
    require_file(path, "point cloud")
    try:
        data = path.read_bytes()
        head, body = data.split(b"end_header", 1)
        encoding, count, names, types = _parse_header(head.decode("ascii"))
        body = body[body.index(b"\n") + 1 :]
        dtype = np.dtype([(name, _ORDERS[encoding] + _TYPES[kind]) for name, kind in zip(names, types, strict=True)])
        if encoding == "ascii":
            rows = np.array([line.split() for line in body.decode("ascii").splitlines()[:count]], dtype=np.float64)
            points = rows.reshape(count, len(names))[:, [names.index(axis) for axis in "xyz"]]
        else:
            vertices = np.frombuffer(body, dtype, count)
            points = np.stack([vertices[axis] for axis in "xyz"], axis=-1).astype(np.float64)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise SemfieldError(f"Point cloud: cannot read {path} as PLY with vertices x, y, z.") from error
    if not np.isfinite(points).all():
        raise SemfieldError(f"Point cloud: {path} has positions that are NaN or infinite.")
    return points


def write_ply_points(path: Path, points: Float[np.ndarray, "M 3"]) -> None:
    """Write positions as a binary PLY of doubles, atomically."""
    properties = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    with atomic_path(path) as temporary:
        temporary.write_bytes(header.encode("ascii") + np.ascontiguousarray(points, dtype="<f8").tobytes())


def _parse_header(text: str) -> tuple[str, int, list[str], list[str]]:
    """Encoding, number of vertices, names and types of the properties of a vertex."""
    words = [line.split() for line in text.splitlines() if line.strip()]
    elements = [i for i, line in enumerate(words) if line[0] == "element"]
    if words[0] != ["ply"] or not elements or words[elements[0]][1] != "vertex":
        raise ValueError("no vertices where they should be")
    encoding = next(line[1] for line in words if line[0] == "format")
    end = elements[1] if len(elements) > 1 else len(words)
    properties = [line for line in words[elements[0] + 1 : end] if line[0] == "property"]
    return encoding, int(words[elements[0]][2]), [line[-1] for line in properties], [line[1] for line in properties]
