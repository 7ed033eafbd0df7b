"""Optical flow between picked frames, forward and backward, with the mask of what agrees both ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from semfield_ns.io import read_rgb
from semfield_ns.process.frames import Report, Rgb, frame_name
from semfield_ns.process.models import Choice, ModelCard, WeightsAbsent, choose
from semfield_ns.scenes.flow import FlowMap, Mask, consistency_mask, estimate_flow, read_flow, write_flow

RaftSize = Literal["large", "small"]

_RAFT_MULTIPLE = 8  # RAFT works on a grid of 8 px
_RAFT_SMALLEST = 128  # px; its correlation pyramid needs as much on each side


@dataclass(frozen=True)
class FlowTool:
    """Estimates flow from one picture to another."""

    card: ModelCard
    estimate: Callable[[Rgb, Rgb], FlowMap]


def flow_tool(choice: Choice, size: RaftSize = "large", device: str = "cpu") -> FlowTool:
    """RAFT where its weights are in torch's cache, dense inverse search otherwise."""
    tool, note = choose(choice, "optical flow", lambda: raft(size, device), dense_inverse_search)
    return replace(tool, card=replace(tool.card, note=note))


def dense_inverse_search() -> FlowTool:
    """OpenCV's DIS, which needs no weights."""
    card = ModelCard("flow", "Dense inverse search (OpenCV DIS)", f"OpenCV {cv2.__version__}", "Apache-2.0")
    return FlowTool(card, estimate_flow)


def raft(size: RaftSize = "large", device: str = "cpu") -> FlowTool:
    """Torchvision's RAFT with weights of torch's cache.

    Raises WeightsAbsent naming the file and the folder it belongs in.
    """
    import torch
    from torchvision.models import optical_flow

    weights = {
        "large": optical_flow.Raft_Large_Weights.C_T_SKHT_V2,
        "small": optical_flow.Raft_Small_Weights.C_T_V2,
    }[size]
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not file.is_file():
        raise WeightsAbsent(f"the weights of RAFT are not in {file.parent}: put {weights.url} there.")
    network = {"large": optical_flow.raft_large, "small": optical_flow.raft_small}[size]()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # what a truncated or foreign file makes of torch's reader is anything
        raise WeightsAbsent(f"{file} does not hold the weights of RAFT: delete it and download it again.") from error
    network = network.eval().requires_grad_(False).to(device)

    def estimate(rgb_a: Rgb, rgb_b: Rgb) -> FlowMap:
        height, width = rgb_a.shape[:2]
        tall, wide = (max(_RAFT_SMALLEST, -(-n // _RAFT_MULTIPLE) * _RAFT_MULTIPLE) for n in (height, width))
        pad = (0, wide - width, 0, tall - height)
        batch = torch.from_numpy(np.stack([rgb_a, rgb_b])).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
        first, second = torch.nn.functional.pad(batch, pad, mode="replicate").split(1)
        with torch.no_grad():
            flow = network(first, second)[-1][0, :, :height, :width]
        return flow.permute(1, 2, 0).cpu().numpy().astype(np.float32)

    return FlowTool(ModelCard("flow", f"RAFT {size} (torchvision)", weights.name, "BSD-3-Clause"), estimate)


def flow_file(folder: Path, start: int, end: int) -> Path:
    """Where the flow from one picked frame to another is kept."""
    return folder / f"{frame_name(start)}_{frame_name(end)}.npz"


def read_frame(folder: Path, number: int) -> Rgb:
    """A picked frame."""
    return read_rgb(folder / f"{frame_name(number)}.png")


def write_flows(
    tool: FlowTool,
    images: Path,
    folder: Path,
    pairs: Sequence[tuple[int, int]],
    report: Report = lambda share: None,
) -> float:
    """Estimate the flow of pairs of frames in both directions and write it with its mask.

    Returns the mean share of pixels whose flow agrees both ways. Raises SemfieldError as read_rgb, write_flow do.
    """
    shares = []
    for done, (i, j) in enumerate(pairs):
        first, second = read_frame(images, i), read_frame(images, j)
        forward, backward = tool.estimate(first, second), tool.estimate(second, first)
        there, back = consistency_mask(forward, backward), consistency_mask(backward, forward)
        write_flow(flow_file(folder, i, j), forward, there)
        write_flow(flow_file(folder, j, i), backward, back)
        shares += [there.mean(), back.mean()]
        report((done + 1) / len(pairs))
    return float(np.mean(shares)) if shares else 0.0


class FlowWindow:
    """Flow between any two frames: what is already written is read, the rest is estimated once and kept in memory.

    Further apart than neighbours, flow only serves to measure depth and motion, so it is always by the quick classical
    estimator. `forget` frees what lies behind.
    """

    def __init__(self, images: Path, folder: Path) -> None:
        self.images, self.folder = images, folder
        self._pictures: dict[int, Rgb] = {}
        self._flows: dict[tuple[int, int], tuple[FlowMap, Mask]] = {}

    def between(self, i: int, j: int) -> tuple[FlowMap, Mask]:
        """Flow from frame i to frame j, and where it agrees with the way back."""
        if (i, j) not in self._flows:
            file = flow_file(self.folder, i, j)
            if file.is_file():
                self._flows[i, j] = read_flow(file)
            else:
                forward, backward = (estimate_flow(self.picture(a), self.picture(b)) for a, b in ((i, j), (j, i)))
                self._flows[i, j] = forward, consistency_mask(forward, backward)
                self._flows[j, i] = backward, consistency_mask(backward, forward)
        return self._flows[i, j]

    def along(self, frames: Sequence[int]) -> tuple[FlowMap, Mask]:
        """Flow from the first of these frames to the last, by way of all of them.

        It stays on things however fast the camera is, and drifts a little.
        """
        flow, valid = self.between(frames[0], frames[1])
        y, x = np.mgrid[: valid.shape[0], : valid.shape[1]].astype(np.float32)
        for i, j in pairwise(frames[1:]):
            there, sure = self.between(i, j)
            u, v = x + flow[..., 0], y + flow[..., 1]
            channels = (there[..., 0], there[..., 1], sure.astype(np.float32))
            dx, dy, known = (cv2.remap(c, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) for c in channels)
            flow, valid = flow + np.stack([dx, dy], axis=-1), valid & (known > 0.99)
        return flow, valid

    def forget(self, before: int) -> None:
        """Free everything that concerns a frame before this one."""
        self._pictures = {i: picture for i, picture in self._pictures.items() if i >= before}
        self._flows = {pair: flow for pair, flow in self._flows.items() if min(pair) >= before}

    def picture(self, number: int) -> Rgb:
        """A frame."""
        if number not in self._pictures:
            self._pictures[number] = read_frame(self.images, number)
        return self._pictures[number]
