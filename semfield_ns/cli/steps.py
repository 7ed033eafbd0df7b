"""Long work in steps that are remembered: what is finished and has the same inputs is not done again."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from semfield_ns.cli.progress import Progress, shown
from semfield_ns.errors import SemfieldError

try:
    import fcntl
except ImportError:  # Windows: no locks
    fcntl = None  # type: ignore[assignment]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROGRESS = (
    re.compile(r"^\s*\d+ \((?P<percent>\d+(?:\.\d+)?)%\)"),  # a line of ns-train's table
    re.compile(r"[━╸╺].*?(?P<done>\d+)/(?P<total>\d+)"),  # a bar of rich with a count
    re.compile(r"[━╸╺].*?(?P<percent>\d+(?:\.\d+)?)%"),  # a bar of rich with a percentage
)
_CHUNK = 65536
PATIENCE_SECONDS = 10.0
"""for a command to end when it is asked to, before it is killed"""


@dataclass(frozen=True)
class Step:
    """One step of a longer piece of work."""

    name: str
    """short, unique: names the marker and the log"""
    title: str
    """what a person reads while it runs"""
    inputs: dict[str, Any]
    """what the result depends on, besides the results of earlier steps; JSON values"""
    outputs: tuple[Path, ...]
    """files or folders that are there afterwards"""
    run: Callable[[Progress], None]
    """does the work and reports the share that is done; 1 is all of it"""


class StepRunner:
    """Runs steps one after the other, leaving a marker for each finished one.

    A step's key is a hash of its inputs and of the key before it, so a changed input also repeats all later steps.

    Args:
        folder: for the markers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_all(self, steps: Sequence[Step]) -> None:
        """Does what is not done yet, and shows the progress of each step.

        Raises:
            SemfieldError: a step fails, or does not make what it should.
        """
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        keys = step_keys(steps)
        for number, step in enumerate(steps, start=1):
            heading = f"[bold]\\[{number}/{len(steps)}][/bold] {step.title}"
            if self.is_done(step, keys[step.name]):
                console.print(f"{heading} [dim](done before)[/dim]")
                continue
            console.print(heading)
            start = time.monotonic()
            with shown(step.name, console) as progress:
                step.run(progress)
            missing = [path for path in step.outputs if not path.exists()]
            if missing:
                raise SemfieldError(f"The step {step.name!r} ended without writing {missing[0]}.")
            seconds = time.monotonic() - start
            self.mark(step, keys[step.name], seconds)
            for path in step.outputs:
                console.print(f"      {path}", style="dim", markup=False)
            console.print(f"      {seconds:.0f} s", style="dim")

    def is_done(self, step: Step, key: str) -> bool:
        """Whether the step's marker has this key and its outputs are still there."""
        return read_marker(self.folder / f"{step.name}.json").get("key") == key and all(
            path.exists() for path in step.outputs
        )

    def mark(self, step: Step, key: str, seconds: float) -> None:
        """Remembers the step as finished."""
        from semfield_ns.io import write_json

        write_json(self.folder / f"{step.name}.json", {"key": key, "seconds": seconds})


def step_keys(steps: Sequence[Step]) -> dict[str, str]:
    """The key of each step, by name."""
    keys: dict[str, str] = {}
    previous = ""
    for step in steps:
        text = json.dumps([previous, step.name, step.inputs, [str(path) for path in step.outputs]], sort_keys=True)
        keys[step.name] = previous = hashlib.sha256(text.encode()).hexdigest()
    return keys


def read_marker(path: Path) -> dict[str, Any]:
    """The content of a marker; empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def tool(name: str) -> str:
    """A command that is installed beside this Python, such as `ns-train`.

    Raises:
        SemfieldError: it is not there.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise SemfieldError(f"{name} is not in {path.parent}: install Nerfstudio into the environment of semfield.")
    return str(path)


def progress_share(line: str) -> float | None:
    """The share that a line of a Nerfstudio command reports as done; None for any other line.

    Of a resumed training it goes beyond 1: ns-train counts all steps, but divides by those of this session.
    """
    for pattern in _PROGRESS:
        found = pattern.search(line)
        if found:
            groups = found.groupdict()
            if "percent" in groups:
                return float(groups["percent"]) / 100
            return int(groups["done"]) / max(int(groups["total"]), 1)
    return None


def run_child(command: Sequence[str], log: Path, progress: Progress, what: str, bars: bool = True) -> None:
    """Runs a command to its end, its output in a log file and its progress reported.

    The log is locked for as long as the command lives, even if this process is killed; see `wait_for_earlier`.

    Args:
        command: program and arguments.
        log: file for stdout and stderr, without progress bars; an earlier one is overwritten.
        progress: told the share that is done, as far as the command says.
        what: name of the work, for the error.
        bars: whether bars count as progress; in training they are of what comes before the first step.

    Raises:
        SemfieldError: the command does not exit with 0. The message ends with the last line that it printed.
    """
    wait_for_earlier(log)
    last = ""
    # FORCE_COLOR: rich draws its bars although its output is no terminal, and we read them.
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
    # OpenMP threads that wait busily take the core from one another as soon as anything else runs on the machine.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with log.open("w", encoding="utf-8") as sink:
        # The lock belongs to the open file, which the child inherits, and goes when both have closed it.
        _try_lock(sink)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(sink.fileno(),) if fcntl else (),
        ) as child:
            try:
                print(*command, file=sink, flush=True)
                assert child.stdout is not None
                for line in _lines(child.stdout):
                    share, bar = progress_share(line), re.search("[━╸╺]", line) is not None
                    if share is not None and (bars or not bar):
                        progress(share)
                    if share is None or not bar:
                        print(line, file=sink, flush=True)
                        last = line.strip() if re.search(r"\w", line) else last
            except BaseException:
                _end(child)
                raise
    if child.returncode != 0:
        raise SemfieldError(f"{what} failed with exit code {child.returncode}: see the end of {log}. {last}".rstrip())


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def wait_for_earlier(log: Path) -> None:
    """Waits until no command of an earlier start, which was killed, is at work on this log any more.

    Such an orphan ends by itself when it next prints; until then it may still write checkpoints.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        if not _try_lock(file):
            print(f"Waiting for the earlier command that still writes {log} to end", flush=True)
            while not _try_lock(file):
                time.sleep(0.5)


def _try_lock(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come, without escape sequences; a carriage return ends a line as well; empty ones are left out."""
    rest = b""
    while chunk := os.read(stream.fileno(), _CHUNK):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        for line in whole:
            text = _ANSI.sub("", line.decode("utf-8", errors="replace")).rstrip()
            if text:
                yield text
    text = _ANSI.sub("", rest.decode("utf-8", errors="replace")).rstrip()
    if text:
        yield text
