"""A picture of the objects that a run follows, and how well it does: `python benchmarks/objects.py RUN/config.yml OUT`.

As `semfield evaluate --protocol objects`, with objects.jpg beside the figures.
"""

from pathlib import Path

import numpy as np
import torch
import tyro
from captions import pixels, save, titled_grid
from training import machine

from semfield_ns.cli.evaluate import true_instances
from semfield_ns.cli.objects import followed
from semfield_ns.metrics.instances import instance_score
from semfield_ns.rendering.palette import object_color


def main(load_config: Path, pictures: Path, /) -> None:
    """Follow, compare, draw.

    Args:
        load_config: config.yml of a run of semantic-flow on a scene with instance images.
        pictures: Folder for objects.jpg.
    """
    pipeline, tracks, images = followed(load_config)
    truth = true_instances(pipeline, images)
    print(f"\n{instance_score({step: images[step] for step in truth}, truth).table(tracks.names)}\n\n{machine()}")
    draw(pipeline.datamanager.train_dataset, images, pictures / "objects.jpg")


def draw(dataset, ids: list[np.ndarray], path: Path, columns: int = 4) -> None:
    """Some frames, and the same with the objects coloured."""
    frames = np.linspace(0, len(dataset) - 1, columns).round().astype(int).tolist()
    highest = max(int(image.max()) for image in ids)
    colors = torch.tensor([object_color(number) for number in range(1, highest + 1)]) / 255
    images, objects = [], []
    for frame in frames:
        image, region = dataset.get_image_float32(frame)[..., :3], torch.from_numpy(ids[frame])
        colored = torch.where((region > 0)[..., None], colors[(region - 1).clamp(min=0)], 0.4 * image)
        images.append(pixels(image)[::2, ::2])
        objects.append(pixels(colored)[::2, ::2])
    titles = [f"frame {frame}" for frame in frames]
    save(titled_grid([images, objects], ("image", "objects"), titles), path)


if __name__ == "__main__":
    tyro.cli(main)
