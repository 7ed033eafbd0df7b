"""Labels that people made of some frames, in the formats of the tools they use, as class ids of the picked frames.

Which frame an image is of, its name says (`names`).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_json
from semfield_ns.process.labels.clicks import from_clicks
from semfield_ns.process.labels.coco import from_coco
from semfield_ns.process.labels.imported import Imported, pngs_of
from semfield_ns.process.labels.masks import (
    LABEL_STUDIO,
    from_cvat,
    from_label_studio,
    from_object_ids,
    from_one_mask,
    from_tracks,
    read_ids,
)
from semfield_ns.process.names import FrameNames
from semfield_ns.scenes.labels import LabelMap

_OTHERS = {
    ".xml": 'CVAT\'s XML: export its "Segmentation mask 1.1"',
    ".txt": "text files, such as YOLO's: export COCO",
    ".json": "JSON files of single images, such as LabelMe's: convert them to one COCO file",
    ".jpg": "JPEGs, which change labels: save them as PNG",
    ".jpeg": "JPEGs, which change labels: save them as PNG",
    ".npy": "arrays: save them as PNG",
    ".zip": "an archive: unpack it",
}
"""what else tools leave, by suffix, and what to do"""


def import_labels(
    path: Path, frames: Sequence[FrameNames], size: tuple[int, int], images: Path, flow: Path
) -> Imported:
    """Read labels in any of the formats.

    Args:
        path: a PNG of object ids, of the first frame unless its name is that of another; a COCO or clicks .json; or a
            folder: CVAT's "Segmentation mask" (labelmap.txt, SegmentationClass/), brush
            PNGs of Label Studio, tracks of SAM 2 (a folder of masks for each object, or PNGs of object ids), or PNGs of
            class ids with a classes.json.
        frames: the picked frames.
        size: (width, height) of the picked frames.
        images: their folder, for clicks.
        flow: folder of the flow between them, for clicks.
    Raises: SemfieldError for an unknown format, an unknown class or image, or where no label is of a picked frame.
    """
    path = Path(path)
    if not path.exists():
        raise SemfieldError(f"The labels {path} do not exist: give a folder of masks or a .json file.")
    if path.suffix.lower() == ".png":
        found = from_one_mask(path, frames, size)
    elif path.is_file() and path.suffix.lower() != ".json":
        raise _unknown(path, [path])
    elif path.is_file():
        meta = read_json(path)
        if isinstance(meta, dict) and "clicks" in meta:
            found = from_clicks(path, meta, size, images, flow, frames)
        elif isinstance(meta, dict) and "annotations" in meta and "categories" in meta:
            found = from_coco(path, meta, frames, size)
        else:
            raise SemfieldError(
                f'{path} is neither COCO ("categories", "annotations") nor clicks ("clicks"): export COCO.'
            )
    else:
        found = _from_folder(path, frames, size)
    if not found.labels:
        raise SemfieldError(
            f"{path} has no label of a picked frame: its images must be named as the frames (0000.png) or as the "
            "original images, or have numbers in their names that count the frames of the source, all in the same way."
        )
    return found


def _from_folder(path: Path, frames: Sequence[FrameNames], size: tuple[int, int]) -> Imported:
    inside = [folder for folder in path.iterdir() if folder.is_dir()]
    if not (path / "labelmap.txt").is_file() and len(inside) == 1 and (inside[0] / "labelmap.txt").is_file():
        path = inside[0]  # archives are unpacked into a folder of their own
    pngs = pngs_of(path)
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and pngs_of(folder))
    if (path / "labelmap.txt").is_file():
        return from_cvat(path, frames, size)
    if any(LABEL_STUDIO.search(png.name) for png in pngs):
        return from_label_studio(path, pngs, frames, size)
    if (path / "classes.json").is_file():
        label_map = LabelMap.from_transforms(read_json(path / "classes.json"), str(path / "classes.json"))
        return Imported(label_map, read_ids(path, label_map, pngs_of(path, "**"), frames, size), "PNGs of class ids")
    if folders:
        return from_tracks(path, folders, frames, size)
    if pngs:
        return from_object_ids(path, pngs, frames, size)
    raise _unknown(path, path.rglob("*"))


def _unknown(path: Path, files: Iterable[Path]) -> SemfieldError:
    """What to say of labels that are none of the formats, by the suffixes of the files."""
    advice = next((_OTHERS[suffix] for file in files if (suffix := file.suffix.lower()) in _OTHERS), None)
    found = f"it holds {advice}" if advice else "see docs/own_video.md for the formats"
    return SemfieldError(f"{path} has no labels in a known format: {found}.")
