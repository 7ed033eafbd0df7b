"""Everything private to, or broken in, the libraries below us, in one place.

Importing this package costs nothing: torch, torchmetrics and the rest are imported by the functions that need them.
"""

import os
import sys
import warnings
from functools import cache
from pathlib import Path
from types import TracebackType

from semfield_ns.compat.commands import (
    check_devices,
    open_run_folders,
    progress_in_logs,
    provide_ffmpeg,
    stop_in_one_line,
)
from semfield_ns.compat.sentences import error_sentence

TRACEBACK_VARIABLE = "SEMFIELD_TRACEBACK"
"""Set this environment variable to 1 to see the traceback of a `SemfieldError`."""
NERFSTUDIO_WARNINGS = (
    ("Using a non-tuple sequence for multidimensional indexing", UserWarning, r"nerfstudio\."),
    ("Converting a tensor with requires_grad=True to a scalar", UserWarning, r"nerfstudio\."),
    ("To copy construct from a tensor", UserWarning, r"nerfstudio\."),
    (r"Using torch\.cross without specifying the dim", UserWarning, r"nerfstudio\."),
    (r"`torch\.cuda\.amp\.", FutureWarning, r"nerfstudio\."),
    # Said at the import of Nerfstudio's cameras: before us in `ns-*`, after us in `semfield`.
    (r"`torch\.jit\.script` is deprecated", FutureWarning, r"torch\.jit\."),
    # Groups of parameters that have no gradient in the first stage are not stepped, and their schedules are.
    (r"Detected call of `lr_scheduler\.step\(\)` before", UserWarning, r"nerfstudio\."),
    ("This DataLoader will create 4 worker processes", UserWarning, r"torch\.utils\.data\."),
)
"""What today's torch says of Nerfstudio 1.1.5 (message, category, module): a user can do nothing about it."""


@cache
def install() -> None:
    """Make an uncaught `SemfieldError` end the program with its sentence and exit code 1, and silence known warnings.

    And let Nerfstudio's commands open runs by their folders. Further calls do nothing.
    """
    if sys.argv and Path(sys.argv[0]).name.startswith("ns-"):
        open_run_folders(sys.argv)
        provide_ffmpeg()
        stop_in_one_line()
        progress_in_logs()
        check_devices()
    for message, category, module in NERFSTUDIO_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)
    previous_hook = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sentence = None if os.environ.get(TRACEBACK_VARIABLE) == "1" else error_sentence(error, trace)
        if sentence is None:
            previous_hook(kind, error, trace)
        else:
            print(sentence, file=sys.stderr, flush=True)

    sys.excepthook = hook
