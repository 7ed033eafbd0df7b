"""Labels as clicks: regions grown around them, and carried to the frames around."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.process.flow import flow_file, read_frame
from semfield_ns.process.frames import Rgb, frame_name
from semfield_ns.process.labels.imported import Ids, Imported
from semfield_ns.process.names import FrameNames, match_names
from semfield_ns.scenes.flow import read_flow, warp_labels
from semfield_ns.scenes.labels import IGNORE, LabelMap

_REACH = 8  # frames that a clicked label is carried
_SIMILAR = 22.0  # distance in Lab up to which a pixel belongs to the clicked thing


def from_clicks(
    path: Path, meta: dict[str, Any], size: tuple[int, int], images: Path, flow: Path, frames: Sequence[FrameNames]
) -> Imported:
    """{"classes": [{"name", "color", "dynamic"}], "clicks": {"0007": [["person", x, y], ...]}}, px of the frames."""
    entries = meta.get("classes")
    if not isinstance(entries, list) or not isinstance(meta["clicks"], dict):
        raise SemfieldError(f'{path} needs a list "classes" and an object "clicks" (frame -> [[class, x, y], ...]).')
    numbered = [{"id": i} | (entry if isinstance(entry, dict) else {"name": entry}) for i, entry in enumerate(entries)]
    label_map = LabelMap.from_transforms({"classes": numbered}, str(path))
    labels: dict[int, Ids] = {}
    numbers = match_names(list(meta["clicks"]), frames, str(path))
    for (name, clicks), number in zip(meta["clicks"].items(), numbers, strict=True):
        if number is None:
            raise SemfieldError(f'{path}: "{name}" is no picked frame (0000 to {frame_name(len(frames) - 1)}).')
        if not isinstance(clicks, list):
            raise SemfieldError(f"{path}, frame {name}: the clicks {clicks!r} are no list [[class, x, y], ...].")
        seeds = [_seed(path, name, click, label_map, size) for click in clicks]
        labels[number] = grow(read_frame(images, number), seeds)
    clicked = len(labels)
    labels = carried(labels, len(frames), lambda a, b: read_flow(flow_file(flow, a, b)) if flow.is_dir() else None)
    return Imported(label_map, labels, "clicks", len(labels) - clicked)


def _seed(path: Path, name: str, click: Any, label_map: LabelMap, size: tuple[int, int]) -> tuple[int, int, int]:
    try:
        what, x, y = click
        x, y = int(x), int(y)
    except (TypeError, ValueError) as error:
        raise SemfieldError(f"{path}, frame {name}: the click {click!r} is not [class, x, y].") from error
    if what not in label_map.names:
        raise SemfieldError(f'{path}, frame {name}: a click names the class "{what}", which "classes" does not list.')
    if not (0 <= x < size[0] and 0 <= y < size[1]):
        raise SemfieldError(f"{path}, frame {name}: the click {click!r} is outside of the {size[0]}x{size[1]} pixels.")
    return label_map.names.index(what), x, y


def grow(rgb: Rgb, seeds: Sequence[tuple[int, int, int]], radius: float = 0.02) -> Ids:
    """Regions around clicks (class, x, y): a watershed between all clicks on the edges of the picture, of which what
    has another colour than the surroundings of its click is left without a label.

    radius: of those surroundings, as a share of the width.
    """
    from skimage.color import rgb2lab
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    lab = cv2.GaussianBlur(rgb2lab(rgb).astype(np.float32), (0, 0), 1.5)
    markers = np.zeros(rgb.shape[:2], dtype=np.int32)
    reach = max(2, round(radius * rgb.shape[1]))
    for place, (_, x, y) in enumerate(seeds, start=1):
        markers[y, x] = place
    edges = np.sqrt(sum(sobel(lab[..., c]) ** 2 for c in range(3)))
    regions = watershed(edges, markers)
    result = np.full(regions.shape, IGNORE, dtype=np.int64)
    for place, (identity, x, y) in enumerate(seeds, start=1):
        rows, columns = slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)
        own = regions[rows, columns] == place
        typical = np.median(lab[rows, columns][own], axis=0)
        close = np.linalg.norm(lab - typical, axis=-1) < _SIMILAR
        result[(regions == place) & close] = identity
    return result


def carried(labels: dict[int, Ids], count: int, flow: Callable[[int, int], Any], reach: int = _REACH) -> dict[int, Ids]:
    """Labels of the frames between: those of the nearest labelled frame on either side, followed from frame to frame;
    where the two sides disagree there is none.

    flow: (frame, neighbour) -> flow and its mask, or None.
    """
    sides: dict[int, list[Ids]] = {}
    for start in labels:
        for step in (-1, 1):
            current = labels[start]
            for number in range(start + step, start + step * (reach + 1), step):
                if not 0 <= number < count or number in labels:
                    break
                found = flow(number, number - step)
                if found is None:
                    break
                current = warp_labels(current, *found)
                sides.setdefault(number, []).append(current)
    result = dict(labels)
    for number, found in sides.items():
        merged = found[0]
        for other in found[1:]:
            merged = np.where(merged == IGNORE, other, np.where((other == IGNORE) | (other == merged), merged, IGNORE))
        if (merged != IGNORE).any():
            result[number] = merged
    return result
