"""Evidence of single frames, joined over the video and with what things look like."""

import numpy as np
import torch

from semfield_ns.process import movers

SHAPE = (40, 60)


def thing(place: int) -> np.ndarray:
    """Where a thing is that goes to the right by 4 px a frame."""
    mask = np.zeros(SHAPE, bool)
    mask[10:30, 4 * place : 4 * place + 20] = True
    return mask


def flows(count: int, step: float) -> list:
    found = []
    for place in range(count - 1):
        flow = np.zeros((*SHAPE, 2), np.float32)
        flow[thing(place if step > 0 else place + 1)] = (step, 0)
        found.append((flow, np.ones(SHAPE, bool)))
    return found


def features(place: int) -> torch.Tensor:
    """One channel that tells the thing, one that tells nothing; a cell for 4 by 4 px."""
    noise = np.random.default_rng(place).normal(size=SHAPE)
    both = np.stack([thing(place) + 0.1 * noise, noise], axis=-1)
    return torch.from_numpy(both.reshape(10, 4, 15, 4, 2).mean(axis=(1, 3))).float()


def test_evidence_is_carried_along_the_flow_to_frames_that_have_none():
    evidence = [np.where(thing(p), 1.0, -1.0).astype(np.float32) for p in range(5)]
    evidence[2][:] = 0
    found = movers.carried(evidence, flows(5, 4.0), flows(5, -4.0))
    assert (found[2][thing(2)] > 0.3).mean() > 0.9 and (found[2][~thing(2)] < -0.3).mean() > 0.9


def test_what_looks_like_what_moves_is_masked_whole_and_like_what_stands_still_is_not():
    evidence = []
    for place in range(8):
        each = np.where(thing(place), 0.0, -1.0)
        each[10:18][thing(place)[10:18]] = 1.0  # flow knows of the upper part only
        each[32:38, 20 + place : 30 + place] = 0.8  # and takes some ground, somewhere else each time, for moving
        evidence.append(each.astype(np.float32))
    told = movers.tell(evidence, flows(8, 4.0), flows(8, -4.0), features)
    found = told.evidence[4] > 0
    assert (found & thing(4)).sum() / (found | thing(4)).sum() > 0.8
    assert told.agreement > 0.4 and told.believed()


def test_much_that_looks_like_the_rest_is_not_believed():
    generator = np.random.default_rng(0)
    evidence = [np.where(generator.random(SHAPE) < 0.6, 1.0, -1.0).astype(np.float32) for _ in range(6)]
    told = movers.tell(evidence, flows(6, 0.0), flows(6, 0.0), features)
    assert told.share > 0.35 and told.agreement < 0.2 and not told.believed()


def test_flow_is_reduced_with_its_pixels():
    flow = np.zeros((480, 640, 2), np.float32)
    flow[..., 0] = 8
    small, valid = movers.reduced_flow(flow, np.ones((480, 640), bool))
    assert small.shape == (240, 320, 2) and np.allclose(small[..., 0], 4) and valid.all()


def test_of_a_camera_in_one_place_what_looks_like_the_edges_does_not_move():
    size = (120, 160)
    y, x = np.mgrid[: size[0], : size[1]]
    water = y > 40
    swans = [water & (abs(y - 75) < 16) & (abs(x - 60 - 4 * place) < 20) for place in range(8)]

    def look(place: int) -> torch.Tensor:
        noise = np.random.default_rng(place).normal(size=size)
        planes = np.stack([water & ~swans[place], swans[place], 0.5 * noise], axis=-1)
        return torch.from_numpy(planes.reshape(30, 4, 40, 4, 3).mean(axis=(1, 3))).float()

    def seen(place: int) -> np.ndarray:
        ripples = np.random.default_rng(place).choice([0.9, -0.4], (12, 16), p=(0.7, 0.3)).repeat(10, 0).repeat(10, 1)
        return np.where(swans[place], 1.0, np.where(water, ripples, -1.0)).astype(np.float32)

    evidence = [seen(place) for place in range(8)]
    still = [(np.zeros((*size, 2), np.float32), np.zeros(size, bool))] * 7
    moves, stays = (movers.tell(evidence, still, still, look, one_place) for one_place in (False, True))
    assert (moves.evidence[3] > 0)[water].mean() > 0.6, "flow says that most of it moves"
    found = stays.evidence[3] > 0
    assert (found & swans[3]).sum() / (found | swans[3]).sum() > 0.7
