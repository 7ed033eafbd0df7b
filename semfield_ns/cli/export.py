"""`semfield export`: masks, videos, annotations, point clouds and splats as files."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from semfield_ns.cli.progress import each, lines
from semfield_ns.errors import SemfieldError

if TYPE_CHECKING:
    from semfield_ns.export.views import Label, LabelledViews
    from semfield_ns.scene_model import SceneModel

Format = Literal["masks", "video", "coco", "points", "splats"]


def export(
    output_dir: Path,
    load_config: Path | None = None,
    segmentation: Path | None = None,
    session: Path | None = None,
    formats: tuple[Format, ...] = ("masks", "coco"),
    labels: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="(default: all)")] = (),
    views: Literal["train", "test", "all"] = "all",
    camera_path: Path | None = None,
    scale: float = 1.0,
    at: float | None = None,
    fps: float = 12.0,
    splat: Path | None = None,
    splat_world: Literal["scene", "colmap"] | Path = "scene",
    things: bool = False,
) -> None:
    """Write masks, COCO, videos, point clouds or splats.

    masks: masks/ids/VIEW.png and masks/LABEL/VIEW.png. video: masks.mp4 and overlay.mp4. coco: coco.json, with masks as
    RLE. points: points.ply with colour, class and instance, and points/LABEL.ply, in the coordinates of the scene's
    files. splats, for a run of semantic-flow-splat: splats/scene.ply, splats/LABEL.ply and splats/labels.npy at the
    moment --at; without --at, at the first moment, and splats/video/00000.ply, ... for every moment. Of a scene that
    stands still: the Gaussians that strokes select, and all others as splats/without_LABEL.ply; of a splat that was
    attached, these are rows of its file. With --splat: splats/LABEL.ply, splats/without_LABEL.ply and
    splats/labels.npy, in the coordinates of the splat. labels.json lists the ids.

    Args:
        output_dir: Folder for the results.
        load_config: Folder of a trained run, or its config.yml. A run that semfield segment wrote includes its session.
            Without a session, the classes and the moving objects of semantic-flow are exported.
        segmentation: Instead of a run, a folder that semfield segment wrote. Nothing is rendered, so there are no
            points and no splats.
        session: Session file saved by the viewer.
        formats: What to write.
        labels: Names of the labels to write, such as ball or ball#2.
        views: Cameras of the training images, of the held-out images, or both.
        camera_path: Use the cameras of this path instead, as written by the viewer or semfield camera-path.
        scale: Size of the images, relative to the training images or to the size of the path.
        at: One moment, from 0 to 1, for all cameras, so that points and splats have moving things in one place.
        fps: Frames per second of the videos.
        splat: A .ply file of Gaussian splats of the same scene, to be split into objects.
        splat_world: Coordinates of the splat. scene: those of the scene's files. colmap: those of COLMAP before
            ns-process-data changed them. A file: the dataparser_transforms.json of the Nerfstudio run that it was
            exported from.
        things: Of a run of semfield attach --bake or --splat: instead of a session, the things that are found without
            strokes: thing_1 is the one with most Gaussians, and with splats each is written as splats/thing_1.ply, ...
    """
    from semfield_ns.export.clouds import CloudWriter
    from semfield_ns.export.gaussians import write_splats
    from semfield_ns.export.masks import CocoWriter, MaskWriter, VideoWriter
    from semfield_ns.export.sources import SessionViews, ThingViews
    from semfield_ns.export.splats import SplatWriter
    from semfield_ns.export.views import with_files
    from semfield_ns.io import write_json

    if not formats and splat is None:
        raise SemfieldError("There is nothing to export: give --formats, or a --splat.")
    if segmentation is not None and (
        load_config is not None or splat is not None or {"points", "splats"} & set(formats)
    ):
        raise SemfieldError(
            "Points and splats need a run, and --segmentation reads images only: give that folder as --load-config."
        )
    if things and (segmentation is not None or session is not None):
        raise SemfieldError("--things takes the place of a session: leave --session and --segmentation out.")
    with lines("Opening the run"):
        needs_labels = splat is not None or formats != ("splats",)
        found, to_model, scene, config, model = _open(
            load_config, segmentation, session, views, camera_path, scale, at, needs_labels, things
        )
    chosen = with_files(chosen_labels(found, labels))
    with ExitStack() as files:
        writers: list[Any] = []
        if "masks" in formats:
            writers.append(MaskWriter(output_dir, chosen))
        if "video" in formats:
            writers.append(VideoWriter(output_dir, chosen, fps, files))
        if "coco" in formats:
            writers.append(CocoWriter(output_dir, chosen))
        if "points" in formats:
            writers.append(CloudWriter(output_dir, chosen, to_model))
        if splat is not None:
            writers.append(SplatWriter(output_dir, chosen, splat, splat_to_model(to_model, splat_world, scene)))
        for view in each(found, "Views") if writers else ():
            for writer in writers:
                writer.add(view)
        write_json(output_dir / "labels.json", [asdict(label) for label in chosen])
        written = [writer.finish() for writer in writers]
    if "splats" in formats:
        assert model is not None, "checked above"
        with lines("Splats"):
            ids = found.ids if isinstance(found, ThingViews) else None
            if isinstance(found, SessionViews):
                selected = found.segmenter.selection()
                ids = None if selected is None else selected.ids
            written.append(
                write_splats(model, output_dir, chosen, to_model, at, config.method_name, ids, rest=not things)
            )
    for paths in written:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        print(f"Wrote {paths[0]}{more}" if paths else "No video was written: there are no views.")


def _open(
    load_config: Path | None,
    segmentation: Path | None,
    session: Path | None,
    views: Literal["train", "test", "all"],
    camera_path: Path | None,
    scale: float,
    at: float | None,
    needs_labels: bool,
    things: bool,
) -> "tuple[LabelledViews, Any, Path, Any, SceneModel | None]":
    """Labelled views, the map from the scene's own world to theirs, the scene; configuration and model of the run."""
    import numpy as np

    from semfield_ns.cli.segment import path_views
    from semfield_ns.export.sources import ClassViews, FolderViews, NoViews, SessionViews, ThingViews, at_time
    from semfield_ns.export.world import scene_to_model
    from semfield_ns.sessions.masks import open_run, scene_views

    if segmentation is not None:
        return FolderViews(segmentation), np.eye(4), Path(), None, None
    if load_config is None:
        raise SemfieldError("There is nothing to export from: give --load-config RUN, or --segmentation FOLDER.")
    if not 0 < scale <= 8:
        raise SemfieldError(f"--scale must be above 0 and at most 8, not {scale:g}.")
    if at is not None and not 0 <= at <= 1:
        raise SemfieldError(f"--at must be from 0 to 1, not {at:g}.")
    chosen_path = None if camera_path is None else path_views(camera_path)
    config, pipeline = open_run(load_config)
    chosen = scene_views(pipeline, views) if chosen_path is None else chosen_path
    if scale != 1:
        chosen = [view.scaled(scale) for view in chosen]
    if at is not None and any(view.camera.time is not None for view in chosen):
        chosen = at_time(chosen, at)
    segmenter = pipeline.segmenter
    if session is not None:
        if segmenter is None:
            raise SemfieldError(f"{load_config} is a run of {config.method_name}, which has no features to segment by.")
        segmenter.session.load(session)
    drawn = segmenter is not None and bool(segmenter.session.state.objects)
    found: LabelledViews
    if things:
        found = ThingViews(pipeline.model, chosen)
    elif drawn:
        found = SessionViews(segmenter, chosen)
    elif pipeline.model.label_map is None and not needs_labels:
        found = NoViews()
    else:
        found = ClassViews(pipeline.model, chosen)
    outputs = pipeline.datamanager.train_dataset._dataparser_outputs
    return found, scene_to_model(outputs), Path(pipeline.datamanager.config.dataparser.data), config, pipeline.model


def splat_to_model(to_model: Any, splat_world: Literal["scene", "colmap"] | Path, scene: Path) -> Any:
    """The map from the world of a splat to that of the model.

    Args:
        to_model: from the scene's own world to the model's.
        splat_world: see `export`.
        scene: the scene of both.
    """
    import numpy as np

    from semfield_ns.export.world import world_of_colmap, world_of_run

    if splat_world == "scene":
        return to_model
    world = world_of_colmap(scene) if splat_world == "colmap" else world_of_run(Path(splat_world), scene)
    return to_model @ np.linalg.inv(world)


def chosen_labels(found: "LabelledViews", names: tuple[str, ...]) -> "list[Label]":
    """The labels of some names, all if there is none.

    Raises:
        SemfieldError: there is no label of a name.
    """
    known = {label.name: label for label in found.labels}
    for name in names:
        if name not in known:
            raise SemfieldError(f"There is no label '{name}': choose from {', '.join(known)}.")
    return [known[name] for name in names] if names else list(found.labels)
