"""Nerfstudio's vanilla pipeline, with checkpoints that must fit and metrics over whole data sets."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import UInt8
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import Module
from torchvision.utils import save_image

from semfield_ns import parallel
from semfield_ns.compat import runs
from semfield_ns.errors import SemfieldError
from semfield_ns.scene_model import SceneModel
from semfield_ns.sessions.segmenter import Segmenter, segment_model

# Whoever loads one of our methods gets here before any checkpoint is read.
runs.allow_nerfstudio_checkpoints()
runs.open_moved_runs()
runs.save_when_stopped()

INFO_KEY = "_semfield_info"
"""Entry of the state dict with what the model said of itself, as JSON text in a uint8 tensor."""

ATTACHMENTS = "semfield_ns.attachments"
"""Group of entry points that are called with every pipeline, such as the panels of the viewer: what this module does
not have to know."""

KEYS_SHOWN = 3


@runtime_checkable
class DescribesItself(Protocol):
    """A model whose checkpoints say what they were made with."""

    def checkpoint_info(self) -> dict[str, str]:
        """What must be equal for a checkpoint to fit: method version, classes, teacher, feature dim, backend, ..."""


@runtime_checkable
class HasDatasetMetrics(Protocol):
    """A model with metrics that are not means over images, such as the mIoU of a whole data set.

    Between the two calls, `get_image_metrics_and_images` is called once for each image.
    """

    def begin_evaluation(self) -> None:
        """Forget what was accumulated."""

    def end_evaluation(self, output_path: Path | None) -> dict[str, float]:
        """The metrics of all images since `begin_evaluation`, by name; what is not a number goes to `output_path`."""


@dataclass
class SemfieldPipelineConfig(VanillaPipelineConfig):
    """Configuration of the pipeline that all our methods use."""

    _target: type = field(default_factory=lambda: SemfieldPipeline)
    """target class to instantiate"""
    session: Path | None = None
    """A segmentation session whose masks are rendered, as saved in the viewer (see `semfield segment`)."""


class SemfieldPipeline(VanillaPipeline):
    """A pipeline that refuses checkpoints that do not fit, and evaluates data sets as well as images."""

    config: SemfieldPipelineConfig

    def __init__(self, config: SemfieldPipelineConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        model = self.model
        self.segmenter: Segmenter | None = None
        if isinstance(model, SceneModel) and model.can_be_segmented:
            self.segmenter = segment_model(model, config.session)
        self._averaged = parameters_of(model)
        for hook in entry_points(group=ATTACHMENTS):
            hook.load()(self)

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Outputs, losses and metrics of a step; gradients of several processes are averaged."""
        parameters = parameters_of(self.model)
        if self.world_size > 1 and parameters != self._averaged:
            # torch averages the parameters that it was shown: Gaussians that grew, or came with a checkpoint, are
            # others. It forgets the old ones first, whose sizes it would go on to expect.
            self._model = self.model
            self._model = cast(Model, parallel.averaging(self._model))
            self._averaged = parameters
        return super().get_train_loss_dict(step)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The weights, and what the model says of itself under `INFO_KEY`."""
        state = super().state_dict(*args, **kwargs)
        if isinstance(self.model, DescribesItself):
            state[kwargs.get("prefix", "") + INFO_KEY] = encode_info(self.model.checkpoint_info())
        return state

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint completely.

        Args:
            loaded_state: the `pipeline` entry of a checkpoint.
            step: at which it was saved.

        Raises:
            SemfieldError: if it does not fit: Nerfstudio would go on with random weights.
        """
        state = {key.removeprefix("module."): value for key, value in loaded_state.items()}
        info = state.pop(INFO_KEY, None)
        if info is not None and isinstance(self.model, DescribesItself):
            check_info(decode_info(info), self.model.checkpoint_info(), step)
        self.model.update_to_step(step)
        try:
            self.load_state_dict(state, strict=True)
        except RuntimeError as error:
            differences = compare_states(super().state_dict(), state) or str(error)
            method = type(self.model).__name__
            raise SemfieldError(
                f"The checkpoint of step {step} does not fit this {method}: {differences}; open it with the config.yml "
                "that was written beside it."
            ) from error

    @torch.no_grad()
    def get_average_image_metrics(
        self,
        data_loader: Any,
        image_prefix: str,
        step: int | None = None,
        output_path: Path | None = None,
        get_std: bool = False,
    ) -> dict[str, float]:
        """Render and judge every image of a data loader.

        Args:
            data_loader: gives (camera, batch) for one image after the other.
            image_prefix: first part of the names of the images written to `output_path`.
            step: training step, not used.
            output_path: a folder to write the model's comparison images to.
            get_std: also give the standard deviation of each per-image metric, as `NAME_std`.

        Returns:
            Per-image metrics averaged over the images that have them, the model's metrics of the whole data set, and
            the speed.

        Raises:
            SemfieldError: if there is no image to evaluate.
        """
        whole_dataset = self.model if isinstance(self.model, HasDatasetMetrics) else None
        if output_path is not None:
            output_path.mkdir(exist_ok=True, parents=True)
        self.eval()
        if whole_dataset is not None:
            whole_dataset.begin_evaluation()
        per_image: list[dict[str, float]] = []
        for index, (camera, batch) in enumerate(with_progress(data_loader, "Evaluating all images")):
            start = time.perf_counter()
            outputs = self.model.get_outputs_for_camera(camera=camera)
            metrics, images = self.model.get_image_metrics_and_images(outputs, batch)
            seconds = time.perf_counter() - start
            num_rays = int((camera.height * camera.width).sum())
            per_image.append({**metrics, "num_rays_per_sec": num_rays / seconds, "fps": 1.0 / seconds})
            if output_path is not None:
                for name, image in images.items():
                    save_image(image.permute(2, 0, 1).cpu(), output_path / f"{image_prefix}_{name}_{index:04d}.png")
        self.train()
        if not per_image:
            raise SemfieldError(
                f"The {self.test_mode!r} split of the scene has no image to evaluate: hold some out of training."
            )
        summary = summarise(per_image, get_std)
        return summary if whole_dataset is None else {**summary, **whole_dataset.end_evaluation(output_path)}


