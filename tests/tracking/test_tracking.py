"""Labels that follow through a video."""

import cv2
import numpy as np
import pytest
import torch

from semfield_ns.io import write_png
from semfield_ns.metrics.instances import region_similarity
from semfield_ns.process.followed import follow_labels
from semfield_ns.process.labels.imported import Imported, named_classes
from semfield_ns.rendering.edges import GuidedFilter
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.classical import ClassicalTeacher
from semfield_ns.tracking.discriminant import Discriminant, inputs
from semfield_ns.tracking.features import SAMPLED, FrameFeatures, fit_basis
from semfield_ns.tracking.matching import MOST, Memory, distances, margins
from semfield_ns.tracking.results import mean_iou, worth_correcting
from semfield_ns.tracking.tracker import Arrival, Tracked, Tracker, label_image, least_iou

SIZE = 64, 96


class Colors(Teacher):
    """Mean colours of cells of four pixels."""

    name, dim, stride = "colours", 3, 4

    def __init__(self):
        self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        planes = images.permute(0, 3, 1, 2)
        return torch.nn.functional.avg_pool2d(planes, 4).permute(0, 2, 3, 1)


def textured(seed, color, size=SIZE):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 60, (*size, 1)).astype(np.float32), (0, 0), 1.5)
    return (np.array(color) + 40 * (noise[..., None] / noise.std())).clip(0, 255).astype(np.uint8)


def moving_disks(count, disks, speed=1.5):
    """A video of textured disks (row, first column, colour) that move to the right, with their ids, from 1."""
    back = textured(0, (60, 110, 60))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    frames, truth = [], []
    for time in range(count):
        rgb, ids = back.copy(), np.zeros(SIZE, np.int64)
        for number, (row, column, color) in enumerate(disks, start=1):
            shift = speed * time
            inside = (y - row) ** 2 + (x - column - shift) ** 2 < 9**2
            moved = cv2.warpAffine(textured(number, color), np.float32([[1, 0, shift], [0, 1, 0]]), SIZE[::-1])
            rgb[inside], ids[inside] = moved[inside], number
        frames.append(rgb)
        truth.append(ids)
    return frames, truth


DISKS = [(18, 20.0, (200, 60, 60)), (46, 30.0, (60, 60, 210))]


def followed(frames, given, classes, teacher=None):
    tracker = Tracker(frames, given, classes, FrameFeatures(frames, teacher or Colors()))
    return list(tracker.run())


def worst(results, truth, classes):
    labels = {r.number: label_image(r.probabilities, SIZE) for r in results if isinstance(r, Tracked)}
    assert sorted(labels) == list(range(len(truth)))
    return min(region_similarity(labels[n] == i, truth[n] == i) for n in labels for i in range(1, classes))


@pytest.mark.parametrize("given", [[0], [11], [5], [0, 11]], ids=["first", "last", "middle", "both ends"])
def test_objects_are_followed_in_both_directions(given):
    frames, truth = moving_disks(12, DISKS)
    results = followed(frames, {n: truth[n] for n in given}, 3)
    assert worst(results, truth, 3) > 0.85
    arrivals = [r for r in results if isinstance(r, Arrival)]
    assert [(a.start, a.number) for a in arrivals] == ([(0, 11)] if len(given) == 2 else [])
    for arrival in arrivals:
        assert mean_iou(label_image(arrival.probabilities, SIZE), truth[11]) > 0.85


def test_a_given_frame_is_reached_without_its_own_labels():
    frames, truth = moving_disks(2, DISKS)
    wrong = (truth[1] + 1) % 3
    for last in (truth[1], wrong):
        (arrival,) = (r for r in followed(frames, {0: truth[0], 1: last}, 3) if isinstance(r, Arrival))
        assert mean_iou(label_image(arrival.probabilities, SIZE), truth[1]) > 0.9


def test_the_same_input_gives_the_same_result():
    frames, truth = moving_disks(4, DISKS)
    first, second = (followed(frames, {0: truth[0]}, 3) for _ in range(2))
    assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(first, second, strict=True))


