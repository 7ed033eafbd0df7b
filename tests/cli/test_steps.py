import re
import subprocess
import sys
import time

import pytest

from semfield_ns.cli.progress import each
from semfield_ns.cli.steps import Step, StepRunner, progress_share, run_child, step_keys, tool, wait_for_earlier
from semfield_ns.errors import SemfieldError


def make_steps(folder, calls, **inputs):
    """Two steps; `inputs` are those of the first."""

    def step(name, values):
        def run(progress):
            calls.append(name)
            progress(0.5)
            (folder / name).write_text(name)

        return Step(name, f"Step {name}", values, (folder / name,), run)

    return [step("first", inputs), step("second", {})]


def test_finished_steps_are_not_done_again(tmp_path, capsys):
    calls = []
    StepRunner(tmp_path / "markers").run_all(make_steps(tmp_path, calls))
    StepRunner(tmp_path / "markers").run_all(make_steps(tmp_path, calls))
    assert calls == ["first", "second"]
    assert capsys.readouterr().out.count("done before") == 2


def test_other_inputs_repeat_this_step_and_all_later_ones(tmp_path):
    calls = []
    runner = StepRunner(tmp_path / "markers")
    runner.run_all(make_steps(tmp_path, calls, seed=0))
    runner.run_all(make_steps(tmp_path, calls, seed=1))
    assert calls == ["first", "second"] * 2
    first, second = (step_keys(make_steps(tmp_path, calls, seed=seed)) for seed in (0, 1))
    assert first["first"] != second["first"] and first["second"] != second["second"]


def test_a_lost_output_is_made_again(tmp_path):
    calls = []
    runner = StepRunner(tmp_path / "markers")
    runner.run_all(make_steps(tmp_path, calls))
    (tmp_path / "second").unlink()
    runner.run_all(make_steps(tmp_path, calls))
    assert calls == ["first", "second", "second"]


def test_a_failed_step_leaves_no_marker_and_ends_the_work(tmp_path):
    calls = []
    steps = make_steps(tmp_path, calls)

    def fail(progress):
        raise SemfieldError("no luck")

    broken = Step("first", "Step first", {}, steps[0].outputs, fail)
    runner = StepRunner(tmp_path / "markers")
    with pytest.raises(SemfieldError, match="no luck"):
        runner.run_all([broken, steps[1]])
    assert calls == [] and not (tmp_path / "markers").exists()
    runner.run_all(steps)
    assert calls == ["first", "second"]


def test_a_step_that_makes_nothing_is_an_error(tmp_path):
    with pytest.raises(SemfieldError, match=r"'idle' ended without writing .*nothing"):
        StepRunner(tmp_path).run_all([Step("idle", "Idle", {}, (tmp_path / "nothing",), lambda progress: None)])


@pytest.mark.parametrize(
    "line, share",
    [
        ("1200 (60.00%)         12.3 ms              3 m", 0.6),
        ("1500 (300.00%)        12.3 ms", 3.0),
        ("🎥 Rendering 🎥 ━━━━━╸━━━━━ 12/48(25.0%) 1.2 fps 0:00:10", 0.25),
        ("Evaluating all images ━━━━ 3/24 0:00:12", 0.125),
        ("Loading ━━━━━ 40%", 0.4),
        ("loss 3/24", None),
        ("Done loading checkpoint 50%", None),
        ("", None),
    ],
)
def test_progress_lines_of_nerfstudio(line, share):
    assert progress_share(line) == share


def test_a_child_reports_progress_and_its_log_has_no_bars(tmp_path):
    code = (
        "import time\n"
        "from rich.progress import Progress, BarColumn, MofNCompleteColumn\n"
        "print('hello')\n"
        "with Progress(BarColumn(), MofNCompleteColumn()) as bar:\n"
        "    task = bar.add_task('', total=4)\n"
        "    for _ in range(4):\n"
        "        bar.advance(task)\n"
        "        bar.refresh()\n"
        "print('10 (50.00%) 3 ms')\n"
    )
    seen = []
    run_child([sys.executable, "-c", code], tmp_path / "logs" / "child.log", seen.append, "The child")
    assert {0.25, 0.5, 0.75, 1.0} <= set(seen) and seen[-1] == 0.5
    text = (tmp_path / "logs" / "child.log").read_text()
    assert "hello" in text and "10 (50.00%)" in text and "━" not in text and "\x1b" not in text
    steps = []
    run_child([sys.executable, "-c", code], tmp_path / "logs" / "child.log", steps.append, "The child", bars=False)
    assert steps == [0.5], "of a training, bars are of what comes before it"


def test_a_child_that_fails_is_one_sentence_with_its_log(tmp_path):
    log = tmp_path / "child.log"
    code = "import sys; print('the reason', file=sys.stderr); sys.exit(3)"
    with pytest.raises(SemfieldError, match=rf"The child failed with exit code 3: see the end of {log}\. the reason$"):
        run_child([sys.executable, "-c", code], log, lambda share: None, "The child")
    assert "the reason" in log.read_text()


@pytest.mark.parametrize("says", [True, False])
def test_a_log_gets_a_line_now_and_then(tmp_path, capsys, monkeypatch, says):
    monkeypatch.setattr("semfield_ns.cli.progress.LINE_SECONDS", 0.05)

    def work(progress):
        if says:
            progress(0.4)
        time.sleep(0.3)
        (tmp_path / "done").touch()

    StepRunner(tmp_path).run_all([Step("work", "Work", {}, (tmp_path / "done",), work)])
    time.sleep(0.2)
    printed = capsys.readouterr().out
    assert len(re.findall(r"^      work: 40%, 0 s$" if says else r"^      work: 0 s$", printed, re.MULTILINE)) >= 2
    assert "work:" not in printed[printed.index("done") :], "none once the work is done"


def test_items_report_how_many_are_done(capsys, monkeypatch):
    monkeypatch.setattr("semfield_ns.cli.progress.LINE_SECONDS", 0.05)
    for _ in each(range(2), "Views"):
        time.sleep(0.12)
    assert "Views: 50%, 0 s" in capsys.readouterr().out


def test_the_next_start_waits_for_the_child_of_one_that_was_killed(tmp_path, capsys):
    """As after `kill -9` of a demo: its training lives on until it next prints."""
    log, begun = tmp_path / "child.log", tmp_path / "begun"
    child = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(2); print('x', flush=True)"
    parent = (
        "import pathlib, sys; from semfield_ns.cli.steps import run_child;"
        f"run_child([sys.executable, '-c', {child!r}], pathlib.Path({str(log)!r}), print, 'The child')"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    while not begun.exists():
        time.sleep(0.05)
    process.kill()
    process.wait()
    start = time.monotonic()
    wait_for_earlier(log)
    assert time.monotonic() - start > 1
    assert "Waiting for the earlier command" in capsys.readouterr().out
    wait_for_earlier(log)
    assert capsys.readouterr().out == ""


def test_tools_come_from_the_environment_of_this_python():
    assert tool("python").endswith("/python")
    with pytest.raises(SemfieldError, match="ns-no-such-tool is not in"):
        tool("ns-no-such-tool")