def parameters_of(model: Module) -> list[tuple[int, torch.Size]]:
    """Which parameters a model has, and their sizes."""
    return [(id(parameter), parameter.shape) for parameter in model.parameters()]


def encode_info(info: Mapping[str, str]) -> UInt8[Tensor, " bytes"]:
    """Strings as a tensor: a checkpoint then holds nothing but tensors and numbers."""
    return torch.tensor(list(json.dumps(dict(info), sort_keys=True).encode()), dtype=torch.uint8)


def decode_info(info: UInt8[Tensor, " bytes"]) -> dict[str, str]:
    """The inverse of `encode_info`.

    Raises:
        SemfieldError: if the tensor does not hold a JSON object.
    """
    try:
        decoded = json.loads(bytes(info.tolist()))
    except ValueError as error:
        raise SemfieldError(f"The checkpoint is damaged: its entry {INFO_KEY!r} is not JSON.") from error
    if not isinstance(decoded, dict):
        raise SemfieldError(f"The checkpoint is damaged: its entry {INFO_KEY!r} is not a JSON object.")
    return decoded


def check_info(saved: Mapping[str, str], current: Mapping[str, str], step: int) -> None:
    """Compare what a checkpoint and the model say of themselves.

    Raises:
        SemfieldError: naming every entry that differs.
    """
    differences = [
        f"{name} is {saved.get(name, 'not given')!r} in the checkpoint and {current.get(name, 'not given')!r} here"
        for name in sorted({*saved, *current})
        if saved.get(name) != current.get(name)
    ]
    if differences:
        raise SemfieldError(
            f"The checkpoint of step {step} does not fit: {'; '.join(differences)}; use the settings and the scene "
            "that it was trained with, or train again."
        )


def compare_states(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first differences in key or shape between two state dicts, and what may cause them; "" if there is none."""
    expected = {_without_ddp(key): value for key, value in expected.items()}
    found = {_without_ddp(key): value for key, value in found.items()}
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    mismatched = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if isinstance(value, Tensor) and isinstance(found.get(key), Tensor) and found[key].shape != value.shape
    ]
    parts = []
    if missing:
        parts.append(f"it lacks {_first(missing)}")
    if unexpected:
        parts.append(f"it has an unknown {_first(unexpected)}")
    if mismatched:
        parts.append(f"it has {_first(mismatched)}")
    if not parts:
        return ""
    cause = "another method or another field backend (torch, tcnn)"
    if not missing and not unexpected:
        cause = "another list of classes, teacher, feature dimension or number of frames"
    return f"{', '.join(parts)}, as with {cause}"


def summarise(per_image: list[dict[str, float]], get_std: bool) -> dict[str, float]:
    """Mean, and standard deviation if asked, of each metric over the images that have a finite value of it.

    The standard deviation is that of a sample; of a single value it is 0.
    """
    names = dict.fromkeys(name for metrics in per_image for name in metrics)
    summary = {}
    for name in names:
        values = [float(metrics[name]) for metrics in per_image if name in metrics]
        values = [value for value in values if math.isfinite(value)]
        if not values:
            continue
        mean = sum(values) / len(values)
        summary[name] = mean
        if get_std:
            summary[f"{name}_std"] = math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))
    return summary


def with_progress(items: Any, description: str) -> Iterable[Any]:
    """The same items, with a progress bar that goes away at the end."""
    columns = (TextColumn("[green]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        yield from progress.track(
            items, total=len(items) if isinstance(items, Sized) else None, description=description
        )


def _without_ddp(key: str) -> str:
    return "_model." + key.removeprefix("_model.module.") if key.startswith("_model.module.") else key


def _first(keys: list[str]) -> str:
    shown = ", ".join(keys[:KEYS_SHOWN])
    return shown if len(keys) <= KEYS_SHOWN else f"{shown} and {len(keys) - KEYS_SHOWN} more"
