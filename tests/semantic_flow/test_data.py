"""What training is fed: pixels, carried labels, and never a hidden label."""

import random
from copy import deepcopy

import numpy as np
import torch
from PIL import Image

from semfield_ns.labelling.evidence import gather_evidence
from semfield_ns.labelling.propagation import (
    Carried,
    Flow,
    Reliability,
    carry,
    carry_from_both_sides,
    fit_reliability,
    held_out_gaps,
    merge,
)
from semfield_ns.method_configs.semantic_flow import semantic_flow_tiny
from semfield_ns.scenes.labels import IGNORE, LabelMap, SemanticClass
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow.pixel_sampler import MotionPixelSamplerConfig


def shift(dx: float, height: int = 4, width: int = 8) -> Flow:
    vectors = np.zeros((height, width, 2), np.float32)
    vectors[..., 0] = dx
    return Flow(vectors, np.ones((height, width), bool))


def stripe(frame: int) -> np.ndarray:
    """Labels of a stripe that moves one pixel a frame."""
    labels = np.zeros((4, 8), np.int64)
    labels[:, 2 + frame] = 1
    return labels


RIGHT, LEFT = [shift(1)] * 3 + [None], [None] + [shift(-1)] * 3


def test_carried_labels_follow_the_flow_and_are_doubted_where_it_left_the_image():
    carried = carry(stripe(3), [shift(1), shift(1), shift(1)])
    assert (carried.labels[:, :5] == stripe(0)[:, :5]).all() and carried.steps == 3
    assert (carried.doubtful == (np.arange(8) >= 5)).all()
    # Of two classes, the log-likelihood ratio is the log-odds of being right; of five, log 4 more.
    weight = Reliability(4.0, 0.5, 2.0).log_ratio(carried, 2)
    assert np.allclose(weight, [2.5] * 5 + [0.5] * 3)
    assert np.allclose(Reliability(4.0, 0.5, 2.0).log_ratio(carried, 5), weight + np.log(4))
    unknown = carry(np.full((4, 8), IGNORE), [shift(0)])
    assert (unknown.labels == IGNORE).all() and (Reliability().log_ratio(unknown, 5) == 0).all()


def test_labels_are_carried_from_both_sides_and_agreement_counts():
    found = carry_from_both_sides(1, {0: stripe(0), 3: stripe(3)}, RIGHT, LEFT)
    assert [carried.steps for carried in found] == [1, 2]
    merged = merge(
        [(carried.labels, Reliability(2.0, 0.5, 5.0).log_ratio(carried, 2)) for carried in found], np.zeros(2)
    )
    assert (merged.labels[:, 2:5] == stripe(1)[:, 2:5]).all()
    # Log-odds 1.5 and 1 add up.
    assert np.allclose(merged.confidence[:, 2:5], 1 / (1 + np.exp(-2.5)))


def test_disagreement_lowers_confidence():
    zeros, ones = np.zeros((4, 8), np.int64), np.ones((4, 8), np.int64)
    weight = np.full((4, 8), np.log(2), np.float32)
    merged = merge([(zeros, weight), (ones, 2 * weight)], np.zeros(3))
    # The three classes weigh 2, 4 and 1.
    assert (merged.labels == 1).all() and np.allclose(merged.confidence, 4 / 7)
    silent = np.full((4, 8), IGNORE), np.zeros((4, 8), np.float32)
    assert np.allclose(merge([silent, (ones, weight)], np.zeros(3)).confidence, 2 / 4)
    # What the picture says counts as much: 2 * 1, 4 * 1 and 1 * 8.
    known = np.broadcast_to(np.log([1, 1, 8.0]), (4, 8, 3))
    merged = merge([(zeros, weight), (ones, 2 * weight)], known)
    assert (merged.labels == 2).all() and np.allclose(merged.confidence, 8 / 14)


def test_reliability_is_measured_on_held_out_frames():
    """Labels drawn right with known log-odds give these log-odds back."""
    rng, held_out = np.random.default_rng(0), []
    for steps in (1, 2, 5):
        truth = rng.integers(0, 4, (200, 200))
        doubtful = rng.integers(0, 2, truth.shape) > 0
        wrong = rng.random(truth.shape) > 1 / (1 + np.exp(-(3.0 - 0.3 * steps - 1.0 * doubtful)))
        held_out.append((Carried(np.where(wrong, (truth + 1) % 4, truth), steps, doubtful), truth))
    found = fit_reliability(held_out)
    assert np.allclose([found.start, found.per_step, found.doubt], [3.0, 0.3, 1.0], atol=0.1)
    assert fit_reliability([]) == Reliability()


def test_a_held_out_frame_gets_no_label_of_its_own():
    zeros, ones = np.zeros((4, 8), np.int64), np.ones((4, 8), np.int64)
    still = [shift(0)] * 4
    labels = {0: zeros, 1: ones, 3: zeros}
    for carried in carry_from_both_sides(1, labels, still, still):
        assert (carried.labels == 0).all()
    # Frames nearer than the gap do not count, as long as one is left.
    before, after = carry_from_both_sides(1, labels, still, still, gap=2)
    assert before is None and after.steps == 2
    assert carry_from_both_sides(1, labels, still, still, gap=9) != [None, None]
    assert carry_from_both_sides(1, {1: ones}, still, still) == [None, None]
    assert carry_from_both_sides(1, {0: zeros}, still, [None] * 4) == [None, None]


def test_carried_labels_keep_the_number_of_their_class(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    scene = write_scene("demo", tmp_path / "scene", num_frames=6, width=32, height=24, samples_per_axis=1)
    config = deepcopy(semantic_flow_tiny.config.pipeline.datamanager)
    config.data, config.dataparser.labels = scene, "0,4"
    dataset = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0).train_dataset
    names = [SemanticClass(f"class {i}", (0, 0, i % 256), True) for i in range(301)]
    dataset.metadata["label_map"] = LabelMap(tuple(names), ignore_index=-1)
    semantics = dataset.semantics
    monkeypatch.setattr(dataset, "semantics", lambda index: torch.where(semantics(index) >= 0, 300, IGNORE))
    found = gather_evidence(dataset)
    assert set(found.carried.labels.unique().tolist()) <= {0, 300}
    assert (found.carried.labels[found.carried.log_ratio > 0] == 300).all()
    hidden = found.targets[1]
    assert (hidden[..., 0] == 300).all()


def test_held_out_frames_are_as_far_from_labels_as_unlabelled_frames_are():
    labelled = [f for f in range(60) if f % 12 in (0, 1, 11)]
    gaps = held_out_gaps(labelled, 60)
    assert set(gaps) == set(labelled)
    assert set(gaps.values()) == {1, 2, 3, 4, 5}
    assert held_out_gaps([0, 1], 2) == {0: 1, 1: 1}


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
    assert all(np.array_equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
