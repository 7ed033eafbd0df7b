"""`semfield synthetic NAME --output-dir FOLDER`: write a synthetic scene with exact truth."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

PresetName = Literal["demo", "demo-b", "fast", "thin", "static", "varied"]


def synthetic(
    name: Annotated[PresetName, tyro.conf.Positional],
    output_dir: Path,
    seed: int = 0,
    num_frames: int = 24,
    width: int = 160,
    height: int = 120,
    samples_per_axis: int = 3,
) -> None:
    """Write a synthetic scene with exact ground truth.

    The scene is an extended transforms.json folder.

    Args:
        name: Name of the scene.
        output_dir: Folder of the scene: new, empty, or an earlier synthetic scene.
        seed: Changes colours, patterns and places; for static and varied, the whole arrangement.
        num_frames: Number of frames, or of views of a static scene.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        samples_per_axis: Samples along each axis of a pixel, for anti-aliasing.
    """
    from semfield_ns.scenes.synthetic import write_scene

    folder = write_scene(name, output_dir, seed, num_frames, width, height, samples_per_axis)
    print(f"Wrote {num_frames} frames of {width} x {height} of the synthetic scene '{name}' (seed {seed}) to {folder}")
