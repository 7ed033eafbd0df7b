"""What training is fed: pixels, carried labels, and never a hidden label."""

import random

import numpy as np
import torch
from PIL import Image

from semfield_ns.method_configs.semantic_flow import semantic_flow_tiny
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow.pixel_sampler import MotionPixelSamplerConfig
from semfield_ns.semantic_flow.propagation import Flow, chain, propagate


def shift(dx: float, height: int = 4, width: int = 8) -> Flow:
    vectors = np.zeros((height, width, 2), np.float32)
    vectors[..., 0] = dx
    return Flow(vectors, np.ones((height, width), bool))


def test_chained_flow_adds_up_and_knows_where_it_left_the_image():
    chained = chain([shift(1), shift(2)])
    assert (chained.vectors[..., 0] == 3).all()
    assert chained.valid[:, :5].all() and not chained.valid[:, 5:].any()
    assert chain([shift(1), None]) is None


def test_labels_are_carried_from_both_sides():
    """A stripe moves one pixel a frame; frames 0 and 3 are labelled."""

    def stripe(frame: int) -> np.ndarray:
        labels = np.zeros((4, 8), np.int64)
        labels[:, 2 + frame] = 1
        return labels

    forward, backward = [shift(1)] * 3 + [None], [None] + [shift(-1)] * 3
    carried = propagate({0: stripe(0), 3: stripe(3)}, forward, backward, half_life=1.0)
    assert set(carried) == {1, 2}
    for frame in (1, 2):
        inner = carried[frame].labels[:, 3:5]
        assert (inner == stripe(frame)[:, 3:5]).all()
        # Both sides agree: 1 - (1 - 1/2)(1 - 1/4).
        assert np.allclose(carried[frame].confidence[:, 3:5], 0.625)
    assert (carried[1].labels[:, 0] == 0).all() and np.allclose(carried[1].confidence[:, 0], 0.25)


def test_disagreement_lowers_confidence_and_reach_is_bounded():
    zeros, ones = np.zeros((4, 8), np.int64), np.ones((4, 8), np.int64)
    still = [shift(0)] * 4
    carried = propagate({0: zeros, 3: ones}, still, still, half_life=1.0)
    assert (carried[1].labels == 0).all() and np.allclose(carried[1].confidence, 0.5 * 0.75)
    assert propagate({0: zeros}, still, still, reach=1).keys() == {1}


def sample(mask: torch.Tensor, fraction: float, rays: int = 40) -> torch.Tensor:
    sampler = MotionPixelSamplerConfig().setup(num_rays_per_batch=rays)
    sampler.dynamic_fraction = fraction
    images = torch.rand(*mask.shape[:3], 3)
    batch = sampler.sample({"image": images, "dynamic_mask": mask, "image_idx": torch.arange(len(mask))})
    c, y, x = batch["indices"].unbind(dim=-1)
    assert torch.equal(batch["image"], images[c, y, x])
    return batch["dynamic_mask"]


def test_half_of_the_rays_are_dynamic():
    mask = torch.zeros(3, 6, 5, 1)
    mask[1, 2:4, 1:3] = 1
    assert sample(mask, 0.5).sum() == 20
    assert sample(mask, 0.0).sum() == 0


def test_scenes_where_nothing_or_everything_moves():
    assert sample(torch.zeros(3, 6, 5, 1), 0.5).sum() == 0
    assert sample(torch.ones(3, 6, 5, 1), 0.5).sum() == 40


def test_hidden_labels_are_never_read(tmp_path, monkeypatch):
    """Deleting (here: corrupting) the hidden label files does not change one bit of what training sees."""
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    scene = write_scene("demo", tmp_path / "scene", num_frames=6, width=32, height=24, samples_per_axis=1)

    def batches() -> list[dict[str, torch.Tensor]]:
        config = semantic_flow_tiny.config.pipeline.datamanager
        config.data, config.dataparser.labels = scene, "0,4"
        torch.manual_seed(0)
        random.seed(0)
        manager = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
        found = [manager.next_train(step)[1] for step in range(3)]
        config.data = None
        return found

    first = batches()
    labels = torch.cat([b["semantics"][:, 0] for b in first])
    frames = torch.cat([b["indices"][:, 0] for b in first])
    hidden = ~torch.isin(frames, torch.tensor([0, 4]))
    assert (labels[hidden] == IGNORE).all() and (labels[~hidden] != IGNORE).any()
    for frame in (1, 2, 3, 5):
        path = scene / "labels" / f"{frame:03d}.png"
        Image.fromarray(np.full((24, 32), 0, np.uint8)).save(path)
    second = batches()
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
