"""Training pictures of three sizes with transparent parts, against the same scene in one size.

    python benchmarks/sizes.py --seeds 3

The demo scene without its walls, which are transparent, is written twice: with pictures of one size, and with every
third one at 3/4 and every third one at half of it (labels and masks too). Both are trained with
semantic-flow-splat-tiny, in this process, and judged by the same held-out views. Prints PSNR and mIoU for each seed,
and the difference.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tyro
from gaussians import judge, train
from PIL import Image

from semfield_ns.scenes.synthetic import write_scene

SHARES = (1.0, 0.75, 0.5)
"""of the width, for one picture after the other"""
TRANSPARENT = 0
"""class id of the walls"""


def written(folder: Path, width: int, shares: tuple[float, ...]) -> Path:
    """The scene without flow and depth, whose training pictures have these shares of the width in turn."""
    write_scene("demo", folder, width=width, height=width * 3 // 4)
    meta = json.loads((folder / "transforms.json").read_text())
    held_out = set(meta["val_filenames"])
    for index, frame in enumerate(meta["frames"]):
        for key in ("flow_fwd_path", "flow_bwd_path", "instance_path"):
            frame.pop(key, None)
        picture = folder / frame["file_path"]
        image = Image.open(picture).convert("RGB")
        alpha = np.array(Image.open(folder / frame["semantic_path"])) != TRANSPARENT
        image.putalpha(Image.fromarray(255 * alpha.astype(np.uint8)))
        share = 1.0 if frame["file_path"] in held_out else shares[index % len(shares)]
        size = round(share * width), round(share * width * 3 / 4)
        image.resize(size, Image.Resampling.BOX).save(picture)
        for key in ("semantic_path", "dynamic_mask_path"):
            if key in frame:
                Image.open(folder / frame[key]).resize(size, Image.Resampling.NEAREST).save(folder / frame[key])
        values = {key: share * meta[key] for key in ("fl_x", "fl_y", "cx", "cy")}
        frame.update(values, w=size[0], h=size[1])
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def main(seeds: int = 3, width: int = 160, steps: int | None = None) -> None:
    """Prints what both give.

    Args:
        seeds: how many.
        width: of the largest pictures, px.
        steps: of training; those of the preset by default.
    """
    folder = Path(tempfile.mkdtemp())
    scenes = {
        "one size": written(folder / "one", width, (1.0,)),
        "three sizes": written(folder / "three", width, SHARES),
    }
    found: dict[str, list[float]] = {name: [] for name in scenes}
    print("| scene | seed | PSNR | mIoU |\n|---|---|---|---|", flush=True)
    for seed in range(seeds):
        for name, scene in scenes.items():
            pipeline, *_ = train("semantic-flow-splat-tiny", scene, seed, steps, labels="every-2")
            result = judge(pipeline, scene)
            found[name].append(result["psnr"])
            print(f"| {name} | {seed} | {result['psnr']:.2f} | {result['miou']:.3f} |", flush=True)
    losses = np.subtract(found["one size"], found["three sizes"])
    print(f"\nThree sizes lose {losses.mean():.2f} ± {losses.std():.2f} dB.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    tyro.cli(main)
