"""Which classifier a scene gets is told by its labelled frames alone."""

import numpy as np
import pytest
import torch

from semfield_ns.labelling.classifier import PLAIN, Recipe, Samples, classify, draw_samples, fit
from semfield_ns.labelling.selection import choose, fitting_scale, further_away, held_out_logits, recipes

FRAMES, SHAPE = 12, (6, 8)


def video(seed: int = 0):
    """Twelve frames of two classes, and noise to describe them by."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(2, (FRAMES, *SHAPE), generator=generator)
    noise = torch.randn(2, FRAMES, *SHAPE, 4, generator=generator)
    return truth, noise


def telling(truth, noise):
    """Features of which the first channel tells the class."""
    return torch.cat([2.0 * truth[..., None] - 1 + 0.3 * noise[..., :1], noise[..., 1:]], dim=-1)


def misleading(truth, noise):
    """Features that tell the class, and from the fifth frame on the opposite."""
    found = noise.clone()
    found[:4, ..., 0] += 4 * truth[:4] - 2
    found[4:, ..., 0] -= 4 * truth[4:] - 2
    return found


def chosen(colors, pretrained, truth, shown=range(FRAMES)):
    labels = {frame: truth[frame].numpy() for frame in shown}
    samples = draw_samples([colors, pretrained], labels)
    return choose(samples, torch.zeros(len(samples.labels), 2), gap=3)


def right_on(frames, choice, stacks, truth, shown):
    linear = fit(draw_samples(stacks, {frame: truth[frame].numpy() for frame in shown}), choice.recipe, 2)
    found = [classify([s[f] for s in stacks], linear, SHAPE).argmax(-1) == truth[f] for f in frames]
    return float(torch.stack(found).float().mean())


def test_where_colours_mislead_the_pretrained_network_is_heard():
    truth, noise = video()
    stacks = [misleading(truth, noise[0]), telling(truth, noise[1])]
    choice = chosen(*stacks, truth, range(8))
    assert choice.recipe.weights[1] > choice.recipe.weights[0]
    colors_alone = choice._replace(recipe=Recipe((1.0, 0.0), 1e-4))
    rest = range(8, FRAMES)
    assert right_on(rest, choice, stacks, truth, range(8)) > right_on(rest, colors_alone, stacks, truth, range(8)) + 0.2


def test_where_the_pretrained_network_misleads_colours_are_heard():
    truth, noise = video(1)
    stacks = [telling(truth, noise[0]), misleading(truth, noise[1])]
    choice = chosen(*stacks, truth, range(8))
    assert choice.recipe.weights == (1.0, 0.0)
    both = choice._replace(recipe=Recipe((0.0, 4.0), 1e-3))
    rest = range(8, FRAMES)
    assert right_on(rest, choice, stacks, truth, range(8)) > right_on(rest, both, stacks, truth, range(8)) + 0.2


def test_what_each_source_tells_a_part_of_both_are_heard():
    truth, noise = video(2)
    stacks = [1.5 * truth[..., None] + noise[0], 1.5 * truth[..., None] + noise[1]]
    assert min(chosen(*stacks, truth).recipe.weights) > 0


def test_the_same_labels_give_the_same_choice():
    truth, noise = video(3)
    stacks = [telling(truth, noise[0]), noise[1]]
    assert chosen(*stacks, truth) == chosen(*stacks, truth)


def test_a_single_labelled_frame_gets_the_usual_recipe():
    truth, noise = video()
    choice = chosen(noise[0], noise[1], truth, [4])
    assert choice.recipe == recipes(2)[0] and choice.scale == 1.0 and np.isnan(choice.loss)
    samples = draw_samples([noise[0]], {4: truth[4].numpy()})
    assert choose(samples, torch.zeros(len(samples.labels), 2)).recipe == PLAIN


def test_what_is_held_out_lies_as_far_away_as_what_has_no_label():
    labelled = [0, 1, 11, 12, 13, 23]
    assert further_away(labelled, [11, 12], gap=3) == [0, 1, 23]
    assert further_away(labelled, [0, 1], gap=3) == [11, 12, 13, 23]
    assert further_away(list(range(6)), [0, 1], gap=9) == [4, 5], "nothing is that far: the furthest third"
    assert further_away(list(range(6)), [0, 1], gap=1) == [2, 3, 4, 5]
    assert further_away([3, 7], [7], gap=9) == [3]


def test_a_frame_is_held_out_with_what_lies_around_it():
    """Of six labelled frames two are left out at a time: of a class that only they show nothing is asked."""
    features = torch.eye(3)[[0, 0, 1, 1, 2, 2]][:, None, None, :].expand(6, 4, 4, 3)
    labels = {frame: np.full((4, 4), frame // 2) for frame in range(6)}
    samples = draw_samples([features], labels)
    logits, known = held_out_logits(samples, PLAIN, 3)
    assert torch.equal(logits.argmin(dim=1), samples.labels) and not known.any()
    mixed = {frame: np.arange(16).reshape(4, 4) % 2 for frame in range(6)}
    assert held_out_logits(draw_samples([features], mixed), PLAIN, 3)[1].all()
    alone = draw_samples([features], {0: labels[0]})
    assert not held_out_logits(alone, PLAIN, 3)[1].any()


def test_a_classifier_counts_as_far_as_it_is_right():
    """Right three times out of four, its log-odds are log 3, whatever it claims; other logits keep their own weight."""
    truth = torch.tensor([0, 0, 0, 1] * 500)
    claims = torch.tensor([[4.0, 0.0]]).expand(len(truth), 2)
    silence = torch.zeros(len(truth), 2)
    assert fitting_scale(claims, silence, truth, prior_pixels=0.0) == pytest.approx(np.log(3) / 4, abs=1e-3)
    assert fitting_scale(claims, -claims, truth, prior_pixels=0.0) == pytest.approx(1 + np.log(3) / 4, abs=1e-3)
    assert fitting_scale(claims, silence, 1 - truth) == 0.0, "wrong more often than not: it does not count"
    assert fitting_scale(claims[:0], silence[:0], truth[:0]) == 1.0


def test_samples_are_the_labelled_pixels():
    features = torch.arange(2 * 4 * 4.0).reshape(2, 4, 4, 1)
    image = np.full((4, 4), -1)
    image[1, 2] = image[3, 0] = 1
    samples = draw_samples([features], {0: np.zeros((4, 4), np.int64), 1: image})
    assert len(samples.labels) == 18 and samples.labels[16:].tolist() == [1, 1]
    assert samples.frames.tolist() == [0] * 16 + [1] * 2 and samples.pixels[16:].tolist() == [6, 12]
    assert samples.features[0][:, 0].tolist() == [*features.flatten()[:16].tolist(), 22.0, 28.0]
    assert len(draw_samples([features], {0: np.zeros((4, 4), np.int64)}, most_pixels=5).labels) == 5
    with pytest.raises(ValueError, match="labelled pixel"):
        draw_samples([features], {0: np.full((4, 4), -1)})


def test_each_source_has_a_grid_of_its_own():
    """What is fitted to both is what either of them shows: rows by the one, columns by the other."""
    rows = torch.tensor([-1.0, 1.0])[None, :, None, None].expand(2, 2, 1, 1)
    columns = torch.linspace(-1, 1, 4)[None, None, :, None].expand(2, 1, 4, 1)
    image = np.where(np.arange(4)[:, None] < 2, 0, np.where(np.arange(8) < 4, 1, 2))
    linear = fit(draw_samples([rows, columns], {0: image}), Recipe((1.0, 1.0), 1e-4), 3)
    found = classify([rows[1], columns[1]], linear, image.shape).argmax(dim=-1).numpy()
    assert (found == image).all()


def test_what_a_source_counts_is_in_its_weights():
    """A classifier of a source times four is one of that source with weights four times as large."""
    truth, noise = video(4)
    stack = telling(truth, noise[0])
    samples = draw_samples([stack, noise[1]], {0: truth[0].numpy()})
    scaled = Samples((4 * samples.features[0], samples.features[1]), samples.labels, samples.frames, samples.pixels)
    one, other = fit(samples, Recipe((4.0, 0.0), 1e-2), 2), fit(scaled, Recipe((1.0, 0.0), 1e-2), 2)
    assert torch.allclose(one.weights[0], 4 * other.weights[0], atol=1e-4) and not one.weights[1].any()
    assert torch.allclose(one.scaled(2.0).bias, 2 * one.bias)
