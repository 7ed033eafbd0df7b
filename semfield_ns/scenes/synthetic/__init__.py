"""Synthetic scenes with exact truth: rgb, depth, flow, masks, labels, instances. numpy only, seeded, quick."""

from semfield_ns.scenes.synthetic.cameras import Intrinsics
from semfield_ns.scenes.synthetic.presets import PRESETS, make_scene
from semfield_ns.scenes.synthetic.scene import AnalyticScene, SceneObject
from semfield_ns.scenes.synthetic.writer import write_scene

__all__ = ["PRESETS", "AnalyticScene", "Intrinsics", "SceneObject", "make_scene", "write_scene"]
