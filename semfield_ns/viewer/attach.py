"""Gives a pipeline its page: the entry point `semfield_ns.attachments`."""

from functools import partial
from typing import Any

from semfield_ns.scene_model import MovingSceneModel, SceneModel
from semfield_ns.viewer.browser_splats import DrawingPanel
from semfield_ns.viewer.classes_panel import ClassesPanel
from semfield_ns.viewer.edit_panel import EditPanel
from semfield_ns.viewer.exports import export_session
from semfield_ns.viewer.page import Page, training_views
from semfield_ns.viewer.playback import PlaybackPanel
from semfield_ns.viewer.rest import Resting
from semfield_ns.viewer.scene_panel import ScenePanel
from semfield_ns.viewer.segment_panel import ALL_CAMERAS, SegmentPanel


def attach(pipeline: Any) -> None:
    """Sets the page as an attribute of a pipeline: Nerfstudio's viewer finds it there.

    Args:
        pipeline: a `SemfieldPipeline`; one whose model is not of this package gets none.
    """
    model = pipeline.model
    if not isinstance(model, SceneModel) or pipeline.segmenter is None:
        return
    page = pipeline.page = Page(training_views(pipeline))
    video = model if isinstance(model, MovingSceneModel) else None
    has_gaussians = video is not None and type(video).splats is not MovingSceneModel.splats
    still = video is not None and len(video.time_cameras()) == 1
    segment = SegmentPanel(
        page, model, pipeline.segmenter.session, partial(export_session, pipeline), has_gaussians and still
    )
    if video is not None:
        playback = PlaybackPanel(video, page)
        page.add(playback)
        if playback.moves:
            page.row.insert(0, playback.play)
            page.shortcuts[" "] = playback.toggle
        if has_gaussians:
            page.add(DrawingPanel(video, page))
    page.add(segment, "Segment")
    if video is None or not playback.moves:
        # Photos: those that were held out are the user's as well.
        segment.views.value = ALL_CAMERAS
    if model.label_map is not None:
        classes = ClassesPanel(page, model.label_map.names, model.label_map.colors, segment.live)
        page.add(classes, "Classes")
        model.class_switches = classes.visible_classes
    editing = None
    if video is not None and video.label_map is not None:
        names = [entry.name for entry in video.label_map.classes if entry.dynamic]
        resting = Resting(segment.session, segment.live, lambda: video.editor)
        editing = EditPanel(page, names, lambda: video.editor, resting.look)
        page.add(editing, "Edit")
    if len(model.scene_names) > 1:
        page.add(ScenePanel(model, page, (lambda: None) if editing is None else editing.restart))
