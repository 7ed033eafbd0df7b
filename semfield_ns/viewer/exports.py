"""What the button that saves results does: `semfield segment` and `semfield export`, for the viewer's session."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from semfield_ns.errors import SemfieldError
from semfield_ns.export.clouds import CloudWriter
from semfield_ns.export.gaussians import write_splats
from semfield_ns.export.masks import CocoWriter, VideoWriter
from semfield_ns.export.sources import SessionViews
from semfield_ns.export.views import Label, with_files
from semfield_ns.export.world import scene_to_model
from semfield_ns.io import write_json
from semfield_ns.sessions.masks import MANIFEST, Which, scene_views, write_masks
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from semfield_ns.viewer.live import GuardedViews
from semfield_ns.viewer.page import Page

FRAMES_A_SECOND = 12.0
OVER = ", replacing the earlier ones,"


def export_session(pipeline: Any, session: Session, folder: Path, what: str, which: Which, page: Page) -> str:
    """Writes a session's results for the images of a run's scene; training and the viewer go on meanwhile.

    Args:
        pipeline: of the run.
        session: a copy that nobody changes.
        folder: of the results; "masks" are those of `semfield segment`, others go to a folder named like the format.
        what: "masks", "video", "coco", "points" or "splats", of which the last needs no views.
        which: "train" for the images that were trained on, such as the frames of a video, "test" for those held out, or
            "all".
        page: shows how far it is; its lock guards the model.

    Returns:
        A sentence that says what was written.

    Raises:
        SemfieldError: the session has no objects, something cannot be written, or somebody pressed Cancel.
    """
    if not session.state.objects:
        raise SemfieldError("The session has no object yet: add one and draw a stroke on it.")
    # A segmenter of its own, as on the command line: the viewer's is used with the lock held only.
    segmenter = Segmenter(session, GuardedViews(pipeline.model, page))
    views = scene_views(pipeline, which)
    if what == "masks":
        again = (folder / MANIFEST).exists()
        write_masks(segmenter, views, folder, watch=partial(page.watched, "Saving"))
        session.save(folder / "session.json")
        return f"Wrote {len(views)} masks and overlays{OVER if again else ''} to {page.told(folder)}"
    found = SessionViews(segmenter, views)
    labels = with_files(found.labels)
    target = folder / what
    if what == "splats":
        return _export_gaussians(pipeline, segmenter, found.labels, folder, page)
    again = (target / "labels.json").exists()
    with ExitStack() as files:
        writer: VideoWriter | CocoWriter | CloudWriter
        if what == "video":
            writer = VideoWriter(target, labels, FRAMES_A_SECOND, files)
        elif what == "coco":
            writer = CocoWriter(target, labels)
        else:
            outputs = pipeline.datamanager.train_dataset._dataparser_outputs
            writer = CloudWriter(target, labels, scene_to_model(outputs))
        for view in page.watched("Saving", found):
            writer.add(view)
        written = writer.finish()
    write_json(target / "labels.json", [asdict(label) for label in labels])
    session.save(folder / "session.json")
    return f"Wrote {', '.join(path.name for path in written)}{OVER if again else ''} to {page.told(target)}"


def _export_gaussians(pipeline: Any, segmenter: Segmenter, labels: Sequence[Label], folder: Path, page: Page) -> str:
    """Writes the Gaussians that strokes selected."""
    again = (folder / "splats" / "labels.json").exists()
    selection = segmenter.selection()  # its renders hold the lock
    if selection is None:
        raise SemfieldError("Gaussians are selected in scenes that stand still, once the run has features.")
    to_model = scene_to_model(pipeline.datamanager.train_dataset._dataparser_outputs)
    with page.lock:
        written = write_splats(pipeline.model, folder, with_files(labels), to_model, None, None, selection.ids)
    segmenter.session.save(folder / "session.json")
    return f"Wrote {len(written)} files{OVER if again else ''} to {page.told(folder / 'splats')}"
