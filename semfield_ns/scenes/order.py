"""The order of pictures that say nothing of their times: that of the numbers in their names, for each camera."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from semfield_ns.errors import SemfieldError
from semfield_ns.io import natural_key

_CAMERA = re.compile(r"(?:cam|camera|view)[ _\-]?[0-9]+|(?<![a-z])(?:left|right)(?![a-z])", re.IGNORECASE)
"""how names of pictures of several cameras in one folder say which one took them"""


def cameras_by_name(names: Sequence[str]) -> list[str]:
    """A camera for each picture: its folder, where folders hold pictures of the same names; else what its name says of
    a camera (cam1_0007.png, 0007_left.png), where all do and each has several pictures; else "0" for all.
    """
    paths = [PurePath(name) for name in names]
    folders = {path.parent for path in paths}
    if len(folders) < 2 or len({path.name for path in paths}) == len(paths):
        said = [found[0] if (found := _CAMERA.search(path.name)) else "" for path in paths]
        return said if "" not in said and min(Counter(said).values()) > 1 else ["0"] * len(paths)
    # As few of the last folders as tell them apart: cam0/images and cam1/images differ in their parents.
    last = {folder: folder.name for folder in folders}
    unique = len(set(last.values())) == len(folders)
    return [last[path.parent] if unique else path.parent.as_posix() for path in paths]


def times_by_name(names: Sequence[str], cameras: Sequence[str], where: str) -> list[float]:
    """0, 1, 2, ... for each camera, in the order of the numbers in names: frame2 comes before frame10.

    Pictures of several cameras that have one name are of one time.

    Raises:
        SemfieldError: cameras have different numbers of pictures, whose names are not shared.
    """
    last = [_CAMERA.sub("", PurePath(name).name) for name in names]
    of_camera = {camera: [name for name, c in zip(last, cameras, strict=True) if c == camera] for camera in cameras}
    if len(of_camera) == 1:
        ranks = {name: float(rank) for rank, name in enumerate(sorted(names, key=natural_key))}
        return [ranks[name] for name in names]
    if all(len(set(of_one)) == len(of_one) for of_one in of_camera.values()):
        every = sorted(set(last), key=natural_key)
        shared = len(every) < len(last)
        if shared or len({len(of_one) for of_one in of_camera.values()}) == 1:
            rank_of = {
                camera: {name: rank for rank, name in enumerate(every if shared else sorted(of_one, key=natural_key))}
                for camera, of_one in of_camera.items()
            }
            return [float(rank_of[camera][name]) for name, camera in zip(last, cameras, strict=True)]
    raise SemfieldError(
        f"{where}: its {len(of_camera)} cameras have no times, and different numbers of pictures: give each frame a "
        '"time".'
    )
