"""Commands that are printed for a user to type next."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from semfield_ns.run_folder import CONFIG


def typed(name: str) -> str:
    """How to call a command of this environment, such as `ns-viewer`: by its path if the PATH does not lead to it."""
    path = Path(sys.executable).parent / name
    if not path.is_file() or shutil.which(name) == str(path):
        return name
    return str(min(path, Path(os.path.relpath(path)), key=lambda way: len(str(way))))


def viewer_line(config: Path) -> str:
    """What opens a run in the browser."""
    run = config.parent if config.name == CONFIG else config
    return f"  {typed('semfield')} view {shlex.quote(str(run))}"
