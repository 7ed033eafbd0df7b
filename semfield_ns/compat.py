"""Everything private to, or broken in, the libraries below us, in one place.

Importing this module costs nothing: torch, torchmetrics and the rest are imported by the functions that need them.
"""

import difflib
import errno
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import NO_CONFIG, checkpoint_folder, find_scene, run_config

if TYPE_CHECKING:
    from tarfile import TarFile

    import torch
    from viser.infra import WebsockMessageHandler

logger = logging.getLogger("semfield")

TRACEBACK_VARIABLE = "SEMFIELD_TRACEBACK"
"""Set this environment variable to 1 to see the traceback of a `SemfieldError`."""

_NOT_WRITTEN = (errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ENOSPC, errno.ENOTDIR, errno.EROFS)

DOWNLOAD_TIMEOUT_SECONDS = 10.0
INTERRUPTED = 130
"""exit code of a program that ends by Ctrl-C"""
LINE_SECONDS = 30.0
"""between two lines about long work, where there is no terminal"""
WORTH_SAVING_SECONDS = 60.0
"""of training, from which on Ctrl-C saves a checkpoint"""

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


@cache
def save_when_stopped() -> None:
    """Lets Ctrl-C during a training of ours that has run for more than a minute save a checkpoint."""
    from nerfstudio.engine.trainer import Trainer

    train = Trainer.train

    def stoppable(self: Any) -> None:
        begun = time.monotonic()
        try:
            train(self)
        except (Interrupted, KeyboardInterrupt):
            step = getattr(self, "step", None)
            long = time.monotonic() - begun > WORTH_SAVING_SECONDS
            if step is not None and long and _is_ours(self.pipeline):
                if not (self.checkpoint_dir / f"step-{step:09d}.ckpt").exists():
                    self.save_checkpoint(step)
                print(f"To go on: --load-dir {self.checkpoint_dir}", file=sys.stderr, flush=True)
            raise

    Trainer.train = stoppable  # type: ignore[method-assign]


def check_devices() -> None:
    """Lets a training of ours on more GPUs than there are end with a sentence; the processes would wait for each other.

    Nerfstudio starts a process for each, with the training's config among its arguments.
    """
    import torch
    from torch import multiprocessing as processes

    spawn = processes.spawn

    def checked(function: Callable, args: tuple = (), *more: Any, **settings: Any) -> Any:
        ours = [argument for argument in args if _is_ours(getattr(argument, "pipeline", None))]
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


@cache
def open_moved_runs() -> None:
    """Lets whoever opens a run by its config.yml find checkpoints and scenes that were moved with it.

    Nerfstudio's `eval_setup`, which all its commands call, looks from the folder that training was started in.
    """
    from nerfstudio.configs.experiment_config import ExperimentConfig

    named = ExperimentConfig.get_checkpoint_dir

    def get_checkpoint_dir(self: ExperimentConfig) -> Path:
        frames = (frame for frame, _ in traceback.walk_stack(None))
        caller = next((frame for frame in frames if frame.f_code.co_name == "eval_setup"), None)
        own = named(self)
        if caller is None or not _is_ours(getattr(self, "pipeline", None)):
            return own
        config: Path = caller.f_locals["config_path"]
        find_scene(self, config)
        return checkpoint_folder(own, config)

    ExperimentConfig.get_checkpoint_dir = get_checkpoint_dir  # type: ignore[method-assign]


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


def error_sentence(error: BaseException, trace: TracebackType | None = None) -> str | None:
    """What to tell a user about an uncaught error, or None when it is not one meant for users."""
    # Errors of data loader workers and of spawned processes carry the worker's traceback in their message.
    text = str(error)
    from_worker = re.search(r"\n\S*SemfieldError: (.+)\s*\Z", text, re.DOTALL)
    if from_worker:
        return from_worker.group(1).strip()
    if isinstance(error, SemfieldError):
        return text
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    known = (_unreadable_config, _unreadable_checkpoint, _unreadable_camera_path, _missing_gpu, _unwritable)
    return next((sentence for tell in known if (sentence := tell(error, frames))), None)


