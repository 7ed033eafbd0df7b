import shutil
import time

import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.report import (
    confusion_matrix_png,
    curve_name,
    logged_seconds,
    read_scalars,
    training_curves_png,
)
from semfield_ns.metrics.confusion import ConfusionMatrix


def log(folder, steps, value, start):
    """One session of a run: a scalar a step, one second apart."""
    with SummaryWriter(folder) as writer:
        for offset, step in enumerate(steps):
            writer.add_scalar("Train Loss", value, step, walltime=start + offset)
            writer.add_scalar("Eval Images Metrics/psnr", 10 * value, step, walltime=start + offset)
            writer.add_scalar("Eval Images Metrics/miou", value / 10, step, walltime=start + offset)


@pytest.fixture
def resumed_run(tmp_path):
    """Steps 0 to 4 in a first session, 3 to 6 in a second one."""
    now = time.time()
    log(tmp_path / "a", range(5), 2.0, now + 100)
    log(tmp_path / "b", range(3, 7), 1.0, now + 1000)
    run = tmp_path / "run"
    run.mkdir()
    for index, part in enumerate("ab"):
        (source,) = (tmp_path / part).iterdir()
        shutil.copy(source, run / f"events.out.tfevents.{index}")
    return run


def test_scalars_of_a_resumed_run(resumed_run):
    steps, values = read_scalars(resumed_run)["Train Loss"]
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    assert values == [2, 2, 2, 1, 1, 1, 1]


def test_seconds_of_a_resumed_run_leave_out_the_break(resumed_run):
    assert 1000 < logged_seconds(resumed_run) < 1120


def test_a_truncated_event_file_is_read_as_far_as_it_goes(resumed_run):
    file = resumed_run / "events.out.tfevents.1"
    file.write_bytes(file.read_bytes()[:-20])
    assert read_scalars(resumed_run)["Train Loss"][0][-1] >= 5


def test_curves_are_named_in_words():
    assert curve_name("Train Loss Dict/flow_slow") == "flow_slow"
    assert curve_name("Train Metrics Dict/psnr") == "psnr, training"
    assert curve_name("Eval Metrics Dict/psnr") == "psnr, held-out"
    assert curve_name("Train Loss") == "Train Loss"


def test_training_curves(resumed_run, tmp_path):
    training_curves_png(resumed_run, tmp_path / "out" / "curves.png")
    with Image.open(tmp_path / "out" / "curves.png") as image:
        assert image.width > 2 * image.height and len(image.convert("RGB").getcolors(1 << 24)) > 10
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["curves.png"]


def test_no_events_is_one_sentence(tmp_path):
    with pytest.raises(SemfieldError, match="no tensorboard events"):
        training_curves_png(tmp_path, tmp_path / "curves.png")


@pytest.mark.parametrize("num_classes", [1, 3, 40])
def test_confusion_matrix_figure(tmp_path, num_classes):
    matrix = ConfusionMatrix(num_classes).update(torch.arange(num_classes), torch.arange(num_classes))
    confusion_matrix_png(matrix, [f"class {i}" for i in range(num_classes)], tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert image.width > 100 and image.height > 100


def test_an_empty_confusion_matrix_is_drawn_all_the_same(tmp_path):
    confusion_matrix_png(ConfusionMatrix(2), ["a", "b"], tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 0


def test_a_full_disk_names_the_figure(tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(SemfieldError, match=r"matrix\.png"):
        confusion_matrix_png(ConfusionMatrix(2), ["a", "b"], tmp_path / "matrix.png")
    assert not list(tmp_path.iterdir())
