"""Where a long video lies during training, and what a step waits for: `python benchmarks/residency.py`.

    python benchmarks/residency.py --frames 240 --width 1008 --height 756 --step-seconds 0.05

The data manager of `semantic-flow` at its default settings, on a machine whose device is simulated: it has some GiB
free, and computes for a fixed time that takes no processor. Printed are where features are, how many windows of
frames were loaded, and what the training loop waited for its rays, beside what one window costs to load.
"""

import statistics
import sys
import tempfile
import threading
import time
from copy import deepcopy
from pathlib import Path

import torch
import tyro
from training import machine

from semfield_ns.method_configs.semantic_flow import semantic_flow
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow import windows
from semfield_ns.semantic_flow.datamanager import SemanticFlowDataManager


class Loads:
    """Seconds that windows took to load, and by which thread."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.blocking = 0

    def watch(self, manager: SemanticFlowDataManager) -> None:
        """Puts itself between the manager and its frames."""
        load = manager._load

        def timed(frames):
            start = time.perf_counter()
            batch = load(frames)
            self.seconds.append(time.perf_counter() - start)
            self.blocking += threading.current_thread() is threading.main_thread()
            return batch

        manager._load = timed  # type: ignore[method-assign]


def main(
    frames: int = 240,
    width: int = 1008,
    height: int = 756,
    steps: int = 200,
    step_seconds: float = 0.05,
    free_gib: float = 24.0,
    scene: Path | None = None,
) -> None:
    """Measure.

    Args:
        frames: of the synthetic video.
        width: px.
        height: px.
        steps: of training.
        step_seconds: that the simulated device computes a step.
        free_gib: memory of the device that is free; 0 for a machine without one.
        scene: where the video is, or is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = scene or Path(folder) / "scene"
        if not (data / "transforms.json").exists():
            write_scene("demo", data, num_frames=frames, width=width, height=height, samples_per_axis=1)
        config = deepcopy(semantic_flow.config.pipeline.datamanager)
        config.data = data
        config.dataparser.labels = "every-4"
        if free_gib:
            windows.free_bytes = lambda _: int(free_gib * 2**30)
        torch.manual_seed(0)
        loads = Loads()

        class Watched(SemanticFlowDataManager):
            def setup_train(self) -> None:
                loads.watch(self)
                super().setup_train()

        config._target = Watched
        manager = config.setup(device="cpu", test_mode="test", world_size=1, local_rank=0)
        metadata = manager.train_dataset.metadata
        features, colors = metadata["source_features"], metadata["source_colors"]
        size = sum(tensor.numel() * tensor.element_size() for tensor in (features, colors)) / 2**30
        print(
            f"{len(manager.train_dataset)} frames of {width}x{height}; {features.shape[-1]} channels, colours: "
            f"{size:.2f} GiB, {'on disk' if metadata['on_disk'] else 'on the device'}; "
            f"{manager.config.train_num_images_to_sample_from} frames in a window"
        )
        waits, seen = [], set()
        for step in range(steps):
            start = time.perf_counter()
            _, batch = manager.next_train(step)
            waits.append(1000 * (time.perf_counter() - start))
            seen |= set(batch["indices"][:, 0].tolist())
            time.sleep(step_seconds)
        if not loads.seconds:
            sys.exit("The whole video fits into the host's budget: nothing to measure; try --frames 240.")
        print("| windows loaded | seconds each | by the training loop | frames seen | wait, ms: median | 95 % | most |")
        print("|---|---|---|---|---|---|---|")
        print(
            f"| {len(loads.seconds)} | {statistics.mean(loads.seconds):.2f} | {loads.blocking} | {len(seen)} "
            f"| {statistics.median(waits):.1f} | {sorted(waits)[int(0.95 * steps)]:.1f} | {max(waits[1:]):.1f} |"
        )
        print(machine())


if __name__ == "__main__":
    tyro.cli(main)
