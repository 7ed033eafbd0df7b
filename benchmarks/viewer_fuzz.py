"""Random actions in two browsers, with still and with changing weights, and with edits: exceptions, locks, memory.

    python benchmarks/viewer_fuzz.py [--actions 500] [--seed 7]

The pages are played, in one process with Nerfstudio's real server. After every 50 actions one page is closed and
another one opened. Renders may take 4 MB, so that whatever else grows is seen. Prints the memory of the process after
every 50 actions, less what malloc keeps for later.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.viewer.fuzz import EPOCH, check_that_it_works, exceptions, open_pages, play, served_ball


def main(actions: int = 500, seed: int = 7) -> None:
    """Play.

    Args:
        actions: in each mode.
        seed: of chance.
    """
    failed = False
    for mode in ("still weights", "changing weights", "edits of still weights"):
        start = time.perf_counter()
        with (
            tempfile.TemporaryDirectory() as folder,
            exceptions() as found,
            served_ball(Path(folder), mode == "changing weights", mode.startswith("edits")) as served,
        ):
            browsers = open_pages(served)
            memory = play(served, browsers, actions, seed)
            check_that_it_works(served, browsers)
            steps, log = served.viewer.step, len(served.session.log)
        print(
            f"{mode}: {actions} actions in {time.perf_counter() - start:.0f} s, "
            f"{steps} training steps, {log} actions in the log at the end, {len(found)} exceptions, no lock stuck"
        )
        print(f"MB of memory after every {EPOCH} actions: {' '.join(str(round(m / 1e6)) for m in memory)}", flush=True)
        print(*found, sep="\n", file=sys.stderr)
        failed = failed or bool(found)
    # Not by `sys.exit`: pages that were closed leave threads that wait.
    sys.stdout.flush()
    os._exit(int(failed))


if __name__ == "__main__":
    tyro.cli(main)
