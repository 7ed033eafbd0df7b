"""What a run is unsure of: `python benchmarks/uncertainty.py --load-config RUN/config.yml --output docs/images`.

Each column of uncertainty.jpg is one of the frames that the run would have labelled next; the rows are its picture, its
classes, and `semantics_confidence` (dark: unsure).
"""

from pathlib import Path

import torch
import tyro
from captions import pixels, save, titled_grid
from nerfstudio.utils.eval_utils import eval_setup

from semfield_ns.evaluation.suggestion import suggest, uncertainty


@torch.no_grad()
def main(load_config: Path, output: Path, count: int = 4) -> None:
    """Suggest, draw.

    Args:
        load_config: config.yml of a run of semantic-flow some of whose frames have no label.
        output: Folder of the picture.
        count: Frames to show.
    """
    _, pipeline, _, _ = eval_setup(load_config, test_mode="val")
    model, labelled = pipeline.model, pipeline.datamanager.train_dataset.metadata["labelled"]
    cameras = {frame: camera for frame, camera in enumerate(model.frames.cameras()) if frame not in labelled}
    raw = {frame: model.raw_outputs_for_camera(camera) for frame, camera in cameras.items()}
    chosen = suggest({frame: uncertainty(entry["logits"]) for frame, entry in raw.items()}, count)
    print(f"Frames to label next: {chosen}")
    rows = [[], [], []]
    for frame in sorted(chosen):
        shown = model.present(raw[frame])
        confidence = shown["semantics_confidence"].expand(-1, -1, 3)
        for row, picture in zip(rows, (shown["rgb"], shown["semantics_colormap"], confidence), strict=True):
            row.append(pixels(picture)[::2, ::2])
    titles = [f"frame {frame}" for frame in sorted(chosen)]
    save(titled_grid(rows, ("colour", "classes", "confidence"), titles), output / "uncertainty.jpg")


if __name__ == "__main__":
    tyro.cli(main)
