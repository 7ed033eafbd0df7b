"""`semfield view` as a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from semfield_ns.cli.view import FIRST_PORT, camera_index, free_port, required_port, view
from semfield_ns.errors import SemfieldError
from tests.runs import COMMANDS
from tests.runs import free_port as some_port

IMAGES = [Path("scene/left/000.png"), Path("scene/left/001.png"), Path("scene/right/001.png")]


@pytest.mark.parametrize(
    "name, index", [("0", 0), ("2", 2), ("000", 0), ("000.png", 0), ("left/001", 1), ("right/001.png", 2)]
)
def test_a_camera_has_a_number_and_a_name(name, index):
    assert camera_index(name, IMAGES) == index


def test_cameras_that_there_are_not(tmp_path):
    with pytest.raises(SemfieldError, match=r"2 training cameras are called '001': .* left/001.png, right/001.png"):
        camera_index("001", IMAGES)
    for name in ("3", "-1", "002.png", "000.jpg"):
        with pytest.raises(SemfieldError, match=rf"no training camera '{name}': give a number from 0 to 2, .* as 000"):
            camera_index(name, IMAGES)
    with pytest.raises(SemfieldError, match=r"^--time is a moment from 0"):
        view(tmp_path, time=1.5)


def test_a_port_that_is_taken_is_said_or_passed_over(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(SemfieldError, match=f"^Port {port} is in use: choose another --port"):
            required_port(port)
        monkeypatch.setattr("semfield_ns.cli.view.FIRST_PORT", port)
        assert free_port() > port
    assert required_port(port) == port
    with pytest.raises(SemfieldError, match="from 1 to 65535"):
        required_port(70000)


def test_a_port_in_use_is_said_before_anything_is_read(tmp_path):
    (tmp_path / "config.yml").write_text("no run at all")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = str(server.getsockname()[1])
        command = [sys.executable, "-m", "semfield_ns.cli", "view", str(tmp_path), "--port", port]
        result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert (
        result.stderr.strip() == f"Port {port} is in use: choose another --port, or leave it out for one that is free."
    )


@pytest.mark.slow
def test_a_run_is_shown_to_this_machine_alone_until_ctrl_c(trained_run, tmp_path):
    browser, opened, port = tmp_path / "browser", tmp_path / "opened", some_port()
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    command = [str(COMMANDS / "semfield"), "view", str(trained_run.parents[1]), "--port", str(port), "--open"]
    command += ["--time", "0.5", "--camera", "3"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "BROWSER": f"{browser} %s"}
    log = tmp_path / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment,
            # A shell that starts commands in the background tells them to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        deadline = time.monotonic() + 240
        while not (found := re.search(r"The viewer is at (\S+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert found[1] == f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(found[1]) as page:
            assert b"<html" in page.read()
        while not (opened.exists() and opened.read_text().strip() == found[1]):  # a process of its own
            assert process.poll() is None and time.monotonic() < deadline, "no browser is opened"
            time.sleep(0.2)
        # Every 127.x.y.z is this machine: a server of all addresses would answer here as well.
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), timeout=2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert log.read_text().splitlines()[-1] == "Stopped." and "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_the_port_is_that_of_nerfstudio():
    from nerfstudio.configs.base_config import ViewerConfig

    assert ViewerConfig().websocket_port_default == FIRST_PORT
