"""A picture of what labels of a few frames tell of the others: `python benchmarks/completion.py --output docs/images`.

A synthetic scene is learned on Gaussians from labels in the first quarter of its frames, as in the table. Each column
of completion.jpg is a later frame; the rows are the image, the nearest label copied, labels carried along chained flow,
Semantic Flow, and the truth.
"""

from pathlib import Path

import gaussians
import numpy as np
import torch
import tyro
from captions import pixels, save, titled_grid
from table import Scene, scene_folder
from training import Job

from semfield_ns.labelling.baselines import chained_flow, nearest_labelled
from semfield_ns.rendering.palette import colorize_labels
from semfield_ns.semantic_flow.datamanager import FlowDataset

ROWS = ("image", "nearest label\ncopied", "labels along\noptical flow", "Semantic Flow", "truth")


def frames_of(folder: Path, labels: str) -> FlowDataset:
    """The frames of a scene with the labels of a schedule."""
    return FlowDataset(
        Job(folder, labels).config().pipeline.datamanager.dataparser.setup().get_dataparser_outputs("train")
    )


@torch.no_grad()
def label(pipeline, dataset: FlowDataset, frames: list[int]) -> dict[int, np.ndarray]:
    """The classes that a run renders for training frames."""
    found = {}
    for frame in frames:
        raw = pipeline.model.raw_outputs_for_camera(dataset.cameras[frame : frame + 1])
        found[frame] = raw["logits"].argmax(-1).numpy()
    return found


def main(
    output: Path,
    cache: Path = Path("outputs/table"),
    name: str = "demo",
    labels: str = "first-25%",
    columns: int = 4,
    width: int = 160,
) -> None:
    """Train, label, draw.

    Args:
        output: Folder of the picture.
        cache: Where synthetic scenes are written.
        name: Of the scene.
        labels: Which frames show their labels.
        columns: Frames to show.
        width: Of the images, px.
    """
    folder = scene_folder(Scene(name, width=width), Path(), cache)
    pipeline, *_ = gaussians.train("semantic-flow-splat-tiny", folder, 0, None, {}, labels=labels)
    dataset, truth = frames_of(folder, labels), frames_of(folder, "all")
    count, labelled = len(dataset), dataset.metadata["labelled"]
    given = [dataset.semantics(i)[..., 0].numpy() if i in labelled else None for i in range(count)]
    flows = [[dataset[i][key][..., :2].numpy() for i in range(count)] for key in ("flow_forward", "flow_backward")]
    hidden = np.array([frame for frame in range(count) if frame not in labelled])
    frames = hidden[np.linspace(0, len(hidden) - 1, columns).round().astype(int)].tolist()
    sources = (
        nearest_labelled(given, labelled, count),
        chained_flow(given, labelled, *flows),
        label(pipeline, dataset, frames),
        {frame: truth.semantics(frame)[..., 0].numpy() for frame in frames},
    )
    rows = [[pixels(dataset.get_image_float32(frame)[..., :3]) for frame in frames]]
    for source in sources:
        ids = (torch.from_numpy(np.asarray(source[frame])).long() for frame in frames)
        rows.append([pixels(colorize_labels(entry, pipeline.model.palette)) for entry in ids])
    titles = [f"frame {frame}" for frame in frames]
    save(titled_grid(rows, ROWS, titles), output / "completion.jpg")


if __name__ == "__main__":
    tyro.cli(main)
