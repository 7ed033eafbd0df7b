"""How many pictures a second the viewer's server makes of moving Gaussians while a camera moves, on this machine.

    python benchmarks/viewer_rate.py [--load-config RUN/config.yml] [--gaussians 50000] [--seconds 10] [--profile]

Nerfstudio's viewer runs in this process, and a played browser sends a new camera 60 times a second. A picture counts
when it was handed to the connection, so its time has everything that the server does for it: Nerfstudio's thread that
takes the newest camera, the render of 504x378 pixels, colours, and depth for what it hides, the JPEG and the depth's
PNG. What is left out is the browser. Nerfstudio makes pictures smaller while a camera moves, until it gets 30 a second
without their encoding; here they keep their size. Without a run: Gaussians on the surfaces of the demo
scene.
"""

import cProfile
import pstats
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from training import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semfield_ns.gaussians.harmonics import CONSTANT
from semfield_ns.method_configs.semantic_flow_splat import semantic_flow_splat_tiny
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow_splat.start import Start
from semfield_ns.sessions.masks import open_run
from semfield_ns.viewer.machine import LiveMachine
from tests.viewer.played import Browser, Served, ball_pipeline, wait_for

SIZE = (504, 378)


def beginning(folder: Path, gaussians: int) -> Any:
    """A pipeline of the demo scene with so many Gaussians, before its training.

    The start is that of small pictures, each Gaussian of which becomes several smaller ones around it.
    """
    scene = write_scene("demo", folder / "scene", num_frames=8, width=64, height=48, samples_per_axis=1)
    config = semantic_flow_splat_tiny.config.pipeline
    config.datamanager.data = scene
    pipeline: Any = config.setup(device="cpu", test_mode="val")
    few = pipeline.model.gaussians
    still, count = few.num_still, len(few)
    parts = torch.arange(gaussians).mul(count).div(gaussians, rounding_mode="floor")
    spacing = few.scales.exp()[parts, 0]
    apart = torch.randn(gaussians, 3, generator=torch.Generator().manual_seed(0)) * spacing[:, None]
    moving = parts[parts >= still] - still
    few.begin(
        Start(
            few.still[parts[parts < still]] + apart[parts < still],
            few.tracks[moving] + apart[parts >= still, None],
            torch.ones(len(moving), few.num_steps, dtype=torch.bool),
            few.colors[parts] * CONSTANT + 0.5,
            spacing / (gaussians / count) ** 0.5,
        )
    )
    few.logits.data = torch.randn(few.logits.shape)
    return pipeline


class Counted:
    """The pictures that were sent: when, in how many seconds, and their sizes; of threads that may be profiled."""

    def __init__(self, profiler: cProfile.Profile | None) -> None:
        self.sent: list[tuple[float, float, tuple[int, ...]]] = []
        begun = threading.local()
        render, send = LiveMachine._render_img, RenderStateMachine._send_output_to_viewer

        def timed_render(machine: Any, state: Any, seconds: float) -> Any:
            begun.at = time.perf_counter()
            if profiler is not None:
                profiler.enable()
            return render(machine, state, seconds)

        def timed_send(machine: Any, outputs: Any, static_render: bool = True) -> None:
            send(machine, outputs, static_render)
            if profiler is not None:
                profiler.disable()
            now = time.perf_counter()
            self.sent.append((now, now - begun.at, tuple(outputs["rgb"].shape[1::-1])))

        def whole(machine: Any, aspect: float) -> tuple[int, int]:
            return SIZE[1], SIZE[0]

        LiveMachine._render_img = timed_render  # type: ignore[method-assign]
        RenderStateMachine._send_output_to_viewer = timed_send  # type: ignore[method-assign]
        RenderStateMachine._calculate_image_res = whole  # type: ignore[method-assign]


def poses(start: np.ndarray) -> Any:
    """Cameras [3, 4] to the left and to the right of one, again and again."""
    number = 0
    while True:
        pose = start.copy()
        pose[:, 3] += 0.1 * np.sin(number / 20) * pose[:, 0]
        number += 1
        yield pose


def main(
    load_config: Path | None = None, gaussians: int = 50_000, seconds: float = 10.0, profile: bool = False
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pipeline = beginning(Path(folder), gaussians) if load_config is None else open_run(load_config)[1]
        pipeline.model.eval()
        profiler = cProfile.Profile() if profile else None
        counted = Counted(profiler)
        served = Served(Path(folder), ball_pipeline(pipeline.model), max_res=SIZE[0])
        camera = pipeline.datamanager.train_dataset.cameras[0]
        browser = Browser(served)
        looks = poses(camera.camera_to_worlds.numpy().astype(np.float64))
        wait_for(lambda: len(counted.sent) > 2)
        for depth in (True, False):
            served.viewer.control_panel._layer_depth.value = depth
            begin, processor = time.perf_counter() + 2, 0.0  # what is compiled or cached comes before
            while time.perf_counter() < begin + seconds:
                browser.look_from(next(looks))
                time.sleep(1 / 60)
                if time.perf_counter() < begin:
                    processor = time.process_time()
            end, processor = time.perf_counter(), time.process_time() - processor
            taken = [took for at, took, size in counted.sent if begin < at < end and size == SIZE]
            print(
                f"{len(pipeline.model.gaussians):,} Gaussians, {SIZE[0]}x{SIZE[1]}, depth {'on' if depth else 'off'}: "
                f"{len(taken) / (end - begin):.1f} pictures a second; one takes {1e3 * np.median(taken):.0f} ms "
                f"(median), {1e3 * processor / len(taken):.0f} ms of processor time",
                flush=True,
            )
        served.stop()
        if profiler is not None:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    print(f"\n{machine()}")


if __name__ == "__main__":
    tyro.cli(main)
