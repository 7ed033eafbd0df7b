"""A picture of what labels of a few frames tell of the others: `python benchmarks/completion.py --output docs/images`.

A synthetic scene is learned from labels in the first quarter of its frames, as in the table. Each column of
completion.jpg is a later frame; the rows are the picture, the nearest label copied, labels carried along chained flow,
Semantic Flow, and the truth.
"""

from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from table import SYNTHETIC, predict, scene_folder
from training import Job, train

from semfield_ns.labelling.baselines import chained_flow, nearest_labelled
from semfield_ns.rendering.palette import colorize_labels


def main(
    output: Path, cache: Path = Path("outputs/table"), name: str = "demo", labels: str = "first-25%", columns: int = 4
) -> None:
    """Train, label, draw.

    Args:
        output: Folder of the picture.
        cache: Where synthetic scenes are written.
        name: Of the scene.
        labels: Which frames show their labels.
        columns: Frames to show.
    """
    scene = next(scene for scene in SYNTHETIC if scene.name == name)
    folder = scene_folder(scene, Path(), cache)
    job = Job(folder, labels, scene.masks, steps=scene.steps, rays=scene.rays, evidence=True, eval_frames="unlabelled")
    pipeline, _ = train(job)
    found, truth = predict(pipeline, 1)
    dataset = pipeline.datamanager.train_dataset
    count, labelled = len(dataset), dataset.metadata["labelled"]
    given = [dataset.semantics(i)[..., 0].numpy() if i in labelled else None for i in range(count)]
    flows = [[dataset[i][key][..., :2].numpy() for i in range(count)] for key in ("flow_forward", "flow_backward")]
    carried, copied = chained_flow(given, labelled, *flows), nearest_labelled(given, labelled, count)
    frames = np.array(sorted(found))[np.linspace(0, len(found) - 1, columns).round().astype(int)].tolist()
    images = torch.cat([dataset.get_image_float32(frame)[..., :3] for frame in frames], dim=1)
    rows = [images]
    for source in (copied, carried, found, truth.labels):
        ids = np.concatenate([np.asarray(source[frame]) for frame in frames], axis=1)
        rows.append(colorize_labels(torch.from_numpy(ids).long(), pipeline.model.palette))
    save(torch.cat(rows), output / "completion.jpg")


def save(picture: torch.Tensor, path: Path, scale: int = 2) -> None:
    """Writes [height, width, 3] in [0, 1] as a small JPEG, every pixel `scale` wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (picture.clamp(0, 1) * 255).byte().numpy().repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(pixels).save(path, quality=80)


if __name__ == "__main__":
    tyro.cli(main)
