"""Masks as pictures, as COCO annotations, and as videos."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.export.views import Label, LabelledView, mask_of, only, paint, palette
from semfield_ns.io import atomic_path, reason, write_ids, write_json, write_png


class MaskWriter:
    """`masks/ids/VIEW.png` with the ids of all labels, and `masks/LABEL/VIEW.png`, 255 on a label and 0 elsewhere.

    Ids have their colours as a palette, unless they are more than 255.

    Args:
        folder: of the export.
        labels: that are written; the ids of others become 0.
    """

    def __init__(self, folder: Path, labels: Sequence[Label]) -> None:
        self.folder, self.labels = folder / "masks", labels

    def add(self, view: LabelledView) -> None:
        """Writes the masks of a view."""
        for label in self.labels:
            mask = mask_of(view, label)
            write_png(self.folder / label.file_name / f"{view.name}.png", mask.astype(np.uint8) * 255)
        ids, path = only(view.ids, self.labels), self.folder / "ids" / f"{view.name}.png"
        if max(label.id for label in self.labels) < 256:
            write_ids(path, ids.astype(np.uint8), palette(self.labels))
        else:
            write_png(path, ids.astype(np.uint16))

    def finish(self) -> list[Path]:
        """The folder."""
        return [self.folder]


class CocoWriter:
    """`coco.json`: an annotation for each label in each view, with its mask as compressed run lengths.

    Args:
        folder: of the export.
        labels: that are written.
    """

    def __init__(self, folder: Path, labels: Sequence[Label]) -> None:
        self.path, self.labels = folder / "coco.json", labels
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, view: LabelledView) -> None:
        """Describes a view."""
        from pycocotools import mask as coco

        height, width = view.ids.shape
        image: dict[str, Any] = {"id": len(self.images) + 1, "file_name": f"{view.name}.png"}
        image |= {"width": width, "height": height}
        if view.camera.time is not None:
            image["time"] = view.camera.time
        self.images.append(image)
        for label in self.labels:
            mask = mask_of(view, label)
            if not mask.any():
                continue
            encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image["id"],
                    "category_id": label.category,
                    "instance_id": label.instance,
                    "segmentation": {"size": [height, width], "counts": encoded["counts"].decode("ascii")},
                    "area": int(mask.sum()),
                    "bbox": [float(value) for value in coco.toBbox(encoded)],
                    "iscrowd": 0,
                }
            )

    def finish(self) -> list[Path]:
        """Writes the file."""
        categories = {label.category: category_name(label) for label in self.labels}
        content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": number, "name": name} for number, name in sorted(categories.items())],
        }
        write_json(self.path, content)
        return [self.path]


def category_name(label: Label) -> str:
    """The name of a label's class: "ball" of "ball#2"."""
    return label.name.rpartition("#")[0] if label.instance and "#" in label.name else label.name


class VideoWriter:
    """`masks.mp4` (labels in their colours on black) and `overlay.mp4` (on the pictures), a frame a view.

    Args:
        folder: of the export.
        labels: that are shown.
        fps: frames a second.
        files: closes the videos, which are there from then on, or not at all if an exception closes them.
    """

    def __init__(self, folder: Path, labels: Sequence[Label], fps: float, files: ExitStack) -> None:
        self.paths, self.labels, self.fps = [folder / "masks.mp4", folder / "overlay.mp4"], labels, fps
        self.size: tuple[int, int] | None = None
        self._files = files
        self._writers: list[Any] = []

    def add(self, view: LabelledView) -> None:
        """Appends a frame to both videos.

        Raises:
            SemfieldError: it has another size than the frames before, or ffmpeg is missing.
        """
        height, width = view.ids.shape
        size = height - height % 2, width - width % 2  # what video encoders take
        if self.size is None:
            self.size = size
            self._open(size)
        if size != self.size:
            raise SemfieldError(
                f"The view {view.name} has {width}x{height} pixels, the ones before it {self.size[1]}x{self.size[0]}: "
                "a video needs views of one size, so leave out the format 'video'."
            )
        frames = (palette(self.labels)[only(view.ids, self.labels)], paint(view, self.labels))
        for writer, frame in zip(self._writers, frames, strict=True):
            writer.add_image(np.ascontiguousarray(frame[: size[0], : size[1]]))

    def _open(self, size: tuple[int, int]) -> None:
        import mediapy

        try:
            for path in self.paths:
                temporary = self._files.enter_context(atomic_path(path))
                writer = mediapy.VideoWriter(temporary, size, fps=self.fps, crf=18)
                self._writers.append(self._files.enter_context(writer))
        except (RuntimeError, OSError) as error:
            raise SemfieldError(
                f"Videos cannot be written ({reason(error)}): install ffmpeg, or imageio-ffmpeg."
            ) from error

    def finish(self) -> list[Path]:
        """The videos, as soon as they are closed."""
        return self.paths if self.size is not None else []
