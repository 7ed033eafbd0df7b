"""Where labelled views come from: classes of a run of semantic-flow, a session, or a folder of `semfield segment`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.export.views import Label, LabelledView
from semfield_ns.io import read_image, read_json
from semfield_ns.rendering.palette import default_palette
from semfield_ns.scene_model import MovingSceneModel, SceneModel
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.views import surface_points

if TYPE_CHECKING:
    from semfield_ns.editing.objects import ObjectTracks
    from semfield_ns.sessions.masks import NamedView
    from semfield_ns.sessions.segmenter import Segmenter


class SessionViews:
    """The objects of a session, as the viewer shows them.

    Args:
        segmenter: of the run, with the session.
        views: to be labelled.

    Raises:
        SemfieldError: the session has no object.
    """

    def __init__(self, segmenter: "Segmenter", views: "Sequence[NamedView]") -> None:
        self.segmenter, self.views = segmenter, in_time(views)
        objects = segmenter.session.state.objects
        if not objects:
            raise SemfieldError("The session has no object yet: add one and draw a stroke on it.")
        self.labels = [Label(n, entry.name, entry.color, n, n) for n, entry in enumerate(objects, start=1)]

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[LabelledView]:
        for named in self.views:
            view = self.segmenter.view(named.camera)
            found = self.segmenter.segment_view(view)
            points = None if view.points is None else view.points.cpu().numpy()
            yield LabelledView(
                named.name,
                named.camera,
                _bytes(view.rgb),
                found.ids.cpu().numpy().astype(np.uint16),
                points,
                _bytes(found.overlay),
            )


class ClassViews:
    """The classes of a run of semantic-flow, those that move divided into objects.

    Args:
        model: of the run.
        views: to be labelled.

    Raises:
        SemfieldError: the run has no classes.
    """

    def __init__(self, model: SceneModel, views: "Sequence[NamedView]") -> None:
        if model.label_map is None:
            raise SemfieldError("This run has no classes: draw on its objects in the viewer and give the session.")
        self.model, self.views = model, in_time(views)
        classes = model.label_map.classes
        self.tracks: ObjectTracks | None = None
        if isinstance(model, MovingSceneModel) and model.label_map.dynamic.any():
            self.tracks = model.editor.tracks()
        self.labels = [Label(n, entry.name, entry.color, n, 0) for n, entry in enumerate(classes, start=1)]
        self._first_object = len(classes) + 1
        objects = [] if self.tracks is None else zip(self.tracks.names, self.tracks.objects, strict=True)
        for number, (name, entry) in enumerate(objects, start=1):
            color = _shade(classes[entry.class_id].color, number)
            self.labels.append(Label(len(classes) + number, name, color, entry.class_id + 1, number))

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[LabelledView]:
        for named in self.views:
            raw = self.model.raw_outputs_for_camera(named.camera.cameras())
            classes = raw["logits"].argmax(dim=-1)
            points = surface_points(raw, named.camera.cameras())
            ids = classes + 1
            if self.tracks is not None and self.tracks.objects:
                ids = self._divide(ids, points, raw["dynamic_weight"][..., 0] > 0.5, named.camera)
            yield LabelledView(
                named.name, named.camera, _bytes(raw["rgb"]), ids.cpu().numpy().astype(np.uint16), points.cpu().numpy()
            )

    def _divide(self, ids: Tensor, points: Tensor, moving: Tensor, camera: ViewCamera) -> Int[Tensor, "H W"]:
        """Ids of objects where things move and there is an object of the class."""
        assert self.tracks is not None and isinstance(self.model, MovingSceneModel)
        frame = round(self.model.step_of(camera.time or 0.0))
        nearest = self.tracks.nearest(points[moving], ids[moving] - 1, frame)
        of_class = torch.tensor([entry.class_id for entry in self.tracks.objects], device=ids.device) + 1
        result = ids.clone()
        result[moving] = torch.where(of_class[nearest] == ids[moving], nearest + self._first_object, ids[moving])
        return result


class ThingViews:
    """The things of a scene that stands still, as they are found without strokes.

    Args:
        model: of the run.
        views: to be labelled.

    Raises:
        SemfieldError: the run has no Gaussians with features that stand still, or nothing was found among them.
    """

    def __init__(self, model: SceneModel, views: "Sequence[NamedView]") -> None:
        cloud = model.cloud()
        if cloud is None:
            raise SemfieldError(
                "Things are found among Gaussians that stand still and have features: give a run of semfield attach "
                "--bake or --splat."
            )
        self.model, self.views, self.ids = model, in_time(views), cloud.things
        count = int(self.ids.max())
        if not count:
            raise SemfieldError("No thing was found in this scene: draw strokes in the viewer and give the session.")
        colors = default_palette(count).tolist()
        self.labels = [Label(n, f"thing_{n}", tuple(colors[n - 1]), n, n) for n in range(1, count + 1)]

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[LabelledView]:
        for named in self.views:
            raw = self.model.raw_outputs_for_camera(named.camera.cameras())
            points = surface_points(raw, named.camera.cameras())
            ids = raw["instances"][..., 0].cpu().numpy().astype(np.uint16)
            yield LabelledView(named.name, named.camera, _bytes(raw["rgb"]), ids, points.cpu().numpy())


class NoViews:
    """Nothing labelled: of a run without classes in which nothing was drawn, for exports that need no labels."""

    labels: Sequence[Label] = ()

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[LabelledView]:
        return iter(())


class FolderViews:
    """The masks that `semfield segment`, or the viewer's button, wrote. They do not say where surfaces are.

    Args:
        folder: with segmentation.json.

    Raises:
        SemfieldError: it is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        from semfield_ns.sessions.masks import MANIFEST

        self.folder = folder
        path = folder / MANIFEST
        if not path.is_file():
            raise SemfieldError(f"{folder} holds no {MANIFEST}: give a folder that semfield segment wrote.")
        content = read_json(path)
        try:
            self.labels = [
                Label(entry["id"], entry["name"], tuple(entry["color"]), entry["id"], entry["id"])
                for entry in content["objects"]
            ]
            self.views = [
                (entry["name"], entry["mask"], entry["overlay"], ViewCamera(**entry["camera"]))
                for entry in content["views"]
            ]
        except (KeyError, TypeError) as error:
            raise SemfieldError(f"{path} does not describe masks: write it again with semfield segment.") from error
        self.views.sort(key=lambda entry: (entry[3].time or 0.0, entry[0]))

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[LabelledView]:
        for name, mask, overlay, camera in self.views:
            ids = np.array(read_image(self.folder / mask, f"mask of view {name}"))
            painted = np.array(read_image(self.folder / overlay, f"overlay of view {name}").convert("RGB"))
            yield LabelledView(name, camera, painted, ids, None, painted)


def in_time(views: "Sequence[NamedView]") -> "list[NamedView]":
    """Views in the order of time, then of name."""
    return sorted(views, key=lambda view: (view.camera.time or 0.0, view.name))


def at_time(views: "Sequence[NamedView]", time: float) -> "list[NamedView]":
    """The same cameras, all at one time in [0, 1]."""
    return [replace(view, camera=replace(view.camera, time=time)) for view in views]


def _bytes(rgb: Tensor) -> np.ndarray:
    return (rgb.float().clamp(0, 1) * 255).round().byte().cpu().numpy()


def _shade(color: Sequence[int], number: int) -> tuple[int, int, int]:
    """A colour like that of the class, another one for each object."""
    factor = (1.0, 0.75, 1.25, 0.6)[(number - 1) % 4]
    red, green, blue = (min(255, max(1, round(channel * factor))) for channel in color)
    return red, green, blue
