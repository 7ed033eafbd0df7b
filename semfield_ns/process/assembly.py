"""The scene: what all steps made, as a transforms.json."""

from dataclasses import replace
from typing import TYPE_CHECKING

from semfield_ns.io import read_json, read_npy
from semfield_ns.process.flow import flow_file
from semfield_ns.process.frames import frame_name
from semfield_ns.process.workspace import Workspace

if TYPE_CHECKING:
    from semfield_ns.scenes.scene import Frame

_SOME_NEAR, _SOME_FAR = 1.0, 4.0  # of one place any depth fits as well; these set the scale of the scene


def write_scene(work: Workspace) -> None:
    """transforms.json, last, so that it is only there when everything it names is."""
    from semfield_ns.scenes.formats.transforms import read_transforms, write_transforms
    from semfield_ns.scenes.labels import LabelMap
    from semfield_ns.scenes.scene import assemble_scene

    labels = read_json(work.record("labels"))
    labelled = set(labels["labelled"]) & set(work.kept)
    one_place = work.registration.one_place
    covered = set() if one_place else {n for n in work.kept if (read_npy(work.depth_file(n)) > 0).any()}
    points = work.registration.points
    scene = assemble_scene(
        work.root,
        [_frame(work, place, labelled, covered) for place in range(len(work.kept))],
        label_map=LabelMap.from_transforms(labels["semantics"]) if labelled else None,
        depth_kind="metric" if covered else None,
        points=points if len(points) else None,
        camera_motion=work.registration.figures.get("camera_motion", "moving"),
        near=_SOME_NEAR if one_place else None,
        far=_SOME_FAR if one_place else None,
    )
    write_transforms(scene, work.root)
    read_transforms(work.scene_file)


def _frame(work: Workspace, place: int, labelled: set[int], covered: set[int]) -> "Frame":
    """The frame at this place among those with a pose."""
    from semfield_ns.scenes.scene import Frame

    registration, kept, static = work.registration, work.kept, work.settings.static
    number = kept[place]
    camera = registration.cameras[number]
    frame = Frame(
        image_path=work.images / f"{frame_name(number)}.png",
        c2w=registration.poses[number],
        fx=camera.fx,
        fy=camera.fy,
        cx=camera.cx,
        cy=camera.cy,
        width=camera.width,
        height=camera.height,
        distortion=camera.distortion,
        time=0.0 if static else work.picked.frames[number].time,
        # Photos of a static scene are all of one moment: each is a camera of its own.
        camera_id=str(place) if static else "0",
        semantic_path=work.label_file(number) if number in labelled else None,
        depth_path=work.depth_file(number) if number in covered else None,
    )
    if static:
        return frame
    before, after = (kept[p] if 0 <= p < len(kept) else None for p in (place - 1, place + 1))
    return replace(
        frame,
        dynamic_mask_path=work.mask_file(number) if work.mask_file(number).is_file() else None,
        flow_bwd_path=None if before is None else flow_file(work.flow, number, before),
        flow_fwd_path=None if after is None else flow_file(work.flow, number, after),
    )
