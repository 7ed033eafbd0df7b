"""The page that shows what came out of a video: frames, masks, flow, depth, camera path, figures, models, warnings."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import UInt8

from semfield_ns.io import atomic_path, read_image, read_json, read_npy, write_png, write_text
from semfield_ns.process import depth as depths
from semfield_ns.process import summary
from semfield_ns.process.flow import flow_file, read_frame
from semfield_ns.scenes.flow import read_flow

if TYPE_CHECKING:
    from semfield_ns.process.workspace import Workspace

Rgb = UInt8[np.ndarray, "H W 3"]

_SHOWN = 12
_COLUMNS = 4
_WIDTH = 300  # px of a thumbnail
_MASK_COLOR = np.array([235, 60, 60])

_KINDS = {
    "moving": "moving, the camera followed a path",
    "turning": "turning, the camera stayed in its place",
    "still": "still, the camera neither moved nor turned",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em; color: #222 }
img { max-width: 100%; border-radius: 4px } table { border-collapse: collapse } td, th { padding: .2em 1em .2em 0;
text-align: left; vertical-align: top } .warning { background: #fff3cd; padding: .4em .8em; border-radius: 4px; margin:
.3em 0 } h2 { margin-top: 1.6em }
"""


def write_report(work: "Workspace") -> None:
    """Write report/index.html and its pictures; the page comes last."""
    folder = work.report_file.parent
    shown = _spread(work.kept)
    sheets: dict[str, tuple[str, Callable[[int], Rgb]]] = {"frames": ("Frames", lambda n: read_frame(work.images, n))}
    if not work.settings.static:
        if work.mask_file(shown[0]).is_file():
            sheets["masks"] = ("Motion masks", lambda n: overlay(read_frame(work.images, n), work.mask(n)))
        longest = _longest_flow(work, shown)
        sheets["flow"] = ("Flow to the next frame", lambda n: _flow_picture(work, n, longest))
    if not work.registration.one_place:
        title = "Depth (near is warm, unknown is black)"
        sheets["depth"] = (title, lambda n: depths.preview(read_npy(work.depth_file(n))))
    labels = read_json(work.record("labels"))
    if labels["labelled"]:
        colors = np.array([entry["color"] for entry in labels["semantics"]["classes"]], dtype=np.uint8)
        sheets["labels"] = ("Labels (unlabelled is black)", lambda n: _label_picture(work, n, colors))
    for name, (_, picture) in sheets.items():
        numbers = _spread(labels["labelled"]) if name == "labels" else shown
        write_png(folder / f"{name}.png", contact_sheet([picture(number) for number in numbers]))
    if not work.registration.one_place:
        camera_path(work, folder / "cameras.png")
    text = page(work, {name: title for name, (title, _) in sheets.items()})
    write_text(work.report_file, text)


def _spread(numbers: list[int]) -> list[int]:
    """Up to _SHOWN of them, from the first to the last."""
    return [numbers[int(i)] for i in np.unique(np.linspace(0, len(numbers) - 1, min(_SHOWN, len(numbers))).round())]


def contact_sheet(
    pictures: list[Rgb], columns: int = _COLUMNS, width: int = _WIDTH
) -> UInt8[np.ndarray, "height width 3"]:
    """Pictures of one size side by side, reduced to a common width."""
    height = max(1, round(width * pictures[0].shape[0] / pictures[0].shape[1]))
    small = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures]
    small += [np.full_like(small[0], 255)] * (-len(small) % min(columns, len(small)))
    columns = min(columns, len(pictures))
    rows = [np.hstack(small[i : i + columns]) for i in range(0, len(small), columns)]
    return np.vstack(rows)


def overlay(rgb: Rgb, mask: np.ndarray) -> Rgb:
    """The picture with the mask in red."""
    return np.where(mask[..., None], 0.4 * rgb + 0.6 * _MASK_COLOR, rgb).astype(np.uint8)


def _longest_flow(work: "Workspace", shown: list[int]) -> float:
    lengths = [
        np.percentile(np.linalg.norm(read_flow(file)[0], axis=-1), 98)
        for number in shown
        if (file := _next_flow(work, number)) is not None
    ]
    return max([1.0, *(float(length) for length in lengths)])


def _next_flow(work: "Workspace", number: int) -> Path | None:
    place = work.kept.index(number) + 1
    return flow_file(work.flow, number, work.kept[place]) if place < len(work.kept) else None


