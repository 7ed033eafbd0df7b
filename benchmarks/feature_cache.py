"""The feature cache with tokens of DINO's size: `python benchmarks/feature_cache.py WORK_FOLDER`.

100 images of 504x378 and a teacher with DINO's grid and channels (ViT-B/8: 47 x 63 tokens of 768), but features that
are made of the image by random waves: real weights change the numbers in the tokens, not their number. Printed: size on
disk, seconds of a warm start, and what the process grows by while tokens are read as training reads them.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from training import machine

from semfield_ns.gsn.library import SceneLibrary, load_scene
from semfield_ns.gsn.tokens import TokenProjection, TokenStore
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.teachers.base import Teacher

WIDTH, HEIGHT, DIM, STRIDE = 504, 378, 768, 8
STEPS, SOURCES = 300, 10


class DinoSized(Teacher):
    """Waves of the image at several blurs: features of many directions, as networks give them."""

    name, dim, stride = "dino-sized-1", DIM, STRIDE

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.randn(15, DIM, generator=generator) * 2
        self.phase = 6.3 * torch.rand(DIM, generator=generator)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Whole patches, as DINO's."""
        return height // STRIDE, width // STRIDE

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """See `Teacher.encode`."""
        x, size = images.permute(0, 3, 1, 2), self.grid_size(*images.shape[1:3])
        levels = [
            F.interpolate(F.avg_pool2d(x, 2**level, 2**level), size=size, mode="bilinear") for level in range(1, 6)
        ]
        return torch.sin(torch.cat(levels, dim=1).permute(0, 2, 3, 1) @ self.mix + self.phase)


def resident() -> float:
    """Megabytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def disk(folder: Path) -> float:
    """Megabytes of the blocks that a folder's files take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6


def store_of(work: Path) -> TokenStore:
    """The tokens of the scene."""
    library = SceneLibrary([load_scene(work / "scene", "scene", hold_out=False)], 0)
    return TokenStore(library, "feature_cache:DinoSized", STRIDE, TokenProjection(DIM, 64), False, 1 << 30, "cpu")


def cold(work: Path) -> None:
    """Extracts everything."""
    store, start = store_of(work), time.perf_counter()
    store.fit(48)
    store.extract([(0, index) for index in store.library.scenes[0].train])
    seconds, count = time.perf_counter() - start, len(store.library.scenes[0].train)
    kept = store.cache[store.picture(0, 0)]
    print(f"| images, token grid, channels, kept | {count}, {kept.tokens.shape[:2]}, {DIM}, {kept.tokens.shape[2]} |")
    features = store.teacher.encode(store.library.image(0, 0)[None].float() / 255)[0]
    projected = store.projection(features)
    cosine = F.cosine_similarity(store.projection.of_grid(kept), projected, dim=-1)
    print(f"| cosine of cached to exact 64-d tokens, mean and least | {cosine.mean():.5f}, {cosine.min():.5f} |")
    print(f"| first extraction, s (without the teacher's own time, which is small here) | {seconds:.1f} |")
    print(f"| on disk, MB | {disk(work / 'cache'):.1f} |")


def warm(work: Path) -> None:
    """Opens what is there, and reads as training does."""
    store = store_of(work)
    torch.rand(64, 64) @ torch.rand(64, 64)  # libraries that are loaded with the first product
    before, start = resident(), time.perf_counter()
    store.fit(48)
    store.stack(0, list(range(SOURCES)))
    ready = time.perf_counter() - start
    for index in store.library.scenes[0].train:
        store.grid(0, index)
    every = time.perf_counter() - start
    generator, peak = torch.Generator().manual_seed(0), resident()
    for _ in range(STEPS):
        views = torch.randperm(len(store.library.scenes[0].train), generator=generator)[:SOURCES].tolist()
        tokens = store.stack(0, views)
        F.grid_sample(tokens, 2 * torch.rand(len(tokens), 512, 1, 2, generator=generator) - 1, align_corners=False)
        peak = max(peak, resident())
    print(f"| warm start: projection and the first {SOURCES} views, s | {ready:.2f} |")
    print(f"| warm start: projection and all 100 images, s | {every:.2f} |")
    print(f"| growth of the process over {STEPS} steps of {SOURCES} views, most, MB | {peak - before:.1f} |")


def main(work: tyro.conf.Positional[Path], step: str = "") -> None:
    """Write the scene, then cold and warm in processes of their own.

    Args:
        work: Folder for the scene and the cache.
        step: cold or warm alone; for the processes that this command starts.
    """
    if step:
        {"cold": cold, "warm": warm}[step](work)
        return
    if not (work / "scene" / "transforms.json").is_file():
        write_scene("static", work / "scene", num_frames=100, width=WIDTH, height=HEIGHT, samples_per_axis=1)
    print("| | |\n|---|---|", flush=True)
    for name in ("cold", "warm"):
        command = [sys.executable, __file__, str(work), "--step", name]
        subprocess.run(command, check=True, env=os.environ | {"SEMFIELD_CACHE": str(work / "cache")})
    print(f"\n{machine()}")


if __name__ == "__main__":
    tyro.cli(main)
