"""The feature cache: what it keeps, what makes it ask again, and what killed or rival processes cannot do to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.rendering.features import principal_axes
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.cache import RANK, FeatureCache, Picture, compress, scene_features
from semfield_ns.teachers.pca import Moments


class Random(Teacher):
    """Smooth features of many channels, made of the image, and how often it was asked."""

    def __init__(self, dim: int = 300, batch_size: int = 1) -> None:
        self.name, self.dim, self.stride, self.batch_size = f"random-{dim}", dim, 1, batch_size
        self.asked: list[int] = []
        self.mix = torch.randn(3, dim, generator=torch.Generator().manual_seed(0))

    def encode(self, images):
        self.asked.append(len(images))
        return torch.sin(3 * images @ self.mix) + 2


def write_images(folder: Path, count: int, size: tuple[int, int] = (24, 32)) -> list[Picture]:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index}.png" for index in range(count)]
    for file in files:
        Image.fromarray(generator.integers(0, 255, (*size, 3), np.uint8)).save(file)
    return [picture(file, size) for file in files]


def picture(file: Path, size: tuple[int, int]) -> Picture:
    return Picture(file, size, lambda: torch.from_numpy(np.array(Image.open(file))).float() / 255)


def entries(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("features/??/*/manifest.json"))


@pytest.fixture
def pictures(tmp_path):
    return write_images(tmp_path / "images", 4)


def test_an_entry_gives_the_features_back(pictures, tmp_path):
    narrow, wide = Random(40), Random(300)
    for teacher, tolerance in ((narrow, 5e-3), (wide, 5e-3)):
        cache = FeatureCache(teacher, tmp_path / "cache")
        grid = cache[pictures[0]]
        truth = teacher.encode(pictures[0].load()[None])[0]
        assert grid.features().shape == truth.shape
        # 3 colours make these features: 128 directions hold nearly all of them.
        assert (grid.features() - truth).norm() / truth.norm() < tolerance
        weight, bias = torch.randn(teacher.dim, 5), torch.randn(5)
        assert torch.allclose(grid.affine(weight, bias), grid.features() @ weight + bias, atol=1e-3)
    assert cache[pictures[0]].tokens.dtype == np.float16 and isinstance(cache[pictures[0]].tokens, np.memmap)
    manifest = json.loads((entries(tmp_path / "cache")[0] / "manifest.json").read_text())
    assert manifest["image"] == "0.png" and manifest["pixels"] == [24, 32] and manifest["variance_kept"] > 0.99


def test_compression_keeps_the_main_directions():
    """Truth by hand: of features with a known spectrum, what is lost is the variance beyond the rank."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(400, 400, generator=generator))[0]
    spread = torch.arange(1, 401).float() ** -0.7
    features = (torch.randn(2500, 400, generator=generator) * spread) @ axes.T + 3
    grid, kept = compress(features.view(50, 50, 400))
    assert grid.tokens.shape == (50, 50, RANK) and grid.basis.shape == (RANK, 400)
    expected = float(spread[:RANK].square().sum() / spread.square().sum())
    assert kept == pytest.approx(expected, abs=0.02)
    lost = ((grid.features().view(-1, 400) - features) / features.std(dim=0)).square().mean()
    assert float(lost) == pytest.approx(1 - kept, abs=1e-3)


def test_small_channels_are_kept_as_well_as_large_ones(tmp_path):
    """Networks have channels of very different size, and whoever reads them standardises."""

    class Uneven(Random):
        def encode(self, images):
            return super().encode(images) * torch.logspace(-4, 3, self.dim)

    pictures = write_images(tmp_path / "images", 1)
    cache = FeatureCache(Uneven(), tmp_path / "cache")
    truth = cache.teacher.encode(pictures[0].load()[None])[0].view(-1, 300)
    found = cache[pictures[0]].features().view(-1, 300)
    assert ((found - truth).std(dim=0) / truth.std(dim=0)).max() < 0.02


def test_tiny_and_constant_features_survive():
    small = 1e-7 * torch.randn(6, 8, 5)
    assert torch.allclose(compress(small)[0].features(), small, rtol=2e-3, atol=1e-10)
    constant = torch.full((6, 8, 5), 7.0)
    assert torch.equal(compress(constant)[0].features(), constant)


def test_another_image_teacher_or_size_makes_just_its_own_entry(pictures, tmp_path):
    teacher, root = Random(40), tmp_path / "cache"
    FeatureCache(teacher, root).extract(pictures)
    FeatureCache(teacher, root).extract(pictures)
    assert teacher.asked == [1] * 4
    moved = pictures[0].file.with_name("moved.png")
    moved.write_bytes(pictures[0].file.read_bytes())
    FeatureCache(teacher, root).extract([picture(moved, (24, 32))])
    assert teacher.asked == [1] * 4, "content counts, not the name"
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(pictures[1].file)
    FeatureCache(teacher, root).extract(pictures)
    assert teacher.asked == [1] * 5 and len(entries(root)) == 5
    other = Random(41)
    FeatureCache(other, root).extract(pictures)
    assert other.asked == [1] * 4 and len(entries(root)) == 9
    FeatureCache(teacher, root).extract([pictures[0]._replace(size=(12, 16))])
    assert teacher.asked == [1] * 6


def test_images_of_one_size_are_encoded_together(tmp_path):
    pictures = write_images(tmp_path / "a", 5) + write_images(tmp_path / "b", 2, (16, 16))
    teacher = Random(40, batch_size=3)
    FeatureCache(teacher, tmp_path / "cache").extract(pictures)
    assert sorted(teacher.asked) == [2, 2, 3]
    assert len(entries(tmp_path / "cache")) == 7


