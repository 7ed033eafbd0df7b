"""What all teachers that transformers runs have in common: their weights, their numbers, how pictures are prepared."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.teachers.base import Teacher
from semfield_ns.teachers.weights import find_weights, read_config, read_preparation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PretrainedTeacher(Teacher):
    """A teacher that transformers runs. Its weights are looked for at once, but loaded with the first image.

    Args:
        kind: the teacher's name in this program, such as "dinov2".
        source: a folder with `config.json` and weights, or an id on the hub.
        device: where it runs; in bfloat16 on CUDA, else in float32.

    Raises:
        SemfieldError: the weights are not found, or are of another kind of model.
    """

    model_types: tuple[str, ...] = ()
    """as config.json calls the models that this teacher can be"""
    default_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    default_std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __init__(self, kind: str, source: str, device: torch.device | str = "cpu") -> None:
        self.kind, self.source, self.device = kind, source, torch.device(device)
        self.folder, revision = find_weights(kind, source)
        self.config = read_config(kind, self.folder)
        if self.config.get("model_type") not in self.model_types:
            raise SemfieldError(
                f"{source} holds a model of the kind '{self.config.get('model_type')}': the teacher '{kind}' needs one "
                f"of {', '.join(self.model_types)}."
            )
        self.name = f"{kind}-1-{revision}"
        on_gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if on_gpu else torch.float32
        self.batch_size = 8 if on_gpu else 1

    def setting(self, name: str) -> int:
        """A number of the model, or of its vision part."""
        part: Any = self.config.get("vision_config") or self.config
        value = self.config.get(name, part.get(name))
        if value is None:  # config.json leaves out what its class takes by default
            from transformers import AutoConfig

            config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
            part = getattr(config, "vision_config", config)
            value = getattr(config, name, getattr(part, name, None))
        return int(value)

    @cached_property
    def model(self) -> Any:
        """The network, in evaluation mode on its device."""
        return self.load().eval().requires_grad_(False).to(self.device)

    def load(self) -> "PreTrainedModel":
        """Reads the network, by `load_as`."""
        raise NotImplementedError

    def load_as(self, model_class: Any, **arguments: Any) -> "PreTrainedModel":
        """A network with all of its weights, which transformers itself does not insist on.

        Raises:
            SemfieldError: the folder does not hold the weights of such a network.
        """
        try:
            with _quiet():
                model, info = model_class.from_pretrained(
                    self.folder, local_files_only=True, dtype=self.dtype, output_loading_info=True, **arguments
                )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            first = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise SemfieldError(
                f"{self.folder} does not hold weights for the teacher '{self.kind}' ({first})."
            ) from error
        # What pools tokens into one vector is not used, and some files lack it.
        missing = [name for name in sorted(info["missing_keys"]) if "pooler" not in name]
        if missing:
            raise SemfieldError(
                f"{self.folder} does not hold weights for the teacher '{self.kind}': {missing[0]} is missing, and "
                f"{len(missing) - 1} more."
            )
        return model

    def normalised(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
        """Channels first, on the device, with the mean and the deviation that the network was trained with."""
        preparation = read_preparation(self.folder)
        x = images.to(self.device).permute(0, 3, 1, 2)
        mean = x.new_tensor(preparation.get("image_mean") or self.default_mean)
        std = x.new_tensor(preparation.get("image_std") or self.default_std)
        return (x - mean[:, None, None]) / std[:, None, None]


def resize(images: Float[Tensor, "batch channels height width"], size: tuple[int, int]) -> Tensor:
    """Images of another size, smoothed where they shrink."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """No report of weights that are not needed, and no progress bar for a second's work."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
