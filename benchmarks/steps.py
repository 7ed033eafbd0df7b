"""What a training step asks of a GPU, counted on a machine without one: kernels, and waits of the host.

    python benchmarks/steps.py                                  # all presets, both stages
    python benchmarks/steps.py --presets gsn --results counts.json

Trains on a simulated device (`benchmarks/simulated.py`): a few rays of a small scene, since neither number depends on
how many there are. Kernels of the forward and the backward pass and of the optimizer count; views do not, and neither
do the rasteriser's own. Prints a Markdown table, and below it where the host waits.
"""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import simulated
import torch
import tyro
from presets import CONFIGS, prepared, trained_step

from semfield_ns.gaussians import backends, cpu
from semfield_ns.scenes.synthetic import write_scene

PRESETS = ("semantic-flow", "semantic-flow-tiny", "semantic-flow-splat", "semantic-flow-splat-tiny", "gsn", "gsn-tiny")


class _Here(torch.autograd.Function):
    """From the device to the CPU, uncounted; gradients go back."""

    @staticmethod
    def forward(ctx: Any, tensor: Any) -> torch.Tensor:
        return tensor.value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return simulated.Simulated(gradient)


class _There(torch.autograd.Function):
    """The other way."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return simulated.Simulated(tensor.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> torch.Tensor:
        return gradient.value


def _changed(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, kind) and (kind is simulated.Simulated or not isinstance(value, simulated.Simulated)):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(part, kind, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _changed(getattr(value, f.name), kind, change) for f in fields(value)})
    return value


class Rasteriser:
    """That of the CPU, for tensors on the device."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """One of its functions."""

        def called(*args: Any) -> Any:
            found = getattr(cpu, name)(*_changed(args, simulated.Simulated, _Here.apply))
            return _changed(found, torch.Tensor, _There.apply)

        return called


def small(preset: str) -> None:
    """Makes a preset as small as counts allow."""
    config = CONFIGS[preset].pipeline
    manager, model = config.datamanager, config.model
    manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = 64
    if preset.startswith("gsn"):
        return
    manager.encoder, manager.evidence_encoders = "classical", ()
    if "splat" in preset:
        model.max_gaussians = 400
    else:
        model.static_encoding.hash_size = 8


def counts(preset: str, folder: Path) -> list[dict[str, Any]]:
    """A row for each stage."""
    small(preset)
    pipeline, config = prepared(preset, folder, str(simulated.DEVICE), "classical")
    pipeline.train()
    step = trained_step(pipeline, config, False, "cpu")
    second = getattr(config.pipeline.model, "stage_one_steps", None)
    rows = []
    for stage, first in enumerate((21,) if second is None else (21, second + 21), start=1):
        for number in range(first, first + 3):  # what is made once, and both kinds of proposal steps
            step(number)
        simulated.reset()
        step(first + 3)
        row = {"kernels": sum(simulated.kernels.values()), "waits": sum(simulated.waits.values())}
        where = dict(simulated.waits)
        rows.append({"preset": preset, "stage": stage, **row, "where": where})
    return rows


def main(presets: tuple[str, ...] = PRESETS, results: Path | None = None) -> None:
    """Count.

    Args:
        presets: Which.
        results: A JSON file for the rows.
    """
    backends.load = lambda backend, device: Rasteriser()  # type: ignore[assignment, return-value]
    with TemporaryDirectory() as temporary:
        folder, rows = Path(temporary), []
        size = {"num_frames": 6, "width": 64, "height": 48}
        write_scene("demo", folder / "demo", **size)
        for number in range(2):
            write_scene("static", folder / "static" / f"{number}", seed=number, **size)
        for preset in presets:
            rows += counts(preset, folder / ("static" if preset.startswith("gsn") else "demo"))
    if results is not None:
        results.write_text(json.dumps(rows))
    print("| preset | stage | kernels | waits |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['preset']} | {row['stage']} | {row['kernels']:,} | {row['waits']} |")
    for row in rows:
        for where, count in row["where"].items():
            print(f"- {row['preset']}, stage {row['stage']}: {count} {where}")


if __name__ == "__main__":
    tyro.cli(main)
