"""Where a page may write. It is anybody's who reaches the viewer, so it gives names, and never paths.

Everything lands in the folder `viewer` of the run.
"""

import unicodedata
from pathlib import Path

from semfield_ns.errors import SemfieldError

FOLDER = "viewer"
MOST_LETTERS = 64
MOST_BYTES = 200
"""of a name: file systems take 255, and some of it is for what is written beside the file at first"""
FORBIDDEN = frozenset('/\\:*?"<>|')
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(10))})
"""names that are devices on Windows, whatever follows after a dot"""


def checked_name(name: str) -> str:
    """A name that a browser sent, if it is fit for a file.

    Raises:
        SemfieldError: it is empty, too long, or could be anything else than the name of an ordinary file.
    """
    if not name.strip():
        raise SemfieldError("The name is empty: give one, such as segmentation.")
    if len(name) > MOST_LETTERS or len(name.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise SemfieldError(f"The name has {len(name)} letters: give one of at most {MOST_LETTERS}.")
    strange = [c for c in name if c in FORBIDDEN or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    if strange or name[0] in "~.- " or name[-1] in ". " or name.split(".")[0].strip().lower() in RESERVED:
        raise SemfieldError(
            f"'{printable(name)}' is not a plain name. Files of this page go to the folder '{FOLDER}' of the run: give "
            "a name of letters, digits, spaces, dots and underscores, without a path."
        )
    return name


def printable(name: str) -> str:
    """The name with everything that cannot be shown replaced."""
    return "".join(c if c.isprintable() else "?" for c in name)


def place(run: Path, name: str) -> Path:
    """The path of a file or folder of the page; what is above it exists afterwards.

    Args:
        run: folder of the run.
        name: as a browser sent it.

    Raises:
        SemfieldError: the name is not one (see `checked_name`), or a symbolic link leads elsewhere.
        OSError: the folder cannot be made.
    """
    base = run.resolve() / FOLDER
    path = base / checked_name(name)
    if base.is_symlink():
        raise SemfieldError(f"{base} is a symbolic link: files of this page stay in the run; remove the link.")
    found = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    link = next((entry for entry in found if entry.is_symlink()), None)
    if link is not None:
        raise SemfieldError(f"{link} is a symbolic link: files of this page stay in the run; choose another name.")
    base.mkdir(parents=True, exist_ok=True)
    return path


def results_folder(run: Path, name: str) -> Path:
    """The folder of a session and its results.

    Raises:
        SemfieldError: as `place`, or there is a file of that name, or a folder that is not of a session.
    """
    path = place(run, name)
    if path.exists() and not path.is_dir():
        raise SemfieldError(f"{path} is a file: choose another name.")
    if path.is_dir() and any(path.iterdir()) and not (path / "session.json").is_file():
        raise SemfieldError(f"{path} holds something else than a session: choose another name.")
    return path


def edits_file(run: Path, name: str) -> Path:
    """The file of edits.

    Raises:
        SemfieldError: as `place`, or there is something else of that name.
    """
    from semfield_ns.editing.edits import read_edits

    path = place(run, name)
    if path.is_dir():
        raise SemfieldError(f"{path} is a folder: choose another name.")
    if path.exists():
        try:
            read_edits(path)
        except SemfieldError as error:
            raise SemfieldError(f"{path} is not a file of edits, and is left as it is: choose another name.") from error
    return path