def test_a_fit_is_kept_for_the_same_images(pictures, tmp_path):
    cache, fits = FeatureCache(Random(40), tmp_path / "cache"), []

    def fit():
        fits.append(1)
        return {"x": np.arange(3.0)}

    keys = cache.extract(pictures)
    for order in (keys, keys[::-1]):
        assert np.array_equal(cache.fitted("thing", order, fit)["x"], np.arange(3.0))
    assert len(fits) == 1
    cache.fitted("other", keys, fit)
    cache.fitted("thing", keys[1:], fit)
    assert len(fits) == 3


def test_a_broken_entry_and_features_that_are_not_finite_are_named(pictures, tmp_path):
    cache = FeatureCache(Random(40), tmp_path / "cache")
    cache.extract(pictures)
    (entries(tmp_path / "cache")[0] / "axes.npz").write_bytes(b"nothing")
    with pytest.raises(SemfieldError, match="is broken; delete that folder"):
        for item in pictures:
            cache[item]

    class Broken(Random):
        def encode(self, images):
            return super().encode(images) / 0

    with pytest.raises(SemfieldError, match=r"of .*0\.png that are not finite"):
        FeatureCache(Broken(39), tmp_path / "cache")[pictures[0]]


def test_a_cache_that_cannot_be_written_is_one_sentence(pictures, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SemfieldError, match="SEMFIELD_CACHE"):
        FeatureCache(Random(40), tmp_path / "file")[pictures[0]]


def test_moments_of_parts_are_those_of_the_whole():
    x = torch.randn(500, 6, dtype=torch.float64) * torch.arange(1, 7) + 3
    moments = Moments(6).add(x[:120]).add(x[120:])
    mean, std = moments.standardisation()
    assert torch.allclose(mean, x.mean(dim=0)) and torch.allclose(std, x.std(dim=0, correction=0))
    axes, variances = moments.principal_axes(3, torch.ones(6))
    expected, values = principal_axes(torch.cov(x.T, correction=0), 3)
    assert torch.allclose(axes, expected) and torch.allclose(variances, values)
    assert (axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_scene_features_agree_with_principal_components_of_all_frames(pictures, tmp_path):
    teacher = Random(40)
    files = [item.file for item in pictures]
    features = scene_features(files, lambda i: pictures[i].load(), teacher, max_dim=6, root=tmp_path / "cache")
    truth = teacher.encode(torch.stack([item.load() for item in pictures])).reshape(-1, 40)
    truth = (truth - truth.mean(dim=0)) / truth.std(dim=0)
    axes, variances = principal_axes(torch.cov(truth.T).double(), 6)
    expected = truth @ axes.float() / variances.float().sqrt()
    assert features.shape == (4, 24, 32, 6)
    assert (features.float().reshape(-1, 6) - expected).abs().mean() < 0.02


# -------------------------------------------------------------------------------------------- many and killed processes

WORKER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from semfield_ns.teachers.cache import FeatureCache
from tests.teachers.test_cache import Random, picture

root, mode = Path(sys.argv[1]), sys.argv[2]
pictures = [picture(file, (24, 32)) for file in sorted((root / "images").glob("*.png"))]

class Logged(Random):
    def encode(self, images):
        time.sleep(0.008)
        with open(root / "log", "a") as log:
            log.write("asked\\n")
        return super().encode(images)

def extract():
    FeatureCache(Logged(40), root / "cache").extract(pictures)

if mode == "rivals":
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            extract()
            os._exit(0)
        children.append(child)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))
generator, killed = random.Random(0), 0
while killed < 20:
    child = os.fork()
    if child == 0:
        extract()
        os._exit(0)
    time.sleep(generator.uniform(0.005, 0.08))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        break  # it was done before
    killed += 1
    for folder in (root / "cache" / "features").glob("??/*"):
        files = sorted(path.name for path in folder.iterdir())
        assert files == ["axes.npz", "manifest.json", "tokens.npy"], files
print(killed)
extract()
"""


def work(tmp_path: Path, mode: str) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path), mode],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result


def test_twenty_kills_lose_nothing_but_the_image_in_flight(tmp_path):
    pictures = write_images(tmp_path / "images", 200)
    killed = int(work(tmp_path, "killed").stdout)
    asked = (tmp_path / "log").read_text().count("asked")
    assert killed == 20 and 200 <= asked <= 200 + killed
    assert len(entries(tmp_path / "cache")) == 200
    cache, fresh = FeatureCache(Random(40), tmp_path / "cache"), FeatureCache(Random(40), tmp_path / "other")
    for item in pictures[::10]:
        assert torch.allclose(cache[item].features(), fresh[item].features(), atol=1e-3)
    assert cache.teacher.asked == []


def test_two_processes_at_once_are_safe(tmp_path):
    pictures = write_images(tmp_path / "images", 30)
    work(tmp_path, "rivals")
    assert len(entries(tmp_path / "cache")) == 30
    assert (tmp_path / "log").read_text().count("asked") < 2 * 30, "they share the work"
    assert list((tmp_path / "cache" / "features" / ".drafts").iterdir()) == []
    cache = FeatureCache(Random(40), tmp_path / "cache")
    for item in pictures:
        cache[item].features()
    assert cache.teacher.asked == []


def test_common_directions_are_orthonormal_and_the_same_for_every_scene():
    from semfield_ns.teachers.cache import common_directions

    axes = common_directions(20, 6)
    assert torch.allclose(axes.T @ axes, torch.eye(6, dtype=axes.dtype), atol=1e-10)
    assert torch.equal(axes, common_directions(20, 6))