def test_more_than_eight_objects_are_followed():
    colors = [(255, 0, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 255), (0, 0, 0)]
    colors += [(255, 128, 0), (128, 0, 255)]
    disks = [(11 + 21 * (i // 3), 12.0 + 24 * (i % 3), color) for i, color in enumerate(colors)]
    frames, truth = moving_disks(6, disks, speed=1.0)
    assert worst(followed(frames, {0: truth[0]}, 10, ClassicalTeacher(4)), truth, 10) > 0.7


def test_pixels_without_a_label_are_told_by_the_others():
    frames, truth = moving_disks(4, DISKS)
    partly = truth[0].copy()
    partly[:, 60:] = IGNORE
    partly[14:18] = IGNORE
    results = followed(frames, {0: partly}, 3)
    later = {r.number: label_image(r.probabilities, SIZE) for r in results}
    assert region_similarity(later[2] == 1, truth[2] == 1) > 0.7
    assert (later[2][:, 80:] == 0).mean() > 0.9


def test_features_of_a_long_video_are_not_all_kept():
    frames, _ = moving_disks(3, DISKS)
    teacher = Colors()
    features = FrameFeatures(frames * 30, teacher)
    for number in range(90):
        features(number)
    before = teacher.encoded
    features(89)
    assert teacher.encoded == before, "the last one is kept"
    features(40)
    assert teacher.encoded == before + 1, "one of long ago is made again"
    assert before <= 90 + SAMPLED


def test_each_map_of_a_teacher_has_the_same_share():
    torch.manual_seed(0)
    fine, coarse = torch.randn(20, 20, 4), 7 * torch.randn(20, 20, 100)
    shares = torch.tensor([4.0] * 4 + [100.0] * 100).rsqrt()
    basis = fit_basis([torch.cat([fine, coarse], -1)], shares, dim=104)
    changed = torch.cat([fine.flip(0), coarse], -1), torch.cat([fine, coarse.flip(0)], -1)
    plain = (torch.cat([fine, coarse], -1) - basis.mean) @ basis.directions
    by_fine, by_coarse = (((c - basis.mean) @ basis.directions - plain).square().mean() for c in changed)
    torch.testing.assert_close(by_fine, by_coarse, rtol=0.15, atol=0)


def test_margins_compare_the_best_of_each_class():
    # Four cells of each class, so that the mean of the best four is that of all.
    known = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4), dim=-1)
    classes = torch.zeros(8, 3)
    classes[:4, 0] = classes[4:, 1] = 1
    asked = torch.tensor([[1.0, 0.0], [0.0, 1.0]] + [[0.7071, 0.7071]] * 6)
    far_reaching = Memory(known, classes, 1e6)
    told = margins(asked, [far_reaching], distances(2, 4))
    assert told[0].tolist() == [MOST, -MOST, -MOST] and told[1].tolist() == [-MOST, MOST, -MOST]
    assert abs(float(told[2, 0])) < 1e-3 and abs(float(told[2, 1])) < 1e-3, "as near to one as to the other"
    nothing = Memory(known, torch.zeros(8, 3), 1e6)
    assert not margins(asked, [nothing], distances(2, 4)).any(), "where nothing is known nothing is told"


def test_things_are_expected_near_where_they_were():
    known = torch.ones(20, 1)
    classes = torch.zeros(20, 2)
    classes[:10, 0] = classes[10:, 1] = 1
    told = margins(torch.ones(20, 1), [Memory(known, classes, 1.0)], distances(1, 20))
    assert (told[:8, 0] > 0).all() and (told[12:, 1] > 0).all()


def test_the_guided_filter_keeps_what_is_constant_and_finds_edges():
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[:, 30:] = 200
    guided = GuidedFilter(rgb)
    np.testing.assert_allclose(guided(np.full((40, 60), 0.3, np.float32)), 0.3, atol=1e-4)
    blurred = cv2.blur((np.arange(60) >= 28).astype(np.float32)[None].repeat(40, 0), (9, 9))
    drawn = guided(blurred)[20] > 0.5
    assert drawn[30:].all() and not drawn[:29].any(), "the edge of the picture, two columns further"


def test_proposed_frames_are_uncertain_and_apart():
    assert worth_correcting({1: 0.9, 5: 0.5, 7: 0.4, 30: 0.7, 31: 0.79}) == [7, 30]
    assert worth_correcting({1: 0.99}) == []


def test_labels_of_a_scene_are_followed_where_that_is_sure(tmp_path):
    frames, truth = moving_disks(5, DISKS)
    files = [tmp_path / f"{number:04d}.png" for number in range(5)]
    for file, rgb in zip(files, frames, strict=True):
        write_png(file, rgb)
    label_map = named_classes(["red", "blue"])
    given = Imported(label_map, {2: truth[2]}, "a mask")
    found = follow_labels(given, files, teacher="classical")
    assert sorted(found.labels) == list(range(5)) and found.carried == 4
    assert found.labels[2] is truth[2] and found.label_map is label_map
    for number in (0, 4):
        ids = found.labels[number]
        known = ids != IGNORE
        assert known.mean() > 0.7 and (ids[known] == truth[number][known]).mean() > 0.98
        assert all((ids == i).sum() > 0.5 * (truth[number] == i).sum() for i in (1, 2))
    write_png(files[4], np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8))
    lost = follow_labels(given, files, teacher="classical").labels
    assert 4 not in lost or (lost[4] != IGNORE).mean() < 0.7, "of a picture that shows something else little is sure"


