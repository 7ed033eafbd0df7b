"""How far long work is: a bar in a terminal; elsewhere a line now and then, so that a log shows that it goes on."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from semfield_ns.compat.commands import LINE_SECONDS

if TYPE_CHECKING:
    from rich.console import Console

    from semfield_ns.export.views import Counted

Progress = Callable[[float], None]
"""told the share that is done; 1 is all of it"""
Item = TypeVar("Item")


@contextmanager
def shown(title: str, console: "Console | None" = None) -> Iterator[Progress]:
    """Shows how far some work is, as it says itself."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    if not sys.stdout.isatty():
        with lines(title) as progress:
            yield progress
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=min(share, 1.0))


@contextmanager
def lines(title: str) -> Iterator[Progress]:
    """Prints a line every `LINE_SECONDS` while some work goes on, which need not say how far; nothing in a terminal."""
    start, share, done = time.monotonic(), 0.0, threading.Event()

    def report(now: float) -> None:
        nonlocal share
        share = min(now, 1.0)

    def repeat() -> None:
        while not done.wait(LINE_SECONDS):
            reached = f"{share:.0%}, " if share > 0 else ""
            print(f"      {title}: {reached}{time.monotonic() - start:.0f} s", flush=True)

    if sys.stdout.isatty():
        yield report
        return
    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield report
    finally:
        done.set()
        thread.join()


def each(items: "Counted[Item]", title: str) -> Iterator[Item]:
    """The items, one after the other, with their progress shown."""
    with shown(title) as progress:
        for number, item in enumerate(items, start=1):
            yield item
            progress(number / len(items))
