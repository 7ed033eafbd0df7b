"""`semfield view RUN`: a trained run in the browser, for this machine alone."""

import errno
import socket
import time
import webbrowser
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import tyro

from semfield_ns.cli.progress import lines
from semfield_ns.compat.viser import unreachable_viser
from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import run_config

HOST = "127.0.0.1"
FIRST_PORT = 7007
"""Nerfstudio's; the next free one if it is taken"""
PORTS = 100


def view(
    run: Annotated[Path, tyro.conf.Positional],
    time: float | None = None,
    camera: str | None = None,
    port: int | None = None,
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Show a trained run in the browser.

    The viewer is Nerfstudio's, and only this machine can reach it. Ctrl-C ends it.

    Args:
        run: Folder of a trained run, or its config.yml.
        time: Moment to start at, from 0 (first frame) to 1 (last frame).
        camera: Training camera to start at: its number, from 0, or the name of its image.
        port: Port to listen on; by default 7007, or the next free one.
        open: Open the page in the browser.
    """
    if time is not None and not 0 <= time <= 1:
        raise SemfieldError(f"--time is a moment from 0 (first frame) to 1 (last frame), not {time:g}.")
    chosen_port = free_port() if port is None else required_port(port)
    print(f"Opening {run}", flush=True)
    with lines("Opening the run"):
        config, pipeline, step = _open(run)
    index = None if camera is None else camera_index(camera, pipeline.datamanager.train_dataset.image_filenames)
    from semfield_ns.viewer.first_view import FirstView, choose

    choose(FirstView(camera=index, time=time))
    address = start_viewer(run, config, pipeline, step, chosen_port)
    print(f"The viewer is at {address} (Ctrl-C ends it)", flush=True)
    if open:
        webbrowser.open(address)
    wait()


def _open(run: Path) -> tuple[Any, Any, int]:
    """Configuration, pipeline and step of a run, with its pictures."""
    from nerfstudio.utils.eval_utils import eval_setup

    config, pipeline, _, step = eval_setup(run, test_mode="test")
    return config, pipeline, step


def required_port(port: int) -> int:
    """The port, if it can be listened on.

    Raises:
        SemfieldError: it cannot.
    """
    if not 0 < port < 65536:
        raise SemfieldError(f"--port is a number from 1 to 65535, not {port}.")
    try:
        _listen(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SemfieldError(
                f"Port {port} is in use: choose another --port, or leave it out for one that is free."
            ) from error
        raise SemfieldError(f"Port {port} cannot be used ({error.strerror}): choose another --port.") from error
    return port


def free_port() -> int:
    """The first free port from Nerfstudio's on.

    Raises:
        SemfieldError: there is none nearby.
    """
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        try:
            _listen(port)
        except OSError:
            continue
        return port
    raise SemfieldError(f"The ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are in use: choose another with --port.")


def _listen(port: int) -> None:
    """Raises OSError where a server could not listen. viser would silently take another port."""
    with socket.socket() as probe:
        # As servers do: a port is free although connections of the last one linger.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))


def camera_index(name: str, images: list[Path]) -> int:
    """The place of a training camera.

    Args:
        name: a number, or the name of an image, with or without folders and suffix.
        images: of the training cameras.

    Raises:
        SemfieldError: there is no such camera, or several.
    """
    wanted = Path(name).parts
    paths = [Path(image) for image in images]
    found = [
        index
        for index, path in enumerate(paths)
        if wanted in (path.parts[-len(wanted) :], path.with_suffix("").parts[-len(wanted) :])
    ]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(str(Path(*paths[index].parts[-2:])) for index in found[:4])
        raise SemfieldError(f"{len(found)} training cameras are called {name!r}: name the folder too, as in {several}.")
    if name.isdecimal() and int(name) < len(paths):
        return int(name)
    raise SemfieldError(
        f"There is no training camera {name!r}: give a number from 0 to {len(paths) - 1}, or the name of an image, "
        f"such as {paths[0].stem}."
    )


def start_viewer(run: Path, config: Any, pipeline: Any, step: int, port: int) -> str:
    """Starts Nerfstudio's viewer on a run, as ns-viewer does; returns its address, which pages reach from then on."""
    from nerfstudio.configs.base_config import ViewerConfig
    from nerfstudio.utils import writer
    from nerfstudio.viewer.viewer import Viewer

    settings = ViewerConfig(
        websocket_host=HOST, websocket_port=port, num_rays_per_chunk=config.viewer.num_rays_per_chunk
    )
    data = pipeline.datamanager
    with unreachable_viser():
        viewer = Viewer(
            settings,
            log_filename=run_config(run).parent / settings.relative_log_filename,
            datapath=data.get_datapath(),
            pipeline=pipeline,
            train_lock=Lock(),
        )
        # Nothing is logged, but the viewer reads the writer's buffer.
        config.logging.local_writer.enable = False
        writer.setup_local_writer(config.logging, max_iter=config.max_num_iterations)
        viewer.init_scene(train_dataset=data.train_dataset, train_state="completed", eval_dataset=data.eval_dataset)
        viewer.update_scene(step=step)
    return f"http://{HOST}:{viewer.viser_server.get_port()}"


def wait() -> None:
    """Until Ctrl-C."""
    while True:
        time.sleep(3600)
