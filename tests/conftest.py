import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.arrays import checked

PACKAGE = Path(__file__).resolve().parents[1] / "semfield_ns"
CHECKED = [f"semfield_ns.{path.stem}" for path in PACKAGE.iterdir() if path.stem not in ("gaussians", "__init__")]
"""all packages but one: `gaussians` checks what it is given by itself, and numba cannot compile what is wrapped"""

# Before anything imports the package.
install_import_hook(CHECKED, f"{checked.__module__}.{checked.__name__}")

from semfield_ns.compat.commands import provide_ffmpeg  # noqa: E402
from tests.runs import train_tiny_run  # noqa: E402

_DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real scenes; tests that need them skip where they are not."""
    root = Path(os.environ.get("SEMFIELD_DATA") or _DEFAULT_DATA)
    if not root.is_dir():
        pytest.skip(f"no real scenes at {root}; set SEMFIELD_DATA to their folder")
    return root.resolve()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """config.yml of a small run of semantic-flow-tiny, made by ns-train."""
    return train_tiny_run(tmp_path_factory.mktemp("trained_run"))


@pytest.fixture
def ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the PATH, as our commands find it."""
    monkeypatch.setenv("PATH", os.environ["PATH"])
    provide_ffmpeg()
