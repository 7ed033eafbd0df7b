"""Which kind of model does a step: learned ones where their weights are at hand, classical ones that need none.

Nothing is downloaded here: weights are looked for in the caches of transformers and torch, or in the folder given.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from semfield_ns.errors import SemfieldError

Choice = Literal["auto", "classical", "learned"]
T = TypeVar("T")


class WeightsAbsent(SemfieldError):
    """A learned model is not available here: its weights, or the package that runs it, are missing."""


@dataclass(frozen=True)
class ModelCard:
    """What made a result, for the log and the report."""

    step: str
    name: str
    revision: str
    licence: str
    note: str = ""
    """why not the learned one, if so"""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """One line of the log."""
        text = f"{self.step}: {self.name} ({self.revision}, {self.licence})"
        return f"{text}. {self.note}" if self.note else text


def choose(choice: Choice, what: str, learned: Callable[[], T], classical: Callable[[], T]) -> tuple[T, str]:
    """The tool of a step, and one line that says why if `auto` had to fall back.

    Raises WeightsAbsent if `learned` is asked for and is not available.
    """
    if choice == "classical":
        return classical(), ""
    try:
        return learned(), ""
    except WeightsAbsent as absent:
        if choice == "learned":
            raise
        return classical(), f"The learned {what} is not at hand: {absent}"


def from_local(load: Callable[[str], T], name: str, licence: str, option: str) -> tuple[T, str]:
    """Run a loader of transformers on a local folder of weights.

    Args:
        load: given the folder. It is never given a name: transformers asks the network about some files even if told
            not to, and without a network waits for minutes.
        name: of the weights on the hub, if they are in its cache; or a folder.
        licence: of the weights.
        option: the command's option that names them.
    Returns: what was loaded, and its revision.
    Raises: WeightsAbsent naming the weights and the option that says where they are.
    """
    try:
        folder, revision = _local_folder(name)
        return load(folder), revision
    except ImportError as error:
        raise WeightsAbsent(
            f"{name} needs the package {error.name or 'transformers'}: pip install 'semfield-ns[process]'."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsAbsent(
            f"the weights of {name} ({licence}) are not in the local cache: download them with `hf download {name}`, "
            f"or name their folder with {option}."
        ) from error


def _local_folder(name: str) -> tuple[str, str]:
    """Folder and revision of weights; an OSError where they are not on this machine."""
    if Path(name).is_dir():
        return name, "local folder"
    from huggingface_hub import snapshot_download

    folder = snapshot_download(name, local_files_only=True)
    return folder, Path(folder).name[:12]