def _flow_picture(work: "Workspace", number: int, longest: float) -> Rgb:
    import torch

    from semfield_ns.rendering.flow_color import flow_to_color

    file = _next_flow(work, number)
    if file is None:
        return np.full((*work.picked.size[::-1], 3), 255, dtype=np.uint8)
    flow, valid = read_flow(file)
    color = (flow_to_color(torch.from_numpy(flow), longest).numpy() * 255).astype(np.uint8)
    return np.where(valid[..., None], color, 0).astype(np.uint8)


def _label_picture(work: "Workspace", number: int, colors: UInt8[np.ndarray, "C 3"]) -> Rgb:
    file = work.label_file(number)
    if not file.is_file():
        return np.zeros((*work.picked.size[::-1], 3), dtype=np.uint8)
    ids = np.array(read_image(file))
    return np.where((ids < len(colors))[..., None], colors[ids.clip(max=len(colors) - 1)], 0).astype(np.uint8)


def camera_path(work: "Workspace", file: Path) -> None:
    """Cameras and sparse points from above and from the side, in the plane where the cameras spread most."""
    from matplotlib.figure import Figure

    poses = np.stack([work.registration.poses[number] for number in work.kept])
    centres, points = poses[:, :3, 3], work.registration.points
    up, side = poses[:, :3, 1].mean(0), poses[:, :3, 0].mean(0)
    up /= np.linalg.norm(up)
    side = side - up * (side @ up)
    side /= np.linalg.norm(side)
    ahead = np.cross(up, side)
    near = points[:: max(1, len(points) // 4000)]
    if len(near):
        distance = np.linalg.norm(near - centres.mean(0), axis=-1)
        near = near[distance < 3 * np.median(distance)]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, vertical, title in zip(figure.subplots(1, 2), (ahead, up), ("from above", "from behind"), strict=True):
        if len(near):
            axes.scatter(near @ side, near @ vertical, s=1, c="0.7", linewidths=0)
        axes.plot(centres @ side, centres @ vertical, "-", c="tab:red", lw=1)
        axes.scatter(centres @ side, centres @ vertical, s=8, c=np.arange(len(centres)), cmap="viridis", zorder=3)
        looks = -poses[:, :3, 2]
        length = 0.1 * max(float(np.ptp(centres @ side)), float(np.ptp(centres @ vertical)), 1e-6)
        axes.quiver(
            centres @ side, centres @ vertical, looks @ side * length, looks @ vertical * length,
            angles="xy", scale_units="xy", scale=1, width=0.002,
        )  # fmt: skip
        axes.set_title(f"Cameras and sparse points {title}")
        axes.set_aspect("equal", "datalim")
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=90)


def page(work: "Workspace", sheets: dict[str, str]) -> str:
    """The HTML; everything in it that comes from outside is escaped."""
    escape = html.escape
    picked, settings = work.picked, work.settings
    lines = [f"<title>{escape(work.root.name)}</title><style>{_STYLE}</style><h1>{escape(settings.source.name)}</h1>"]
    size = f"{picked.size[0]} x {picked.size[1]}"
    lines.append(f"<p>{len(work.kept)} of {len(picked.frames)} picked frames with a pose, {size} pixels.</p>")
    kind = _KINDS[work.registration.figures.get("camera_motion", "moving")]
    lines.append(f"<p>Kind of scene: {kind}.</p>")
    lines += [f'<p class="warning">{escape(text)}</p>' for text in summary.warnings(work)]
    figures = ((name, _number(value), summary.MEANINGS[name]) for name, value in summary.figures(work).items())
    lines.append("<h2>Figures</h2>" + _table(figures))
    models = ((card.step, card.name, card.revision, card.licence, card.note) for card in summary.cards(work))
    lines.append("<h2>Models</h2>" + _table(models, ("step", "model", "revision", "licence", "")))
    for name, title in sheets.items():
        lines.append(f'<h2>{escape(title)}</h2><img src="{name}.png" alt="{escape(title)}">')
    if not work.registration.one_place:
        lines.append('<h2>Camera path</h2><img src="cameras.png" alt="camera path">')
    rows = ((f"{n:04d}", f.index, f"{f.time:.3f}", f"{f.sharpness:.3f}") for n, f in enumerate(picked.frames))
    table = _table(rows, ("frame", "number in the source", "time", "sharpness"))
    lines.append(f"<h2>Frames</h2><details><summary>all</summary>{table}</details>")
    return "<!doctype html><html lang=en><meta charset=utf-8>" + "\n".join(lines) + "</html>\n"


def _table(rows: Any, header: tuple[str, ...] = ()) -> str:
    head = "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>" if header else ""
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
