"""Objects that a run follows, against the true instances: `python benchmarks/objects.py --load-config RUN/config.yml`.

For each object: the true instances that it covers best, frame by frame (one, if it is never confused), and mean IoU.
Of all objects together: region similarity J and boundary accuracy F.
"""

from pathlib import Path

import numpy as np
import torch
import tyro
from completion import save
from nerfstudio.utils.eval_utils import eval_setup
from training import machine

from semfield_ns.evaluation.instances import instance_score
from semfield_ns.io import read_image
from semfield_ns.rendering.palette import object_color
from semfield_ns.semantic_flow.editor import track_objects


def main(load_config: Path, pictures: Path | None = None) -> None:
    """Follow, compare.

    Args:
        load_config: config.yml of a run of semantic-flow on a synthetic scene.
        pictures: Where to draw some frames, and below each the objects in colours of their own (objects.jpg).
    """
    _, pipeline, _, _ = eval_setup(load_config, test_mode="val")
    frames = pipeline.datamanager.train_dataset.metadata["frames"]
    # A run does not see instances; a synthetic scene has them beside its pictures.
    truth = [np.asarray(read_image(f.image_path.parents[1] / "instances" / f.image_path.name)) for f in frames]
    tracks = track_objects(pipeline.model, 1.0)
    print("\n| object | frames | true instances | mean IoU |\n|---|---|---|---|")
    for name, entry in zip(tracks.names, tracks.objects, strict=True):
        covered, ious = set(), []
        for frame, region in entry.regions.items():
            counts = np.bincount(truth[frame][region], minlength=2)
            best = int(counts[1:].argmax()) + 1
            covered.add(best)
            ious.append((region & (truth[frame] == best)).sum() / (region | (truth[frame] == best)).sum())
        print(f"| {name} | {len(entry.regions)} | {sorted(covered)} | {np.mean(ious):.3f} |")
    ids = {frame: np.zeros(image.shape, dtype=np.int64) for frame, image in enumerate(truth)}
    for number, entry in enumerate(tracks.objects, start=1):
        for frame, region in entry.regions.items():
            ids[frame][region] = number
    # Instances of classes that do not move are not followed.
    moving = {frame: np.where(mask, truth[frame], 0) for frame, mask in enumerate(_masks(pipeline))}
    found = instance_score(ids, moving)
    print(f"\nJ {found.region:.3f}, F {found.boundary:.3f}, J&F {found.mean:.3f} ({found.objects} true objects)")
    print(f"\n{machine()}")
    if pictures is not None:
        draw(pipeline.datamanager.train_dataset, ids, pictures / "objects.jpg")


def draw(dataset, ids: dict[int, np.ndarray], path: Path, columns: int = 4) -> None:
    """Some frames, and the same with the objects coloured."""
    frames = np.linspace(0, len(dataset) - 1, columns).round().astype(int).tolist()
    highest = max(int(image.max()) for image in ids.values())
    colors = torch.tensor([object_color(number) for number in range(1, highest + 1)]) / 255
    rows = []
    for frame in frames:
        image, region = dataset.get_image_float32(frame)[..., :3], torch.from_numpy(ids[frame])
        colored = torch.where((region > 0)[..., None], colors[(region - 1).clamp(min=0)], 0.4 * image)
        rows.append(torch.cat([image, colored]))
    save(torch.cat(rows, dim=1), path, scale=1)


def _masks(pipeline) -> list[np.ndarray]:
    """Motion masks of the training frames."""
    return [mask.numpy() for mask in pipeline.datamanager.train_dataset.moving()]


if __name__ == "__main__":
    tyro.cli(main)
