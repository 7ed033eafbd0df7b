"""Rendering on CPUs: from tensors to the kernels and back, with gradients."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians import kernels
from semfield_ns.gaussians.projection import Projection

MAX_GAUSSIANS = 1 << 24
"""Indices are kept as float32 in places."""
CHANNELS_AT_ONCE = 64
"""that pixels' values are carried back for, which bounds memory"""

_kernels = threading.Lock()


@contextmanager
def _workers() -> Iterator[int]:
    """As many threads as torch uses. One caller at a time: numba may end the program if two start threads at once."""
    with _kernels:
        workers = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        numba.set_num_threads(workers)
        yield workers


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _empty(*shape: int) -> np.ndarray:
    return np.empty(shape, np.float32)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quaternions: Tensor,
        scales: Tensor,
        opacities: Tensor | None,
        camera: np.ndarray,
        near: float,
        blur: float,
    ) -> tuple[Tensor, ...]:
        n = len(means)
        values = (_array(means), _array(quaternions), _array(scales))
        found = (_empty(n, 2), _empty(n), _empty(n, 3), _empty(n))
        opacity = _zeros(0) if opacities is None else _array(opacities)
        with _workers():
            kernels.project(*values, opacity, camera, near, blur, *found)
        tensors = tuple(torch.from_numpy(array) for array in found)
        ctx.save_for_backward(means, quaternions, scales, tensors[3])
        ctx.camera, ctx.blur = camera, blur
        ctx.mark_non_differentiable(tensors[3])
        return tensors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        means, quaternions, scales, radii = (_array(tensor) for tensor in ctx.saved_tensors)
        n = len(means)
        found = (_empty(n, 3), _empty(n, 4), _empty(n, 3))
        given = (_array(gradient) for gradient in gradients[:3])
        with _workers():
            kernels.project_backward(means, quaternions, scales, ctx.camera, ctx.blur, radii, *given, *found)
        return *(torch.from_numpy(array) for array in found), None, None, None, None


