"""Pictures of the documentation from a finished demo: `python benchmarks/pictures.py outputs/demo docs/images`."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import tyro
from captions import save, titled_grid
from PIL import Image

from semfield_ns.cli.demo import OUTPUT_NAMES


def main(demo: Path, output: Path, count: int = 3) -> None:
    """Frames of the demo's video below each other, and its figures, small.

    Args:
        demo: Folder of a finished demo.
        output: Where to write.
        count: Frames of the video to show.
    """
    output.mkdir(parents=True, exist_ok=True)
    video = iio.imread(demo / "rgb_semantics_flow_depth.mp4", plugin="FFMPEG")
    chosen = np.linspace(0, len(video) - 1, count + 1).astype(int)[:count]
    rows = [np.split(video[i], len(OUTPUT_NAMES), axis=1) for i in chosen]
    save(titled_grid(rows, column_titles=("colour", "classes", "forward flow", "depth")), output / "demo.jpg")
    for name in ("training_curves", "confusion_matrix"):
        picture = Image.open(demo / f"{name}.png").convert("RGB")
        picture.thumbnail((900, 900))
        picture.save(output / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    tyro.cli(main)
