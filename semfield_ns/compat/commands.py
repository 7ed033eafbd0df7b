"""Nerfstudio's commands: a run by its folder, Ctrl-C, progress in logs, ffmpeg, and GPUs that are not there."""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from semfield_ns.compat.owner import is_ours
from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import run_config

INTERRUPTED = 130
"""exit code of a program that ends by Ctrl-C"""
LINE_SECONDS = 30.0
"""between two lines about long work, where there is no terminal"""


@cache
def progress_in_logs() -> None:
    """Lets rich's progress bars, Nerfstudio's and ours, print a line now and then where there is no terminal."""
    from rich.progress import Progress

    start, stop = Progress.start, Progress.stop
    ends: dict[Progress, threading.Event] = {}

    def start_telling(self: Progress) -> None:
        start(self)
        if not (self.console.is_terminal or self.disable or self in ends):
            ends[self] = threading.Event()
            threading.Thread(target=_tell_progress, args=(self, ends[self]), daemon=True).start()

    def stop_telling(self: Progress) -> None:
        if self in ends:
            ends.pop(self).set()
        stop(self)

    Progress.start, Progress.stop = start_telling, stop_telling  # type: ignore[method-assign]


def _tell_progress(progress: Any, end: threading.Event) -> None:
    from rich.text import Text

    begun = time.monotonic()
    while not end.wait(LINE_SECONDS):
        task = next((task for task in progress.tasks if not task.finished), None)
        if task is not None:
            share = f"{task.percentage:.0f}%, " if task.total else ""
            title = Text.from_markup(task.description).plain
            print(f"      {title}: {share}{time.monotonic() - begun:.0f} s", flush=True)


class Interrupted(SystemExit):
    """Ctrl-C. Nerfstudio answers a KeyboardInterrupt with a traceback, and goes on to end well."""


def stop_in_one_line() -> None:
    """From now on Ctrl-C ends the program with one line and exit code 130; worker processes leave it to this one."""
    if multiprocessing.parent_process() is not None or threading.current_thread() is not threading.main_thread():
        return
    main = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() != main:
            raise KeyboardInterrupt
        print("\nStopped.", file=sys.stderr, flush=True)
        raise Interrupted(INTERRUPTED)

    signal.signal(signal.SIGINT, handler)


def check_devices() -> None:
    """Lets a training of ours on more GPUs than there are end with a sentence; the processes would wait for each other.

    Nerfstudio starts a process for each, with the training's config among its arguments.
    """
    import torch
    from torch import multiprocessing as processes

    spawn = processes.spawn

    def checked(function: Callable, args: tuple = (), *more: Any, **settings: Any) -> Any:
        ours = [argument for argument in args if is_ours(getattr(argument, "pipeline", None))]
        wanted, found = ours[0].machine.num_devices if ours else 0, torch.cuda.device_count()
        if found < wanted:
            raise SemfieldError(
                f"--machine.num-devices {wanted}: each process needs an NVIDIA GPU of its own, and this machine has "
                f"{found or 'none'}."
            )
        return spawn(function, args, *more, **settings)

    processes.spawn = checked  # type: ignore[assignment]


def provide_ffmpeg() -> None:
    """Puts the ffmpeg of imageio-ffmpeg on the PATH, for us and our children, where there is no other.

    mediapy and Nerfstudio call it by this name, which is not that of the file.
    """
    if shutil.which("ffmpeg") is not None:
        return
    with suppress(ImportError, OSError, RuntimeError):  # whoever needs it then says what is missing
        import imageio_ffmpeg

        binary = Path(imageio_ffmpeg.get_ffmpeg_exe())
        folder = Path(os.environ.get("SEMFIELD_CACHE") or Path.home() / ".cache" / "semfield_ns") / "bin"
        link = folder / ("ffmpeg.exe" if os.name == "nt" else "ffmpeg")
        if not link.exists() or not link.samefile(binary):
            folder.mkdir(parents=True, exist_ok=True)
            fresh = folder / f".{link.name}.{os.getpid()}"
            shutil.copy2(binary, fresh) if os.name == "nt" else fresh.symlink_to(binary)
            os.replace(fresh, link)
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), str(folder)]).strip(os.pathsep)


def open_run_folders(arguments: list[str]) -> None:
    """Replaces the folder of a run, after `--load-config`, by the config.yml in it.

    Nerfstudio reads a file only. It loads its plugins, and us, before it reads its command line.

    Args:
        arguments: a command line, which is changed in place. A folder that is no run stays, for `error_sentence`.
    """
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option.replace("_", "-") != "--load-config":
            continue
        place = index if equals else index + 1
        given = value if equals else "".join(arguments[place : place + 1])
        if given and (run := Path(given)).is_dir():
            with suppress(SemfieldError):
                arguments[place] = f"{option}={run_config(run)}" if equals else str(run_config(run))
