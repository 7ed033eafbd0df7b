"""`semfield objects`: the moving objects of a run, followed over time, as id images."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from semfield_ns.cli.progress import each, lines
from semfield_ns.errors import SemfieldError

if TYPE_CHECKING:
    from semfield_ns.editing.objects import ObjectTracks


def objects(load_config: Path, output_dir: Path, scale: float = 1.0) -> None:
    """Track the moving objects: an id image for every moment.

    Writes ids/000.png, ... (8 bit; 0 is no object) and objects.json: the name, class and id of each object and, in each
    frame, its box in pixels and the centre of its visible part in the coordinates of the scene's files. semfield edit
    takes the same names.

    Args:
        load_config: Folder of a trained run of semantic-flow, or its config.yml.
        output_dir: Folder for the results.
        scale: Size of the id images, relative to the training images.
    """
    from semfield_ns.io import write_ids, write_json
    from semfield_ns.rendering.palette import default_palette, with_black

    if not 0 < scale <= 4:
        raise SemfieldError(f"--scale must be above 0 and at most 4, not {scale:g}.")
    pipeline, tracks, images = followed(load_config, scale)
    if len(tracks.objects) > 255:
        raise SemfieldError(f"{len(tracks.objects)} objects do not fit into 8-bit id images: lower --scale.")
    (output_dir / "ids").mkdir(parents=True, exist_ok=True)
    colors = with_black(default_palette(len(tracks.objects)))
    for frame, ids in enumerate(images):
        write_ids(output_dir / "ids" / f"{frame:03d}.png", ids.astype(np.uint8), colors)
    write_json(output_dir / "objects.json", described(tracks, pipeline.model.editor.world))
    for name, entry in zip(tracks.names, tracks.objects, strict=True):
        print(f"{name}: {len(entry.points)} of {len(images)} frames")
    if not tracks.objects:
        print("No moving object was found.")
    print(f"Wrote {output_dir / 'objects.json'}")


def followed(load_config: Path, scale: float = 1.0) -> tuple[Any, "ObjectTracks", list[Int[np.ndarray, "H W"]]]:
    """Opens a run of semantic-flow and follows its moving objects: its pipeline, their tracks, and their id images.

    Args:
        load_config: config.yml of the run.
        scale: of the id images, one a time step, against the training pictures.

    Raises:
        SemfieldError: it is no run of one scene with classes by semantic-flow.
    """
    from semfield_ns.cli.one_scene import read_run

    read_run(load_config)
    from nerfstudio.utils.eval_utils import eval_setup

    from semfield_ns.editing.editor import track_objects
    from semfield_ns.scene_model import require_moving

    with lines("Opening the run"):
        config, pipeline, _, _ = eval_setup(load_config, test_mode="inference")
    model = require_moving(pipeline.model, config.method_name, "objects are followed")
    tracks = track_objects(model, scale, partial(each, title="Views"))
    shapes = [(int(camera.height), int(camera.width)) for camera in model.time_cameras(scale)]
    return pipeline, tracks, [tracks.id_image(step, shape) for step, shape in enumerate(shapes)]


def described(tracks: "ObjectTracks", world: Float[np.ndarray, "3 4"]) -> list[dict[str, Any]]:
    """What objects.json says of the tracks; `world` leads from the scene's own world to the model's."""
    from semfield_ns.editing.edits import own_world

    result = []
    for number, (name, entry) in enumerate(zip(tracks.names, tracks.objects, strict=True), start=1):
        frames = sorted(entry.regions)
        centres = own_world(tracks.centres[name], world).tolist()
        result.append(
            {
                "id": number,
                "name": name,
                "class": name.rpartition("#")[0],
                "frames": {str(frame): box(entry.regions[frame]) for frame in frames},
                "centres": {str(frame): centre for frame, centre in zip(frames, centres, strict=True)},
            }
        )
    return result


def box(region: Bool[np.ndarray, "H W"]) -> list[int]:
    """Smallest box around a region: left, top, right, bottom in px, the last two exclusive."""
    rows, columns = np.nonzero(region)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
