"""Evaluation of a run: figures by hand, and the command on a small run."""

import json
import math

import numpy as np
import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.run import Truth, evaluate_run, markdown, score
from tests.runs import run_command


def test_a_missing_config_is_one_sentence(tmp_path):
    with pytest.raises(SemfieldError, match=r"give the config\.yml of a trained run"):
        evaluate_run(tmp_path / "config.yml")


def test_a_number_of_frames_to_suggest_is_not_negative(tmp_path):
    (tmp_path / "config.yml").touch()
    with pytest.raises(SemfieldError, match="0 or more, not -1"):
        evaluate_run(tmp_path / "config.yml", suggest_frames=-1)


def test_scores_by_hand():
    # Two frames of four pixels; class 1 may move. Truth and prediction:
    truth = Truth(
        labels={3: np.array([[0, 0, 1, -1]]), 5: np.array([[1, 1, 0, 0]])},
        moving={3: np.array([[False, False, True, False]]), 5: np.array([[True, True, False, False]])},
        moving_classes=np.array([False, True]),
    )
    predictions = {3: np.array([[0, 1, 1, 0]]), 5: np.array([[1, 0, -1, 0]])}
    row = score("x", predictions, truth, [{"psnr": 20.0, "ssim": 0.5}, {"psnr": 30.0, "ssim": 1.0}])
    # Counts: class 0: 3 hits, 1 false, 1 missed; class 1: 2 hits, 1 false, 1 missed.
    assert row.miou == pytest.approx((3 / 5 + 2 / 4) / 2)
    # Frame 3: 1/2 and 1/2. Frame 5: 2/3 and 1/2.
    assert row.miou_image == pytest.approx((0.5 + (2 / 3 + 1 / 2) / 2) / 2)
    assert row.miou_moving == pytest.approx(2 / 4)
    # Moving pixels are all of class 1: two of three found. That one is taken for class 0 is said by that already.
    assert row.miou_moving_pixels == pytest.approx(2 / 3)
    assert row.accuracy == pytest.approx(5 / 7)
    assert (row.psnr, row.ssim) == (25.0, 0.75)
    assert "| x | 0.550 |" in markdown([row])


def test_what_cannot_be_measured_is_not_a_zero():
    truth = Truth({0: np.array([[0, 0]])}, {}, np.array([False, False]))
    row = score("x", {0: np.array([[0, 0]])}, truth)
    assert math.isnan(row.psnr)
    assert math.isnan(row.miou_moving_pixels)
    assert "| - |" in markdown([row])


@pytest.mark.slow
def test_a_run_is_compared_on_the_frames_whose_labels_were_hidden(trained_run, tmp_path):
    command = ["semfield", "evaluate", "--load-config", str(trained_run), "--output-dir", str(tmp_path / "out")]
    result = run_command([*command, "--protocol", "unlabelled", "--suggest-frames", "2"])
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [row["method"] for row in found["rows"]] == [
        "this run", "nearest labelled frame", "chained optical flow", "per-frame features, linear head",
    ]  # fmt: skip
    assert len(found["frames"]) == 4
    assert len(found["suggested_frames"]) == 2 and set(found["suggested_frames"]) <= set(found["frames"])
    assert all(0 < row["miou"] <= 1 for row in found["rows"])
    assert 0 < found["rows"][0]["flow_error"] < 20
    with pytest.raises(SemfieldError, match="labels first-P%"):
        evaluate_run(trained_run, "tracking")
    with pytest.raises(SemfieldError, match="began with --load-checkpoint"):
        evaluate_run(trained_run, "adaptation")
    # The flow of a synthetic scene is exact: following it beats copying.
    assert found["rows"][2]["miou"] > found["rows"][1]["miou"]
    assert (tmp_path / "out" / "evaluation.md").read_text().strip() in result.stdout
    assert len(list((tmp_path / "out" / "pictures").glob("*.jpg"))) == 4
    assert "pictures/" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.slow
def test_edited_runs_open_like_any_other(trained_run, tmp_path):
    edits = tmp_path / "edits.yml"
    edits.write_text("[{kind: background, color: [1, 0, 0]}]")
    command = ["semfield", "edit", "--load-config", str(trained_run), "--edits", str(edits)]
    run_command([*command, "--output-dir", str(tmp_path / "edited")])
    plain, edited = evaluate_run(trained_run, "held-out"), evaluate_run(tmp_path / "edited" / "config.yml", "held-out")
    assert edited.rows[0].psnr < plain.rows[0].psnr - 1
    assert len(plain.rows) == 1
