"""A command over a list of inputs, of which each of several jobs takes a share."""

from collections.abc import Callable
from pathlib import Path

from semfield_ns.errors import SemfieldError


def is_list(source: Path) -> bool:
    """Whether a path is that of a list of inputs."""
    return source.suffix == ".txt"


def read_list(path: Path) -> dict[str, Path]:
    """Inputs by name: a path in each line, absolute or from the folder of the list; empty lines and # lines are none.

    Raises:
        SemfieldError: two inputs have the same name, or there is none.
    """
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    found: dict[str, Path] = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        source = path.parent / line
        if source.stem in found:
            raise SemfieldError(f"{path}: {line} and {found[source.stem]} have the same name: rename one of them.")
        found[source.stem] = source
    if not found:
        raise SemfieldError(f"{path} names no input: write the path of a video or a folder of images in each line.")
    return found


def share_of(inputs: dict[str, Path], shard: str) -> dict[str, Path]:
    """Every N-th input from the I-th, for the shard "I/N".

    Raises:
        SemfieldError: it is not written like this, or I is not in 1 to N.
    """
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise SemfieldError(f"--shard {shard}: write I/N with I from 1 to N, such as 2/10 for the second of ten jobs.")
    return dict(list(inputs.items())[int(number) - 1 :: int(count)])


def run_share(inputs: dict[str, Path], run: Callable[[str, Path], None]) -> None:
    """Runs a command for one input after the other; one that fails does not keep the others from being done.

    Raises:
        SemfieldError: some failed.
    """
    failed = {}
    for number, (name, source) in enumerate(inputs.items(), start=1):
        print(f"{number} of {len(inputs)}: {source}", flush=True)
        try:
            run(name, source)
        except SemfieldError as error:
            failed[name] = str(error)
            print(error, flush=True)
    if failed:
        names = ", ".join(list(failed)[:5]) + (", ..." if len(failed) > 5 else "")
        raise SemfieldError(f"{len(failed)} of {len(inputs)} inputs failed ({names}): above is why.")
