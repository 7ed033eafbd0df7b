"""Gives a pipeline its panels: the entry point `semfield_ns.attachments`."""

from functools import partial
from typing import Any

from semfield_ns.scene_model import MovingSceneModel, SceneModel
from semfield_ns.viewer.browser_splats import DrawingPanel
from semfield_ns.viewer.edit_panel import EditPanel
from semfield_ns.viewer.export_buttons import export_session
from semfield_ns.viewer.legend import SemanticPanel
from semfield_ns.viewer.panel import SegmentationPanel
from semfield_ns.viewer.picking import add_picking
from semfield_ns.viewer.playback import PlaybackPanel
from semfield_ns.viewer.scene_panel import ScenePanel


def attach(pipeline: Any) -> None:
    """Sets the panels as attributes of a pipeline: Nerfstudio's viewer finds them there.

    Args:
        pipeline: a `SemfieldPipeline`; one whose model is not of this package gets none.
    """
    model = pipeline.model
    if not isinstance(model, SceneModel):
        return
    if model.label_map is not None:
        pipeline.classes = SemanticPanel(model.label_map.names, model.label_map.colors)
        model.class_switches = pipeline.classes.visible_classes
    if isinstance(model, MovingSceneModel):
        pipeline.playback = PlaybackPanel(model)
    editing = None
    if isinstance(model, MovingSceneModel) and model.label_map is not None:
        moving = [entry.name for entry in model.label_map.classes if entry.dynamic]
        editing = pipeline.editing = EditPanel(moving, lambda: model.editor)
        add_picking(editing)
    if len(model.scene_names) > 1:
        pipeline.scenes = ScenePanel(model, editing)
    if pipeline.segmenter is not None:
        pipeline.segmentation = SegmentationPanel(model, pipeline.segmenter.session, partial(export_session, pipeline))
        # Its machines are the ones that can be told to make no pictures.
        if isinstance(model, MovingSceneModel) and type(model).splats is not MovingSceneModel.splats:
            pipeline.drawing = DrawingPanel(model)
