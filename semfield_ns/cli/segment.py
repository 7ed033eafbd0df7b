"""`semfield segment`: masks of many views, of objects that were segmented in the viewer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semfield_ns.cli.hints import viewer_line
from semfield_ns.cli.progress import lines
from semfield_ns.errors import SemfieldError

if TYPE_CHECKING:
    from semfield_ns.sessions.masks import NamedView

Views = Literal["train", "test", "all"]


def segment(
    load_config: Path,
    session: Path,
    output_dir: Path,
    views: Views = "all",
    camera_path: Path | None = None,
    scale: float = 1.0,
    refine_with: str | None = None,
) -> None:
    """Write the masks of a session that the viewer saved.

    Writes masks, overlays, segmentation.json and config.yml. Masks are 8-bit PNGs: 0 is no object, n is the n-th object
    of segmentation.json. They are identical to what the viewer exports from the same session. The folder opens as a
    run: ns-render renders its objects as segmentation_overlay.

    Args:
        load_config: Folder of a trained run of gsn or semantic-flow, or its config.yml.
        session: Session file saved by the viewer.
        output_dir: Folder for the results.
        views: Cameras of the training images, of the held-out images, or both.
        camera_path: Use the cameras of this path instead, as written by the viewer or semfield camera-path.
        scale: Size of the images, relative to the training images or to the size of the path.
        refine_with: SAM 2 model that sharpens the masks: a name such as facebook/sam2.1-hiera-small, or a folder.
    """
    import yaml

    from semfield_ns.io import write_text
    from semfield_ns.sessions.masks import open_run, scene_views, write_masks
    from semfield_ns.sessions.session import read_session, session_json

    if not 0 < scale <= 8:
        raise SemfieldError(f"--scale must be above 0 and at most 8, not {scale:g}.")
    log = read_session(session)
    chosen_path = None if camera_path is None else path_views(camera_path)
    with lines("Opening the run"):
        config, pipeline = open_run(load_config)
    segmenter = pipeline.segmenter
    if segmenter is None:
        raise SemfieldError(f"{load_config} is a run of {config.method_name}, which has no features to segment by.")
    segmenter.session.load(session)
    chosen = scene_views(pipeline, views) if chosen_path is None else chosen_path
    if scale != 1:
        chosen = [view.scaled(scale) for view in chosen]
    with lines("Masks"):
        manifest = write_masks(segmenter, chosen, output_dir, refine_with)
    # A run reads its checkpoints from where its own name says, so this one keeps the name.
    stored = (output_dir / "session.json").resolve()
    write_text(stored, session_json(log))
    config.pipeline.session = stored
    write_text(output_dir / "config.yml", yaml.dump(config))
    count = len(manifest["objects"])
    print(f"Wrote {len(manifest['views'])} masks of {count} object{'s' * (count != 1)} to {output_dir}")
    print(viewer_line(output_dir / "config.yml"))


def path_views(file: Path) -> "list[NamedView]":
    """The cameras of a camera path, named 00000, 00001, ...

    Raises:
        SemfieldError: it is no camera path.
    """
    from nerfstudio.cameras.camera_paths import get_path_from_json

    from semfield_ns.io import read_json
    from semfield_ns.segmentation.cameras import ViewCamera
    from semfield_ns.sessions.masks import NamedView

    content: Any = read_json(file)
    try:
        cameras = get_path_from_json(content)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise SemfieldError(
            f"{file} is not a camera path, or has no cameras: make one in the viewer or with semfield camera-path."
        ) from error
    return [NamedView(f"{index:05d}", ViewCamera.of(cameras, index)) for index in range(len(cameras))]
