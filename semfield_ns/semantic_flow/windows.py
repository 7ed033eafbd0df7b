"""A long video in memory: a window of its frames at a time on the host, and what the model looks up on the device."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

SHARE = 0.5
"""of the free memory of a device, at most, for what is looked up; training needs the rest"""

Load = Callable[[Sequence[int]], dict[str, Any]]
"""frames, by their numbers, as one batch"""


def free_bytes(device: torch.device | str) -> int | None:
    """Free memory of a device that has its own; None of others."""
    device = torch.device(device)
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def stays_on_disk(needed: int, device: torch.device | str, fits_host: bool) -> bool:
    """Whether what the model looks up is read from disk.

    Args:
        needed: bytes of it.
        device: of the model.
        fits_host: whether the whole video fits into the host's budget, which counts where the device shares its memory.
    """
    free = free_bytes(device)
    return not fits_host if free is None else needed > SHARE * free


def windows(load: Load, frames: int, size: int, steps: int, device: torch.device | str) -> Iterator[dict[str, Any]]:
    """A batch for each step: of frames drawn at random, others after some steps, which are loaded meanwhile.

    Args:
        load: called in a thread of its own.
        frames: of the video.
        size: of a window, in frames.
        steps: with one window.
        device: of training. One that has its own memory goes on with the old window until the next is there; others
            wait for it, so that a seed fixes all steps.
    """
    wait = free_bytes(device) is None

    def drawn() -> list[int]:
        return random.sample(range(frames), k=size)

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(load, drawn())
        while True:
            window = following.result()
            following = thread.submit(load, drawn())
            for _ in range(steps):
                yield window
            while not wait and not following.done():
                yield window
