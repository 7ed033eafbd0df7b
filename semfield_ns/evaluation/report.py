"""Figures and tables of results. Files are PNG, written whole or not at all, and need no display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from semfield_ns.errors import SemfieldError
from semfield_ns.io import atomic_path
from semfield_ns.metrics.confusion import ConfusionMatrix

Curve = tuple[list[int], list[float]]
MAX_ANNOTATED_CLASSES = 15
# Title of a panel, what a tag must contain to be drawn in it, and whether its axis is logarithmic.
PANELS = (
    ("Training losses", ("Train Loss",), True),
    ("PSNR (dB)", ("psnr",), False),
    ("Semantics", ("miou", "accuracy"), False),
)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight")


def confusion_matrix_png(matrix: ConfusionMatrix, class_names: Sequence[str], path: Path) -> None:
    """Draws the share of each true class (row) that went to each predicted class (column).

    Classes that are neither in the truth nor in the prediction are left out.
    """
    counts = matrix.counts.numpy().astype(np.float64)
    present = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)) if matrix.total else np.arange(len(counts))
    counts = counts[np.ix_(present, present)]
    names = [class_names[int(index)] for index in present]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    size = 2.5 + 0.55 * max(len(names), 2)
    figure = Figure(figsize=(size + 1, size))
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if matrix.total:
        axes.set_title(f"mIoU {matrix.miou:.3f}, accuracy {matrix.accuracy:.3f}")
    if len(names) <= MAX_ANNOTATED_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            color = "black" if share > 0.5 else "white"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


def read_scalars(run_dir: Path) -> dict[str, Curve]:
    """Every scalar that a run logged for tensorboard, all its event files together.

    A run that was resumed has logged some steps twice: the later value counts.

    Returns:
        tag -> (steps, values), by step.

    Raises:
        SemfieldError: the folder holds no event file.
    """
    points: dict[str, dict[int, tuple[float, float]]] = {}
    for accumulator in _event_files(run_dir):
        for tag in accumulator.Tags()["scalars"]:
            curve = points.setdefault(tag, {})
            for event in accumulator.Scalars(tag):
                if event.wall_time >= curve.get(event.step, (0.0, 0.0))[0]:
                    curve[event.step] = (event.wall_time, event.value)
    return {tag: (sorted(curve), [curve[step][1] for step in sorted(curve)]) for tag, curve in points.items()}


def logged_seconds(run_dir: Path) -> float:
    """Seconds that a run was at work, from its event files: the sum, over its sessions, of first event to last scalar.

    Raises:
        SemfieldError: the folder holds no event file.
    """
    total = 0.0
    for accumulator in _event_files(run_dir):
        last = [accumulator.Scalars(tag)[-1].wall_time for tag in accumulator.Tags()["scalars"]]
        total += max(last) - accumulator.FirstEventTimestamp() if last else 0.0
    return total


def _event_files(run_dir: Path) -> list:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    paths = sorted(run_dir.glob("events.out.tfevents.*"))
    if not paths:
        raise SemfieldError(f"{run_dir} holds no tensorboard events: train with --vis tensorboard.")
    return [EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload() for path in paths]


def training_curves_png(run_dir: Path, path: Path) -> None:
    """Draws losses, PSNR and semantic figures against training steps, as far as a run logged them.

    Raises:
        SemfieldError: the run's folder holds no event file.
    """
    scalars = read_scalars(run_dir)
    drawn = []
    for title, needles, logarithmic in PANELS:
        curves = {tag: curve for tag, curve in scalars.items() if any(needle in tag for needle in needles)}
        if curves:
            drawn.append((title, curves, logarithmic))
    figure = Figure(figsize=(7 * max(len(drawn), 1), 4.5))
    for index, (title, curves, logarithmic) in enumerate(drawn):
        axes = figure.add_subplot(1, len(drawn), index + 1)
        axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
        for tag in sorted(curves):
            steps, values = curves[tag]
            marker = "." if len(steps) < 20 else None
            axes.plot(steps, values, label=curve_name(tag), marker=marker)
        positive = all(value > 0 for _, values in curves.values() for value in values)
        axes.set_yscale("log" if logarithmic and positive else "symlog" if logarithmic else "linear")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))  # beside the curves: there may be many
    figure.tight_layout()
    save_figure(figure, path)


def curve_name(tag: str) -> str:
    """A tag of Nerfstudio's event files in words: losses by their names, other figures with where they were taken."""
    place, _, name = tag.rpartition("/")
    known = {
        "Train Loss Dict": name,
        "Train Metrics Dict": f"{name}, training",
        "Eval Metrics Dict": f"{name}, held-out",
    }
    return known.get(place, tag)