def _unreadable_config(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a config.yml that Nerfstudio cannot read (whose method nobody knows then), else None."""
    setups = [frame for frame in frames if frame.f_code.co_name == "eval_setup"]
    if not setups:
        return None
    values = setups[0].f_locals
    # Nerfstudio asserts that what it read is a configuration; later errors are those of the run.
    no_configuration = frames[-1] is setups[0] and isinstance(error, AssertionError) and "pipeline" not in values
    if frames[-1] is setups[0] and isinstance(error, KeyError):
        return f"{values['config_path']} is of the method {error}, which is not installed: install its package."
    if "config" in values and not no_configuration:
        return None
    path: Path = values["config_path"]
    if not path.is_file():
        try:
            return f"{path} is a folder: give the config.yml of the run, {run_config(path)}."
        except SemfieldError as unknown:
            return str(unknown)
    return f"{path} {NO_CONFIG}"


def _unreadable_checkpoint(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a checkpoint of ours that Nerfstudio does not find or `torch.load` cannot read, else None."""
    names = ("eval_load_checkpoint", "_load_checkpoint", "_read_checkpoint")
    loaders = [frame for frame in frames if frame.f_code.co_name in names]
    if not loaders:
        return None
    values = loaders[0].f_locals
    # A function of (config, pipeline) where a run is opened; a method of the trainer when one is resumed or adapted.
    # Then there may be no pipeline yet.
    owner = values.get("self")
    config = values.get("config", getattr(owner, "config", None))
    pipeline = values.get("pipeline") or getattr(owner, "pipeline", None) or getattr(config, "pipeline", None)
    if not _is_ours(pipeline):
        return None
    path: Path | None = values.get("load_path") or getattr(config, "load_checkpoint", None)
    in_torch_load = any(frame.f_globals.get("__name__") == "torch.serialization" for frame in frames)
    # Nerfstudio asserts that the file exists, and takes the last of a listing that may be empty or fail.
    # So do the names of the files in it, which are to have numbers.
    in_loader = frames[-1] in loaders or frames[-1].f_code.co_name == "<genexpr>"
    in_loader = in_loader and isinstance(error, AssertionError | IndexError | ValueError | OSError)
    wrong = _wrong_checkpoint_path(path, getattr(config, "load_dir", None)) if in_loader or in_torch_load else None
    if wrong is not None:
        return wrong
    if in_loader or (in_torch_load and isinstance(error, FileNotFoundError)):
        place = path or f"in {getattr(config, 'load_dir', None)}"
        return f"There is no checkpoint {place}: train until the first one is saved."
    if (
        path is not None
        and path.is_file()
        and (path.suffix != ".ckpt" or (frames[-1] in loaders and isinstance(error, KeyError | TypeError)))
    ):
        return f"{path} is not a checkpoint of Nerfstudio: give a .ckpt file that ns-train saved."
    if in_torch_load and isinstance(error, RuntimeError | EOFError | OSError | KeyError | pickle.UnpicklingError):
        return f"Cannot read the checkpoint {path}: it is damaged or incomplete; delete it and use an older one."
    return None


def _wrong_checkpoint_path(checkpoint: Path | None, folder: Path | None) -> str | None:
    """A sentence for options that name a folder where a file is wanted, or the other way round, or nothing at all."""
    if folder is not None and folder.is_file():
        return f"{folder} is a file: give the folder that it is in as --load-dir, or the file as --load-checkpoint."
    if folder is not None and not folder.exists():
        return f"There is no folder {folder} of checkpoints{_meant(folder) or '.'}"
    if folder is not None and not any(folder.glob("step-*.ckpt")):
        below = next(iter(sorted(folder.glob("**/step-*.ckpt"))), None)
        hint = f": give {below.parent}" if below else ": train until the first one is saved"
        return f"There is no checkpoint in {folder}{hint}."
    if checkpoint is not None and checkpoint.is_dir():
        newest = next(iter(sorted(checkpoint.glob("**/step-*.ckpt"), reverse=True)), None)
        hint = f"give a checkpoint in it, such as {newest}" if newest else "give a checkpoint, which is a .ckpt file"
        return f"{checkpoint} is a folder: {hint}."
    if checkpoint is not None and not checkpoint.exists() and (meant := _meant(checkpoint)):
        return f"There is no checkpoint {checkpoint}{meant}"
    return None


def _meant(path: Path) -> str:
    """The path with the nearest name, as a question; nothing if none is near."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f": did you mean {path.parent / near[0]}?" if near else ""


def _unreadable_camera_path(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a camera path that `ns-render` cannot read for a run of ours, else None."""
    for frame in frames:
        path: Path | None = getattr(frame.f_locals.get("self"), "camera_path_filename", None)
        if path is None or not _is_ours(frame.f_locals.get("pipeline")):
            continue
        rendering = any(later.f_code.co_name == "_render_trajectory_video" for later in frames)
        if not rendering and isinstance(
            error, OSError | ValueError | LookupError | TypeError | AttributeError | RuntimeError
        ):
            what = "has no cameras" if isinstance(error, RuntimeError | IndexError) else "is not a camera path"
            return f"{path} {what}: make one in the viewer or with semfield camera-path."
    return None


def _missing_gpu(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a training of ours on a machine without a GPU, where Nerfstudio expects one, else None."""
    configs = [frame.f_locals.get("config") for frame in frames if frame.f_code.co_name == "train_loop"]
    ours = any(_is_ours(getattr(config, "pipeline", None)) for config in configs)
    if ours and re.search("Found no NVIDIA driver|Torch not compiled with CUDA|No CUDA GPUs are available", str(error)):
        return "No NVIDIA GPU was found: add --machine.device-type cpu to train on the processor."
    if ours and re.search(r"\bmps\b|\bMPS\b", str(error)):
        return (
            "The device mps (of Macs) is not there, or lacks something that is needed: add --machine.device-type cpu."
        )
    return None


def _unwritable(error: BaseException, frames: list[FrameType]) -> str | None:
    """A sentence for a file or folder that one of Nerfstudio's commands cannot write for a run of ours, else None."""
    if not isinstance(error, OSError) or not error.filename or error.errno not in _NOT_WRITTEN:
        return None
    values = [frame.f_locals for frame in frames]
    if any(_is_ours(v.get("pipeline") or getattr(v.get("config"), "pipeline", None)) for v in values):
        return f"Cannot write {error.filename} ({error.strerror}): free some space or choose another folder."
    return None


def _is_ours(pipeline: object) -> bool:
    return any(kind.__module__.partition(".")[0] == "semfield_ns" for kind in type(pipeline).__mro__)


@cache
def allow_nerfstudio_checkpoints() -> None:
    """Let `torch.load(weights_only=True)`, the default since torch 2.6, read what Nerfstudio's trainer saves.

    Its checkpoints hold numpy scalars in the states of the learning-rate schedulers. Numbers only: arrays of Python
    objects stay forbidden. Checkpoints name numpy's module as it was called where they were written.
    """
    import numpy as np
    import torch

    major, minor = torch.__version__.split(".")[:2]
    if (int(major), int(minor)) < (2, 6):
        return
    scalar: Any = np.float64(0.0).__reduce__()[0]
    numbers = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.float16, np.float32, np.float64)
    torch.serialization.add_safe_globals(
        [
            np.dtype,
            *(type(np.dtype(number)) for number in numbers),
            (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar"),
        ]
    )


ImageMetric = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


@cache
def lazy_lpips(device: str = "cpu") -> ImageMetric | None:
    """The LPIPS metric, built at the first call, or None (said once in the log) where its weights are not available.

    Args:
        device: where to compute it.

    Returns:
        A function of two image batches [B, 3, H, W] in [0, 1] that gives a scalar. It is a plain function, so a model
        may keep it without LPIPS getting into its parameters and checkpoints.
    """
    import torch
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            metric = LearnedPerceptualImagePatchSimilarity(normalize=True).to(device)
    # OSError: no network, a full disk; RuntimeError: a damaged download.
    except (OSError, RuntimeError) as error:
        logger.warning("LPIPS is left out: its AlexNet weights are not cached and cannot be downloaded (%s).", error)
        return None
    metric.eval()

    def lpips(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return metric(prediction.to(device).clamp(0.0, 1.0), truth.to(device).clamp(0.0, 1.0))

    return lpips


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """New connections give up after so many seconds: torch.hub downloads without a limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@cache
def repair_viser() -> None:
    """Makes viser 0.2.7 send to pages as it means to, and start sooner; for all servers of this process.

    - viser keeps the lock of `atomic` (messages sent in it arrive together) for good when something raises in the
      block, and then no page gets a message any more. It also notes that no thread has the lock only after giving it
      back, when another thread may have it already, which then waits for itself.
    - viser goes through the archive of all its icons for each of them, half a second each: it is opened once.
    - Two tasks write to a page: what is for all pages, and what is for this one. The old interface of websockets, which
      viser uses, allows only one to wait until a slow page has read: the other fails, and the page freezes.
    """
    import asyncio
    from weakref import WeakKeyDictionary

    from viser import _gui_api, _gui_handles
    from viser.infra import WebsockMessageHandler
    from websockets.legacy.protocol import WebSocketCommonProtocol

    WebsockMessageHandler.atomic = _atomic  # type: ignore[assignment]
    _gui_api.svg_from_icon = _gui_handles.svg_from_icon = _icon
    drain = WebSocketCommonProtocol._drain
    turns: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

    async def one_after_the_other(connection: WebSocketCommonProtocol) -> None:
        async with turns.setdefault(connection, asyncio.Lock()):
            await drain(connection)

    WebSocketCommonProtocol._drain = one_after_the_other  # type: ignore[assignment]


@cache
def _icon(name: str) -> str:
    file = _icons().extractfile(f"{name}.svg")
    assert file is not None, f"viser has no icon {name}"
    return file.read().decode("utf-8")


@cache
def _icons() -> "TarFile":
    import tarfile

    from viser._icons import ICONS_DIR

    return tarfile.open(ICONS_DIR / "tabler-icons.tar")


@contextmanager
def _atomic(handler: "WebsockMessageHandler") -> Iterator[None]:
    thread = threading.get_ident()
    if handler._locked_thread_id == thread:
        yield
        return
    with handler._atomic_lock:
        handler._locked_thread_id = thread
        try:
            yield
        finally:
            handler._locked_thread_id = -1


@contextmanager
def unreachable_viser() -> Iterator[None]:
    """A viser server that is made in this block has its port, and pages reach it when the block has ended.

    A page that comes while there is half of what it is to show looks the wrong way, or stays empty.
    """
    import asyncio
    from importlib import import_module

    server: Any = import_module("websockets.server")
    serve, made = server.serve, []

    def later(*args: Any, **options: Any) -> Any:
        made.append(serve(*args, start_serving=False, **options))
        return made[-1]

    server.serve = later
    try:
        yield
    finally:
        server.serve = serve
    listening = made[-1].ws_server  # those before did not get their ports
    asyncio.run_coroutine_threadsafe(listening.start_serving(), listening.get_loop()).result()


def relabel(handle: Any, label: str) -> None:
    """Another label of an element of a page, which viser 0.2.7 has no call for."""
    from viser._messages import GuiUpdateMessage

    element = handle._impl
    element.gui_api._websock_interface.queue_message(GuiUpdateMessage(element.id, {"label": label}))


def forget_node(node: Any) -> None:
    """Removes a node from a scene of viser's, and what the server keeps of it for pages to come.

    viser 0.2.7 keeps all of it for good: a page that is opened later would get the node, and be told to remove it.
    """
    from viser._messages import RemoveSceneNodeMessage

    name, scene = node._impl.name, node._impl.api
    node.remove()
    scene._handle_from_node_name.pop(name, None)
    buffer = getattr(scene._websock_interface, "_broadcast_buffer", None)
    if buffer is None:  # the scene of one page, for which nothing is kept
        return
    with buffer.buffer_lock:
        for number, message in list(buffer.message_from_id.items()):
            # Pages that have it are to be told.
            if getattr(message, "name", None) == name and not isinstance(message, RemoveSceneNodeMessage):
                del buffer.message_from_id[number]
                buffer.id_from_redundancy_key.pop(message.redundancy_key(), None)
