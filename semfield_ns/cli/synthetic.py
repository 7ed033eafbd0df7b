"""`semfield synthetic NAME --output-dir FOLDER`: write a synthetic scene with exact truth."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

PresetName = Literal["demo", "demo-b", "fast", "thin", "static"]


def synthetic(
    name: Annotated[PresetName, tyro.conf.Positional],
    output_dir: Path,
    seed: int = 0,
    num_frames: int = 24,
    width: int = 160,
    height: int = 120,
    samples_per_axis: int = 3,
) -> None:
    """Write a synthetic scene with exact truth as an extended transforms.json folder.

    Args:
        name: which scene.
        output_dir: folder of the scene; must be absent, empty or an earlier synthetic scene.
        seed: moves colours, patterns and places; for `static` the whole arrangement.
        num_frames: frames of the clip, or views of a static scene.
        width: picture width in pixels.
        height: picture height in pixels.
        samples_per_axis: anti-aliasing, samples_per_axis^2 samples a pixel.
    """
    from semfield_ns.scenes.synthetic import write_scene

    folder = write_scene(name, output_dir, seed, num_frames, width, height, samples_per_axis)
    print(f"Synthetic scene '{name}' (seed {seed}, {num_frames} frames of {width} x {height}) is in {folder}")
