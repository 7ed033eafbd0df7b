"""How long the viewer takes, from what a browser sends to the picture that it gets, on this machine.

    python benchmarks/viewer_latency.py outputs/SCENE/gsn-tiny/attached/config.yml

1. From the last click of a stroke, on a prepared view of 504 by 378 pixels with 64 features: until the new mask is
   there, and until the picture with it and its depth are encoded and handed to the connection.
2. From a new camera position to the first mask, on a run of gsn, with strokes in another view.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from nerfstudio.viewer.render_state_machine import RenderStateMachine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semfield_ns.scene_model import Parts
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.sessions.masks import open_run
from semfield_ns.viewer.live import LiveSegmentation
from tests.viewer.played import BallModel, Browser, Served, ball_pipeline, wait_for

REPEATS = 20


class Pictures:
    """When masks are found, when pictures are sent, and whether they show a mask."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, tuple[int, ...], int, int]] = []
        self.found: list[tuple[float, tuple[int, ...], int]] = []
        self.prompts = 0
        original, segmentation = RenderStateMachine._send_output_to_viewer, LiveSegmentation._segmentation

        def segment(live: Any, view: ViewCamera, *args: Any) -> Any:
            self.prompts = len(live.session.state.prompts)
            found = segmentation(live, view, *args)
            self.found.append((time.perf_counter(), (view.height, view.width), self.prompts))
            return found

        def send(machine: Any, outputs: dict[str, Any], static_render: bool = True) -> None:
            original(machine, outputs, static_render)
            mask = outputs["segmentation"]
            self.sent.append((time.perf_counter(), tuple(mask.shape[:2]), int(mask.sum()), self.prompts))

        LiveSegmentation._segmentation = segment  # type: ignore[method-assign]
        RenderStateMachine._send_output_to_viewer = send  # type: ignore[method-assign]

    def after(self, start: float) -> list[tuple[float, tuple[int, ...], int, int]]:
        return [entry for entry in self.sent if entry[0] > start]

    def rest(self, size: tuple[int, int]) -> None:
        """Waits until the full picture was sent and nothing else comes."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            if self.sent and self.sent[-1][1] == size and time.perf_counter() - self.sent[-1][0] > 1.5:
                return
            time.sleep(0.05)
        raise SystemExit("the viewer does not come to rest")


class WideModel(BallModel):
    """The ball scene with 64 features."""

    def raw_outputs_in_parts(self, camera: Any) -> Parts:
        raw = yield from super().raw_outputs_in_parts(camera)
        mixing = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
        return raw | {"features": F.normalize(raw["features"] @ mixing, dim=-1)}


def stroke_latency(pictures: Pictures, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds from the arrival of the last click to the new mask, and to the sent picture of it, of `REPEATS` each."""
    served = Served(folder, ball_pipeline(WideModel(), includes_time=False), max_res=504)
    browser = Browser(served)
    clicked = served.tools._clicked
    arrived = [0.0]

    def stamped(client: Any, at: Any) -> None:
        arrived[0] = time.perf_counter()
        clicked(client, at)

    served.tools._clicked = stamped
    masks, sent = [], []
    pictures.rest((378, 504))
    # Both render once more by themselves, which is not what is measured.
    served.panel.add_object(None)
    served.panel._show_overlay()
    time.sleep(1)
    for number in range(REPEATS + 2):
        positive = number % 2 == 0
        pictures.rest((378, 504))
        served.press(served.panel.positive if positive else served.panel.negative, browser)
        wait_for(lambda: "first point" in served.said())
        x, y = (0.47 + 0.002 * number, 0.5) if positive else (0.1 + 0.02 * number, 0.15)
        browser.click(x, y)
        wait_for(lambda: "(1 so far)" in served.said())
        pictures.rest((378, 504))
        # A double-click: two clicks at once.
        browser.click(x + 0.03, y)
        wait_for(lambda: "(2 so far)" in served.said())
        browser.click(x + 0.03, y)
        wait_for(lambda n=number: len(served.session.state.prompts) == n + 1)
        wait_for(lambda n=number: [entry for entry in pictures.after(arrived[0]) if entry[3] > n])
        first = next(entry for entry in pictures.after(arrived[0]) if entry[3] > number)
        assert first[1] == (378, 504), first
        sent.append(first[0] - arrived[0])
        mask = next(entry for entry in pictures.found if entry[0] > arrived[0] and entry[2] > number)
        assert mask[1] == (378, 504), mask
        masks.append(mask[0] - arrived[0])
    served.stop()
    return masks[2:], sent[2:]


def first_mask_latency(pictures: Pictures, config: Path, folder: Path) -> list[tuple[float, tuple[int, ...], int]]:
    """Seconds from the arrival of a new camera to the first picture sent, its size, and the pixels of its mask."""
    _, pipeline = open_run(config)
    served = Served(folder, pipeline, max_res=160)
    camera = ViewCamera.of(pipeline.datamanager.train_dataset.cameras, 0)
    browser = Browser(served)
    pose = torch.tensor(camera.camera_to_world).view(3, 4)
    looked = [0.0]

    def look(shift: float) -> None:
        moved = pose.clone()
        moved[:, 3] += shift * pose[:, 0]
        looked[0] = time.perf_counter()
        browser.look_from(moved.numpy())

    look(0.0)
    pictures.rest((120, 160))
    number = served.session.add_object()
    (client,) = served.viewer.viser_server.get_clients().values()
    view = served.page.camera(client)
    served.session.add_stroke(number, view, [(70.0, 60.0), (85.0, 66.0)], width=2.0)
    pictures.rest((120, 160))
    found = []
    for index in range(5):
        look(0.05 * (index + 1))
        wait_for(lambda: pictures.after(looked[0] + 0.01))
        seconds, size, pixels, _ = pictures.after(looked[0] + 0.01)[0]
        found.append((seconds - looked[0], size, pixels))
        pictures.rest((120, 160))
    return found


def main() -> None:
    pictures = Pictures()
    print(f"threads: {torch.get_num_threads()}")
    with tempfile.TemporaryDirectory() as folder:
        for what, seconds in zip(("mask", "sent picture"), stroke_latency(pictures, Path(folder)), strict=True):
            print(
                f"last click to {what}, 504x378, 64 features: median of {len(seconds)} "
                f"{statistics.median(seconds):.3f} s, smallest {min(seconds):.3f}, largest {max(seconds):.3f}",
                flush=True,
            )
        if len(sys.argv) > 1:
            for seconds_, size, pixels in first_mask_latency(pictures, Path(sys.argv[1]), Path(folder)):
                print(f"new camera to first mask: {seconds_:.2f} s, {size[1]}x{size[0]} pixels, {pixels} of the object")


if __name__ == "__main__":
    main()