def project(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor | None,
    pose: list[list[float]],
    intrinsics: list[float],
    width: int,
    height: int,
    near: float,
    blur: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres, depths, conics and radii; see `semfield_ns.gaussians.projection.project`."""
    to_world = np.array(pose)
    rotation = (to_world[:, :3] * np.array([1.0, -1.0, -1.0])).T
    camera = np.concatenate([rotation.ravel(), -rotation @ to_world[:, 3], intrinsics, [width, height]])
    return _Project.apply(means, quaternions, scales, opacities, camera, float(near), float(blur))


class _Lists(NamedTuple):
    """Which Gaussians are in which tiles; see `kernels`."""

    records: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    entries: np.ndarray
    sizes: np.ndarray
    places: np.ndarray


def _lists(projection: Projection, opacities: Tensor, with_places: bool, workers: int) -> _Lists:
    width, height = projection.width, projection.height
    n = len(opacities)
    if n >= MAX_GAUSSIANS:
        raise SemfieldError(f"{n} Gaussians are too many for the backend cpu (up to {MAX_GAUSSIANS}): render a part.")
    tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
    values = (projection.means2d, projection.conics, projection.radii, opacities, projection.depths)
    records = _empty(n * kernels.RECORD)
    kernels.prepare(*(_array(tensor) for tensor in values), width, height, records)
    order = np.empty(n, np.int32)
    order = order[: kernels.depth_order(records, records.view(np.uint32), order)]
    counts = np.zeros((workers, tiles_x * tiles_y), np.int64)
    sizes = np.zeros(len(order) + 1, np.int64)
    starts = np.empty(tiles_x * tiles_y + 1, np.int64)
    kernels.count_tiles(records, order, tiles_x, tiles_y, counts, sizes)
    kernels.add_up(counts, starts, sizes)
    entries = np.empty(starts[-1], np.int32)
    places = np.empty(starts[-1] if with_places else 0, np.int64)
    kernels.fill_tiles(records, order, tiles_x, tiles_y, counts, sizes, entries, places)
    return _Lists(records, order, starts, entries, sizes, places)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        depths: Tensor,
        opacities: Tensor,
        channels: Tensor,
        background: Tensor | None,
        projection: Projection,
        wanted: tuple[bool, bool, bool, bool],
    ) -> tuple[Tensor, ...]:
        width, height, num = projection.width, projection.height, channels.shape[1]
        with_depth, with_median, with_index, with_gradients = wanted
        pixels = width * height
        picture, accumulation = _empty(pixels * num), _empty(pixels)
        depth, median = _empty(pixels * with_depth), _empty(pixels * with_median)
        strongest = np.empty(pixels * with_index, np.int64)
        channel_array = _array(channels)
        background_array = _zeros(0) if background is None else _array(background)
        with _workers() as workers:
            lists = _lists(projection, opacities, with_gradients, workers)
            tiles = (len(lists.starts) - 1) * with_gradients
            last, ends = _empty(tiles * kernels.PIXELS), np.empty(tiles, np.int64)
            masks = np.empty(len(lists.entries) * with_gradients, np.uint32)
            kernels.composite(
                workers,
                np.zeros(1, np.int64),
                lists.starts,
                lists.entries,
                lists.records,
                channel_array,
                background_array,
                width,
                height,
                wanted,
                picture,
                accumulation,
                depth,
                median,
                strongest,
                last,
                masks,
                ends,
            )
        if with_gradients:
            ctx.arrays = (lists, channel_array, background_array, accumulation, last, masks, ends)
            ctx.size, ctx.with_depth = (width, height), with_depth
        ctx.set_materialize_grads(False)
        found = [torch.from_numpy(array) for array in (picture, accumulation, depth, median, strongest)]
        ctx.mark_non_differentiable(*found[3:])
        shapes = ((height, width, num), *[(height, width, 1)] * 3, (height, width))
        return tuple(
            tensor.reshape(shape) if tensor.numel() == np.prod(shape) else tensor
            for tensor, shape in zip(found, shapes, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_picture: Tensor | None, to_accumulation: Tensor | None, to_depth: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, ...]:
        lists, channels, background, accumulation, last, masks, ends = ctx.arrays
        width, height = ctx.size
        (n, num), pixels = channels.shape, width * height
        given_picture = _zeros(pixels * num) if to_picture is None else _array(to_picture).reshape(-1)
        given_accumulation = _zeros(pixels) if to_accumulation is None else _array(to_accumulation).reshape(-1)
        given_depth = _zeros(0) if to_depth is None or not ctx.with_depth else _array(to_depth).reshape(-1)
        gradients = _empty(len(lists.entries) * (kernels.SUMS + num))
        found = (_zeros(n, 2), _zeros(n, 3), _zeros(n), _zeros(n), _zeros(n, num))
        with _workers() as workers:
            kernels.composite_backward(
                workers,
                np.zeros(1, np.int64),
                lists.starts,
                lists.entries,
                lists.records,
                channels,
                background,
                width,
                height,
                accumulation,
                last,
                masks,
                ends,
                given_picture,
                given_accumulation,
                given_depth,
                gradients,
            )
            kernels.gather(lists.order, lists.sizes, lists.places, masks, lists.records, gradients, *found)
        to_means2d, to_conics, to_opacities, to_depths, to_channels = (torch.from_numpy(array) for array in found)
        to_background = None
        if ctx.needs_input_grad[5] and to_picture is not None:
            rest = 1 - torch.from_numpy(accumulation)
            to_background = torch.einsum("p,pc->c", rest, to_picture.reshape(pixels, num))
        return to_means2d, to_conics, to_depths, to_opacities, to_channels, to_background, None, None


def rasterize(
    projection: Projection,
    opacities: Tensor,
    channels: Tensor,
    background: Tensor | None,
    depth: bool,
    median_depth: bool,
    index: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Picture, accumulation, sum of weighted depths, median depth, index; see `semfield_ns.gaussians.rasterize`."""
    inputs = (projection.means2d, projection.conics, projection.depths, opacities, channels, background)
    learned = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    picture, accumulation, weighted, median, strongest = _Rasterize.apply(
        *inputs, projection, (depth, median_depth, index, learned)
    )
    return (
        picture,
        accumulation,
        weighted if depth else None,
        median if median_depth else None,
        strongest if index else None,
    )


def uplift(projection: Projection, opacities: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of contribution * value, and of contributions; see `semfield_ns.gaussians.rasterize`."""
    n, num = len(opacities), values.shape[-1]
    sums, contributions = _zeros(n, num), _zeros(n)
    with _workers() as workers:
        lists = _lists(projection, opacities, True, workers)
        masks = np.empty(len(lists.entries), np.uint32)
        for first in range(0, max(num, 1), CHANNELS_AT_ONCE):
            part = _array(values[..., first : first + CHANNELS_AT_ONCE])
            some = part.shape[-1]
            shares = _empty(len(lists.entries) * (1 + some))
            kernels.uplift(
                workers,
                np.zeros(1, np.int64),
                lists.starts,
                lists.entries,
                lists.records,
                part.reshape(-1),
                some,
                projection.width,
                projection.height,
                masks,
                shares,
            )
            found = _zeros(n, some)
            contributions[:] = 0
            kernels.gather_shares(lists.order, lists.sizes, lists.places, masks, shares, found, contributions)
            sums[:, first : first + some] = found
    return torch.from_numpy(sums), torch.from_numpy(contributions)
