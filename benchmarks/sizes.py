"""Training pictures of three sizes with transparent parts, against the same scene in one size.

    python benchmarks/sizes.py --scenes demo-b --seeds 3

A synthetic scene without its walls, which are transparent, is written twice: with pictures of one size, and with every
third one at 3/4 and every third one at half of it (labels and masks too). Both are trained with
semantic-flow-splat-tiny, in this process, and judged by the same held-out views. Prints PSNR and mIoU for each seed,
and the difference.
"""

import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tyro
from gaussians import judge, train
from PIL import Image
from training import machine

from semfield_ns.scenes.synthetic import write_scene

SHARES = (1.0, 0.75, 0.5)
"""of the width, for one picture after the other"""
TRANSPARENT = 0
"""class id of the walls"""


def written(name: str, folder: Path, width: int, shares: tuple[float, ...]) -> Path:
    """The scene without flow and depth, whose training pictures have these shares of the width in turn."""
    write_scene(name, folder, width=width, height=width * 3 // 4)
    meta = json.loads((folder / "transforms.json").read_text())
    held_out = set(meta["val_filenames"])
    for index, frame in enumerate(meta["frames"]):
        for key in ("flow_fwd_path", "flow_bwd_path", "instance_path"):
            frame.pop(key, None)
        picture = folder / frame["file_path"]
        image = Image.open(picture).convert("RGB")
        alpha = np.array(Image.open(folder / frame["semantic_path"])) != TRANSPARENT
        share = 1.0 if frame["file_path"] in held_out else shares[index % len(shares)]
        size = round(share * width), round(share * width * 3 / 4)
        shares_opaque = cv2.resize(alpha.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]
        opaque = cv2.resize(np.float32(image) * alpha[..., None], size, interpolation=cv2.INTER_AREA)
        rgba = np.dstack([opaque / np.maximum(shares_opaque, 1e-6), 255 * shares_opaque])
        Image.fromarray(rgba.round().clip(0, 255).astype(np.uint8)).save(picture)
        for key in ("semantic_path", "dynamic_mask_path"):
            if key in frame:
                Image.open(folder / frame[key]).resize(size, Image.Resampling.NEAREST).save(folder / frame[key])
        values = {key: share * meta[key] for key in ("fl_x", "fl_y", "cx", "cy")}
        frame.update(values, w=size[0], h=size[1])
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def main(
    scenes: tuple[str, ...] = ("demo", "demo-b"), seeds: int = 3, width: int = 160, steps: int | None = None
) -> None:
    """Prints what both give.

    Args:
        scenes: names of synthetic ones.
        seeds: how many.
        width: of the largest pictures, px.
        steps: of training; those of the preset by default.
    """
    folder = Path(tempfile.mkdtemp())
    print("| scene | sizes | seed | PSNR | mIoU |\n|---|---|---|---|---|", flush=True)
    for name in scenes:
        kinds = {
            "one": written(name, folder / f"{name}-one", width, (1.0,)),
            "three": written(name, folder / f"{name}-three", width, SHARES),
        }
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for seed in range(seeds):
            for kind, scene in kinds.items():
                pipeline, *_ = train("semantic-flow-splat-tiny", scene, seed, steps, labels="every-2")
                result = judge(pipeline, scene)
                found[kind].append(result["psnr"])
                print(f"| {name} | {kind} | {seed} | {result['psnr']:.2f} | {result['miou']:.3f} |", flush=True)
        losses = np.subtract(found["one"], found["three"])
        print(f"\n{name}: three sizes lose {losses.mean():.2f} ± {losses.std():.2f} dB.\n", flush=True)
    print(machine())
    shutil.rmtree(folder)


if __name__ == "__main__":
    tyro.cli(main)
