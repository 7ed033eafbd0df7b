"""The logic of the demo, with small stand-ins for the commands of Nerfstudio."""

import json
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from semfield_ns.cli import demo as demo_module
from semfield_ns.cli.demo import configured_iterations, demo, newest_checkpoint
from semfield_ns.errors import SemfieldError

TOTAL = 40

# Trains TOTAL steps of its own accord, saves every tenth, and dies before the step that the file `die_at` holds.
FAKE_TRAIN = f"""
import json, sys, time, zipfile
from pathlib import Path
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
args = sys.argv[1:]
get = lambda name, default=None: args[args.index(name) + 1] if name in args else default
run = Path(get("--output-dir")) / get("--experiment-name") / args[0] / get("--timestamp")
checkpoints = run / "nerfstudio_models"
checkpoints.mkdir(parents=True, exist_ok=True)
load = get("--load-checkpoint")
start = int(Path(load).stem.removeprefix("step-")) + 1 if load else 0
count = int(get("--max-num-iterations", {TOTAL}))
(run / "config.yml").write_text(f"!!python/object:x\\nmax_num_iterations: {{count}}\\nmethod_name: x\\n")
here = Path(__file__).parent
with (here / "calls.jsonl").open("a") as file:
    print(json.dumps([start, count, [get("--data"), get("--pipeline.datamanager.dataparser.labels")]]), file=file)
die_at = int((here / "die_at").read_text()) if (here / "die_at").exists() else -1
writer = EventFileWriter(str(run))
def add_scalar(tag, value, step):
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
for step in range(start, start + count):
    if step == die_at:
        sys.exit(9)
    add_scalar("Train Loss", 1 / (step + 1), step)
    add_scalar("Train Rays / Sec", 1000 + step, step)
    writer.flush()
    if step % 10 == 9 or step == start + count - 1:
        with zipfile.ZipFile(checkpoints / f"step-{{step:09d}}.ckpt", "w") as archive:
            archive.writestr("data", "x")
    print(f"{{step}} ({{step / count * 100:.2f}}%)")
writer.close()
"""
FAKE_EVAL = """
import json, sys
from pathlib import Path
args = sys.argv[1:]
get = lambda name: Path(args[args.index(name) + 1])
assert get("--load-config").is_file()
folder = get("--render-output-path")
folder.mkdir(exist_ok=True)
(folder / "confusion_matrix.json").write_text(json.dumps({"classes": ["a", "b"], "counts": [[3, 1], [0, 4]]}))
results = {"psnr": 25.0, "psnr_std": 1.0, "ssim": 0.9, "miou": 0.8, "accuracy": 0.875, "iou/a": 0.75}
get("--output-path").write_text(json.dumps({"results": results}))
"""
FAKE_RENDER = """
import sys
from pathlib import Path
args = sys.argv[1:]
assert args[args.index("--rendered-output-names") + 1:] == ["rgb", "semantics_colormap", "flow_forward", "depth"]
assert Path(args[args.index("--camera-path-filename") + 1]).is_file()
Path(args[args.index("--output-path") + 1]).write_bytes(b"video")
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder of stand-ins for ns-train, ns-eval and ns-render, the scene writer and the camera path."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, code in (("ns-train", FAKE_TRAIN), ("ns-eval", FAKE_EVAL), ("ns-render", FAKE_RENDER)):
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{code}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def write_scene(name, output_dir, seed, progress, width, height):
        output_dir.mkdir(parents=True, exist_ok=True)
        progress(1, 1)
        assert (width, height) == (320, 240)
        (output_dir / "transforms.json").write_text(json.dumps([name, seed]))

    monkeypatch.setattr(demo_module, "tool", lambda name: str(folder / name))
    monkeypatch.setattr("semfield_ns.scenes.synthetic.write_scene", write_scene)
    monkeypatch.setattr(
        "semfield_ns.cli.camera_path.camera_path", lambda config, output, **options: output.write_text(str(options))
    )
    monkeypatch.setattr(demo_module.shutil, "which", lambda name: "/usr/bin/ffmpeg")
    return folder


def calls(tools: Path) -> list:
    """[first step, number of steps, scene and labels] of each training."""
    return [json.loads(line) for line in (tools / "calls.jsonl").read_text().splitlines()]


def test_a_whole_demo_and_a_second_one(tools, tmp_path, capsys):
    output = tmp_path / "demo"
    demo(output)
    metrics = json.loads((output / "metrics.json").read_text())
    assert {name: metrics[name] for name in ("psnr", "ssim", "miou", "accuracy")} == {
        "psnr": 25.0,
        "ssim": 0.9,
        "miou": 0.8,
        "accuracy": 0.875,
    }
    assert metrics["rays_per_second"] == 1000 + TOTAL // 2 and metrics["train_steps"] == TOTAL
    assert metrics["train_seconds"] >= 0 and metrics["iou/a"] == 0.75
    for name in ("training_curves.png", "confusion_matrix.png", "rgb_semantics_flow_depth.mp4", "evaluation.json"):
        assert (output / name).stat().st_size > 0
    run = output / "synthetic" / "semantic-flow-splat-tiny" / "run"
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"semfield view {run}")
    assert calls(tools) == [[0, TOTAL, [str(output / "scene"), "every-2"]]]

    demo(output)
    assert len(calls(tools)) == 1
    assert capsys.readouterr().out.count("done before") == 6


@pytest.mark.parametrize("iterations", [None, 50])
def test_a_killed_training_goes_on_from_its_last_checkpoint(tools, tmp_path, iterations):
    output = tmp_path / "demo"
    for die_at in (25, 33):
        (tools / "die_at").write_text(str(die_at))
        with pytest.raises(SemfieldError, match=r"The training failed with exit code 9: see the end of .*train\.log"):
            demo(output, max_iterations=iterations)
    (tools / "die_at").unlink()
    demo(output, max_iterations=iterations)
    total = iterations or TOTAL
    assert [call[:2] for call in calls(tools)] == [[0, total], [20, total - 20], [30, total - 30]]
    assert json.loads((output / "metrics.json").read_text())["train_steps"] == total


def test_a_demo_killed_after_the_last_checkpoint_does_not_train_again(tools, tmp_path):
    output = tmp_path / "demo"
    demo(output)
    (output / ".steps" / "train.json").unlink()
    demo(output)
    assert len(calls(tools)) == 1


def test_a_checkpoint_that_was_cut_off_is_not_used(tools, tmp_path):
    output = tmp_path / "demo"
    (tools / "die_at").write_text("35")
    with pytest.raises(SemfieldError):
        demo(output)
    last = output / "synthetic/semantic-flow-splat-tiny/run/nerfstudio_models/step-000000029.ckpt"
    last.write_bytes(last.read_bytes()[:-10])
    (tools / "die_at").unlink()
    demo(output)
    assert [call[:2] for call in calls(tools)] == [[0, TOTAL], [20, TOTAL - 20]]


def test_other_settings_train_from_the_start(tools, tmp_path):
    demo(tmp_path / "demo")
    demo(tmp_path / "demo", seed=1)
    demo(tmp_path / "demo", seed=1, labels="all")
    demo(tmp_path / "demo", seed=1, labels="all", seconds=1.0)
    assert [call[:2] for call in calls(tools)] == [[0, TOTAL]] * 3


def test_a_run_that_is_not_of_a_demo_is_left_alone(tools, tmp_path):
    run = tmp_path / "synthetic" / "semantic-flow-splat-tiny" / "run"
    run.mkdir(parents=True)
    (run / "mine").write_text("mine")
    with pytest.raises(SemfieldError, match="was not made by a demo"):
        demo(tmp_path)
    assert (run / "mine").exists()


def test_a_failed_evaluation_names_its_log_and_is_repeated(tools, tmp_path):
    good = (tools / "ns-eval").read_text()
    (tools / "ns-eval").write_text(f"#!{sys.executable}\nraise SystemExit(1)")
    with pytest.raises(SemfieldError, match=r"The evaluation failed with exit code 1: .*evaluate\.log"):
        demo(tmp_path / "demo")
    (tools / "ns-eval").write_text(good)
    demo(tmp_path / "demo")
    assert len(calls(tools)) == 1 and (tmp_path / "demo" / "metrics.json").is_file()


def test_no_ffmpeg_is_said_before_anything_is_done(tools, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_module.shutil, "which", lambda name: None)
    with pytest.raises(SemfieldError, match="install ffmpeg"):
        demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_newest_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "absent") == (None, 0)
    for step in (9, 100, 20):
        with zipfile.ZipFile(tmp_path / f"step-{step:09d}.ckpt", "w") as archive:
            archive.writestr("data", "x")
    assert newest_checkpoint(tmp_path) == (tmp_path / "step-000000100.ckpt", 101)


def test_configured_iterations(tmp_path):
    config = tmp_path / "config.yml"
    config.write_text("!!python/object:x\na: 1\nmax_num_iterations: 2500\nb: 2\n")
    assert configured_iterations(config) == 2500
    config.write_text("nothing")
    with pytest.raises(SemfieldError, match="max_num_iterations"):
        configured_iterations(config)
