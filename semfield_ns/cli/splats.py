"""A splat of another program attached: the part of `attach` that has no photos to begin with."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from semfield_ns.cli.progress import lines, shown
from semfield_ns.errors import SemfieldError

Up = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]
SplatWorld = Literal["scene", "colmap"] | Path
TEACHERS = ("lite-fine+classical", "classical")
"""tried in turn where none is named; the last one needs no weights"""


def attach_splat(
    file: Path,
    data: Path | None,
    output_dir: Path,
    images: str | None,
    splat_world: SplatWorld,
    up: Up,
    teacher: str | None,
    antialiased: bool,
) -> Path:
    """Makes a run of a splat.

    Args:
        file: the splat.
        data: folder of the scene that it is of; None for pictures of the splat itself.
        output_dir: the run goes to OUTPUT_DIR/NAME/METHOD/attached.
        images: image folder of an LLFF scene.
        splat_world: coordinates of the splat, where there is a scene.
        up: the direction that is up in pictures of the splat.
        teacher: of the features.
        antialiased: whether the splat was trained that way.

    Returns:
        The config.yml of the run.

    Raises:
        SemfieldError: a file cannot be used.
    """
    import numpy as np
    import torch

    from semfield_ns.cli.export import splat_to_model
    from semfield_ns.gaussians.splats import splats_of
    from semfield_ns.method_configs.semantic_flow_splat import semantic_flow_splat, semantic_flow_splat_tiny
    from semfield_ns.scenes.formats import read_scene
    from semfield_ns.scenes.formats.splats import read_drawn_splats
    from semfield_ns.semantic_flow_splat import attached

    start, cuda = time.perf_counter(), torch.cuda.is_available()
    # Whatever is wrong with the input is said before anything is written.
    splats, degree = read_drawn_splats(file)
    scene = None if data is None else read_scene(data, images)
    world = np.eye(4) if data is None else splat_to_model(np.eye(4), splat_world, data)
    teacher = known_teacher(TEACHERS if teacher is None else (teacher,))
    preset = semantic_flow_splat if cuda else semantic_flow_splat_tiny
    config, folder = attached.prepare(preset.config, file.stem, output_dir)
    if file.resolve().is_relative_to(folder):
        raise SemfieldError(f"{file} is in the folder of the run itself: give the file that it was made of.")
    if scene is not None:
        attached.clear(config)
        attached.write_given_scene(scene, folder)
    else:
        with shown("Looking at the splat") as progress:

            def watch(numbers: Sequence[int]) -> Iterable[int]:
                for done, number in enumerate(numbers, start=1):
                    yield number
                    progress(done / len(numbers))

            whole = splats_of(splats.vertices)
            poses = attached.poses_around(whole, attached.up_of(splats) if up == "auto" else up)
            attached.clear(config)
            attached.write_rendered_scene(whole, poses, folder, antialiased, "cuda" if cuda else "cpu", watch)
            del whole  # of millions of Gaussians, half a gigabyte
    looked = time.perf_counter()
    with lines("Uplifting image features"):
        run = attached.write_attached(config, file, splats, degree, world, teacher, antialiased)
    print(f"Attached: {run}")
    print(f"{len(splats):,} Gaussians, spherical harmonics of degree {degree}")
    print(f"Seconds: {looked - start:.1f} for pictures, {time.perf_counter() - looked:.1f} for image features")
    return run


def known_teacher(names: Sequence[str]) -> str:
    """The first teacher whose weights are at hand.

    Raises:
        SemfieldError: those of the last one are not, or there is no such teacher.
    """
    from semfield_ns.teachers.registry import build_teacher

    for name in names[:-1]:
        try:
            build_teacher(name)
        except SemfieldError:
            continue
        return name
    build_teacher(names[-1])
    return names[-1]
