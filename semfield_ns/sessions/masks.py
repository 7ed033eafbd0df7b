"""Masks of a session as files: what the viewer's export button and `semfield segment` write."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_files, write_ids, write_json, write_png
from semfield_ns.rendering.palette import default_palette, with_black
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.refine import refine
from semfield_ns.sessions.segmenter import Segmentation, Segmenter

MANIFEST = "segmentation.json"
Which = Literal["train", "test", "all"]
"""images of a scene: those that were trained on, those held out, or both"""


@dataclass(frozen=True)
class NamedView:
    """A view that masks are written of."""

    name: str
    """of its files, unique"""
    camera: ViewCamera
    image: str | None = None
    """file of the picture that was taken from there"""
    size: tuple[int, int] | None = None
    """height and width of the masks, px, where they are not those of the camera"""

    def scaled(self, factor: float) -> "NamedView":
        """The same view at another resolution."""
        return replace(self, camera=self.camera.scaled(factor), size=None)


def open_run(load_config: Path) -> tuple[Any, Any]:
    """Configuration and pipeline of a run, with its newest checkpoint.

    Raises:
        SemfieldError: there is none.
    """
    from nerfstudio.utils.eval_utils import eval_setup

    if not load_config.is_file():
        raise SemfieldError(f"{load_config} is not a file: give the config.yml of a trained run.")
    config, pipeline, _, _ = eval_setup(load_config, test_mode="inference")
    return config, pipeline


def scene_views(pipeline: Any, which: Which = "all") -> list[NamedView]:
    """The cameras of a run's scene: of the training images, of those held out, or of both.

    Views are named after their images, as `view_names` does. Masks are as large as these, also where a model sees them
    smaller.

    Raises:
        SemfieldError: there is none.
    """
    datasets = []
    if which in ("train", "all"):
        datasets.append(pipeline.datamanager.train_dataset)
    if which in ("test", "all"):
        datasets.append(pipeline.datamanager.eval_dataset)
    found: dict[Path, ViewCamera] = {}
    for dataset in datasets:
        for index, path in enumerate(dataset.image_filenames):
            found.setdefault(Path(path), ViewCamera.of(dataset.cameras, index))
    if not found:
        raise SemfieldError(f"The scene has no {which} images: choose other views.")
    names = view_names(list(found))
    return [
        NamedView(name, camera, str(path), picture_size(path, camera))
        for name, (path, camera) in sorted(zip(names, found.items(), strict=True), key=lambda entry: entry[1][0])
    ]


def picture_size(path: Path, camera: ViewCamera) -> tuple[int, int] | None:
    """Height and width of a picture, px, if it is the camera's but larger; None otherwise."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except OSError:
        return None
    alike = abs(width * camera.height - height * camera.width) <= max(width, height)  # to a pixel of the picture
    return (height, width) if alike and width > camera.width and height > camera.height else None


def view_names(pictures: Sequence[Path]) -> list[str]:
    """Names of views after their pictures, with as many of the folders above as tell them apart; case does not."""
    deepest = max((len(picture.parts) for picture in pictures), default=1)
    for depth in range(1, deepest + 1):
        names = ["_".join(picture.with_suffix("").parts[-depth:]) for picture in pictures]
        if len({name.casefold() for name in names}) == len(names):
            return names
    return [f"{picture.stem}_{number:05d}" for number, picture in enumerate(pictures)]


def _watch_in_terminal(views: Sequence[NamedView]) -> Iterable[NamedView]:
    from rich.progress import track

    return track(views, description="Masks", transient=True)


def write_masks(
    segmenter: Segmenter,
    views: Sequence[NamedView],
    folder: Path,
    refine_with: str | None = None,
    watch: Callable[[Sequence[NamedView]], Iterable[NamedView]] = _watch_in_terminal,
) -> dict[str, Any]:
    """Writes, for each view, masks/NAME.png (ids: 0 is no object, n the n-th object) and overlay/NAME.png.

    Where an object is divided, parts/NAME.png has the numbers of its parts. Ids and numbers have a palette, which for
    ids is that of the objects.

    segmentation.json lists the objects (id, name, color) and the views (name, mask, overlay, image, camera). All
    pictures are of the session as it is when the first one is made. They are put into the folder once all are made:
    what is stopped before leaves there what was there.

    Args:
        segmenter: session and model.
        views: to write.
        folder: for the files.
        refine_with: a SAM 2 model, hub id or folder, that makes every mask sharper.
        watch: goes through the views, and shows how far it is.

    Returns:
        What segmentation.json holds.

    Raises:
        SemfieldError: the session has no object, two views have one name, or a file cannot be written.
    """
    state = segmenter.session.state
    if not state.objects:
        raise SemfieldError("The session has no object yet: add one and draw a stroke on it.")
    names = [view.name for view in views]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SemfieldError(f"Two views are called {twice!r}: their masks would overwrite each other.")
    divided = any(entry.parts > 1 for entry in state.objects)
    colors = with_black(np.array([entry.color for entry in state.objects], dtype=np.uint8))
    entries = []
    with atomic_files(folder) as whole:
        for view in watch(views):
            found = segmenter.segment_view(segmenter.view(view.camera), state)
            if refine_with is not None:
                found = refined(found, refine_with)
            if view.size is not None:
                found = found.enlarged(view.size)
            write_ids(whole / "masks" / f"{view.name}.png", found.ids.byte().cpu().numpy(), colors)
            write_png(whole / "overlay" / f"{view.name}.png", (found.overlay * 255).round().byte().cpu().numpy())
            if divided:
                parts = found.parts.byte().cpu().numpy()
                write_ids(whole / "parts" / f"{view.name}.png", parts, with_black(default_palette(int(parts.max()))))
            entries.append(
                {
                    "name": view.name,
                    "mask": f"masks/{view.name}.png",
                    "overlay": f"overlay/{view.name}.png",
                    **({"parts": f"parts/{view.name}.png"} if divided else {}),
                    "image": view.image,
                    "camera": asdict(found.camera),
                }
            )
    manifest = {
        "objects": [
            {"id": number, "name": entry.name, "color": list(entry.color)}
            for number, entry in enumerate(state.objects, start=1)
        ],
        "views": entries,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def refined(found: Segmentation, model: str) -> Segmentation:
    """The same with masks that SAM 2 has made sharper; a pixel that two objects want stays with the first of them."""
    taken = torch.zeros_like(found.masks[0])
    masks = []
    for mask in found.masks:
        masks.append(refine(found.rgb, mask, model, mask.device) & ~taken)
        taken = taken | masks[-1]
    return replace(found, masks=torch.stack(masks), parts=torch.where(taken, found.parts, 0))