def classified(seed, rows=50, columns=30, apart=1.5):
    """Features of two classes on a grid, the second of a tenth of the rows, and their probabilities."""
    generator = torch.Generator().manual_seed(seed)
    second = (torch.arange(rows) % 10 == 0).float()[:, None].expand(rows, columns)
    features = torch.randn(rows, columns, 16, generator=generator)
    features[..., 0] += apart * (2 * second - 1)
    return torch.nn.functional.normalize(features, dim=-1), torch.stack([1 - second, second], dim=-1).flatten(0, 1)


def test_a_discriminant_tells_classes_apart_as_far_as_they_can_be():
    features, classes = classified(0)
    judge = Discriminant([(inputs(features), classes)])
    others, truth = classified(1)
    told = judge.margins(inputs(others))
    right = (told.argmax(1) == truth.argmax(1)).float()
    assert right[truth[:, 1] > 0].mean() > 0.8, "the rarer class counts as much as the other"
    assert right[truth[:, 0] > 0].mean() > 0.8
    torch.testing.assert_close(told[:, 0], -told[:, 1])
    alike = Discriminant([(inputs(classified(0, apart=0.0)[0]), classes)])
    assert alike.explained < 0.5 * judge.explained
    one = Discriminant([(inputs(features), torch.eye(2)[torch.zeros(len(classes), dtype=torch.long)])])
    assert one.explained == 0 and not one.margins(inputs(others)).any(), "one class is no choice"


def test_a_discriminant_learns_what_changes_and_forgets_it():
    features, classes = classified(0, apart=4.0)
    judge = Discriminant([(inputs(features), classes)])
    turned = features[..., [1, 0, *range(2, 16)]]  # the classes differ in another feature now
    before = judge.margins(inputs(turned))
    for _ in range(20):
        judge.learn(inputs(turned), classes)
    after = judge.margins(inputs(turned))
    accuracy = [(m.argmax(1) == classes.argmax(1)).float().mean().item() for m in (before, after)]
    assert accuracy[1] > accuracy[0] and accuracy[1] > 0.95
    assert (judge.margins(inputs(features)).argmax(1) == classes.argmax(1)).float().mean() > 0.9, (
        "what was given counts"
    )
    judge.forget()
    torch.testing.assert_close(judge.margins(inputs(turned)), before)
    unsure = Discriminant([(inputs(features), classes)])
    unsure.learn(inputs(turned), torch.full_like(classes, 0.5))
    assert torch.isfinite(unsure.margins(inputs(turned))).all()


def test_a_discriminant_can_leave_out_what_was_given_of_a_frame():
    (first, classes), (second, truth) = classified(0, apart=4.0), classified(1, apart=4.0)
    judge = Discriminant([(inputs(first), classes), (inputs(second), truth.flip(1))])  # the second is labelled wrongly
    alone = Discriminant([(inputs(first), classes)])
    told = judge.margins(inputs(second), truth.flip(1))
    assert (told.argmax(1) == truth.argmax(1)).float().mean() > 0.95
    assert (judge.margins(inputs(second)).argmax(1) == truth.argmax(1)).float().mean() < 0.9
    assert (told.argmax(1) == alone.margins(inputs(second)).argmax(1)).float().mean() > 0.98


def test_given_frames_that_suffice_keep_wrong_flow_from_drifting(monkeypatch):
    frames, truth = moving_disks(12, DISKS)

    def sideways(start, end):  # there and back agree, and nothing moves like that
        return np.full((*SIZE, 2), (0.0, 4.0 * np.sign(end - start)), np.float32)

    def found():
        tracker = Tracker(frames, {0: truth[0]}, 3, FrameFeatures(frames, Colors()), flow=sideways)
        return worst(list(tracker.run()), truth, 3)

    module = "semfield_ns.tracking.tracker"
    monkeypatch.setattr(f"{module}.FLOW", 5.0)  # all else is right here, and would correct it
    with_them = found()
    monkeypatch.setattr(f"{module}.SUFFICIENT", 1.0)
    monkeypatch.setattr(f"{module}.ENOUGH", 1.1)
    assert with_them > 0.6 and with_them > found() + 0.1


def test_the_least_iou_of_classes_that_are_there():
    told = torch.tensor([[2.0, 1, 0], [2, 1, 0], [1, 2, 0], [0, 2, 1], [0, 1, 2]])
    classes = torch.tensor(
        [[1.0, 0, 0], [0.9, 0.1, 0], [0.8, 0.2, 0], [0, 1, 0], [0, 0, 0]]
    )  # nothing known of the last
    assert least_iou(told, classes) == pytest.approx(1 / 2)  # of the second class; of the first two thirds
    assert least_iou(told, torch.zeros(5, 3)) == 0.0
