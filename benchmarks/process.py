"""Makes scenes of videos whose truth is known, and measures every step against it.

    python benchmarks/process.py                         # synthetic scenes, rendered to mp4
    python benchmarks/process.py --scenes PATH [PATH..]  # scenes with given poses (and masks, flow, depth), as mp4s
    python benchmarks/process.py --photos PATH [PATH..]  # scenes with given poses where nothing moves, as photos
    python benchmarks/process.py --keep FOLDER           # where the mp4s and the results stay

Prints one Markdown table: seconds; registered frames; epipolar error of the flow of static pixels under the estimated
poses; camera path against the truth after a similarity alignment (root mean square position error as a share of the
length of the path, mean rotation error); error of the focal length; intersection over union of the motion masks;
end-point error of forward flow (median over all pixels, and over those that its mask trusts); depth error (median
|depth / truth - 1| of known pixels after one scale for the scene) and the share of pixels with a depth. A dash: the
scene gives no truth for it.
"""

import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import tyro

from semfield_ns.cli.process import process
from semfield_ns.io import read_image, read_json
from semfield_ns.process.frames import frame_name
from semfield_ns.scenes.dataset import read_depth
from semfield_ns.scenes.flow import read_flow
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.scene import Frame, Scene
from semfield_ns.scenes.synthetic import write_scene


@dataclass
class Row:
    """A row of the table; None where there is no truth."""

    scene: str
    seconds: float
    registered: str
    epipolar: float | None
    ate: float
    rotation: float
    focal: float
    iou: float | None
    flow: float | None
    trusted_flow: float | None
    depth: float | None
    known: float | None


def make_video(scene: Scene, path: Path, fps: int = 12) -> None:
    """The training images in the order of time as H.264."""
    listing = path.with_suffix(".txt")
    lines = [f"file '{frame.image_path.resolve()}'\nduration {1 / fps}" for frame in scene.train]
    listing.write_text("\n".join(lines))
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "concat", "-safe", "0", "-i", listing, "-r", str(fps)]
    command += ["-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", "-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", path]
    subprocess.run([str(word) for word in command], check=True)


def similarity(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and rotation that bring estimated c2w (N,4,4) to the true ones.

    Rotation from the orientations: the positions of a straight path leave the turn about it open.
    """
    left, _, right = np.linalg.svd(sum(t[:3, :3] @ e[:3, :3].T for e, t in zip(estimate, truth, strict=True)))
    rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    a = (estimate[:, :3, 3] - estimate[:, :3, 3].mean(0)) @ rotation.T
    b = truth[:, :3, 3] - truth[:, :3, 3].mean(0)
    return float((a * b).sum() / max((a * a).sum(), 1e-12)), rotation


def path_errors(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Position error (root mean square, share of the path's length), mean rotation error (degrees), and the scale."""
    scale, rotation = similarity(estimate, truth)
    a = scale * (estimate[:, :3, 3] - estimate[:, :3, 3].mean(0)) @ rotation.T
    b = truth[:, :3, 3] - truth[:, :3, 3].mean(0)
    length = np.linalg.norm(np.diff(b, axis=0), axis=-1).sum()
    angles = [turn((rotation @ e[:3, :3]).T @ t[:3, :3]) for e, t in zip(estimate, truth, strict=True)]
    return float(np.sqrt(((a - b) ** 2).sum(-1).mean()) / length), float(np.mean(angles)), scale


def turn(rotation: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


@dataclass
class Compared:
    """Pixel-wise comparisons, collected over frames."""

    ious: list[float] = field(default_factory=list)
    flow: list[np.ndarray] = field(default_factory=list)
    trusted: list[np.ndarray] = field(default_factory=list)
    depth: list[np.ndarray] = field(default_factory=list)

    def add_mask(self, mine: np.ndarray, truth: np.ndarray) -> None:
        if truth.any():
            self.ious.append(float((mine & truth).sum() / (mine | truth).sum()))

    def add_flow(self, mine: Frame, truth: Frame) -> None:
        if mine.flow_fwd_path and truth.flow_fwd_path:
            flow, valid = read_flow(mine.flow_fwd_path)
            given, known = read_flow(truth.flow_fwd_path)
            error = np.linalg.norm(flow - given[: flow.shape[0], : flow.shape[1]], axis=-1)
            known = known[: flow.shape[0], : flow.shape[1]]
            self.flow.append(error[known])
            self.trusted.append(error[known & valid])


def copy_photos(scene: Scene, folder: Path) -> None:
    """The training images in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(scene.train):
        shutil.copy(frame.image_path, folder / f"photo_{number:03d}{frame.image_path.suffix}")


def evaluate(name: str, folder: Path, truth: Scene) -> Row:
    """Compares a processed scene with the scene that its video, or photos, were made of."""
    scene = read_scene(folder)
    picked = read_json(folder / ".process" / "frames.json")["frames"]
    index = {f"{frame_name(n)}.png": entry["index"] for n, entry in enumerate(picked)}
    pairs = [(frame, truth.train[index[frame.image_path.name]]) for frame in scene.train]
    ate, rotation, scale = path_errors(np.stack([a.c2w for a, _ in pairs]), np.stack([b.c2w for _, b in pairs]))
    compared = Compared()
    for (mine, given), following in zip(pairs, [*pairs[1:], None], strict=True):
        size = (mine.width, mine.height)
        if mine.dynamic_mask_path and given.dynamic_mask_path:
            masks = [np.array(read_image(p).convert("L")) for p in (mine.dynamic_mask_path, given.dynamic_mask_path)]
            a, b = (cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0 for mask in masks)
            compared.add_mask(a, b)
        if following and following[1].time_index == given.time_index + 1:
            compared.add_flow(mine, given)
        if mine.depth_path and given.depth_path and truth.depth_kind == "metric":
            depth, true = read_depth(mine), read_depth(given) * truth.depth_unit_scale
            both = (depth > 0) & (true[: depth.shape[0], : depth.shape[1]] > 0)
            compared.depth.append(depth[both] / true[: depth.shape[0], : depth.shape[1]][both])
    ratio = np.concatenate(compared.depth) if compared.depth else np.zeros(0)
    hidden = folder / ".process"
    figures = read_json(hidden / "masks.json") if (hidden / "masks.json").is_file() else {}
    return Row(
        name,
        sum(read_json(marker)["seconds"] for marker in (hidden / "steps").glob("*.json")),
        f"{len(pairs)}/{len(picked)}",
        figures.get("epipolar_error_px"),
        ate,
        rotation,
        abs(pairs[0][0].fx / pairs[0][1].fx - 1),
        float(np.mean(compared.ious)) if compared.ious else None,
        float(np.median(np.concatenate(compared.flow))) if compared.flow else None,
        float(np.median(np.concatenate(compared.trusted))) if compared.trusted else None,
        float(np.median(np.abs(ratio * scale - 1))) if len(ratio) else None,
        read_json(hidden / "depth.json")["coverage"],
    )


def table(rows: list[Row]) -> str:
    """As Markdown."""
    text = "| scene | seconds | registered | epipolar px | path error % | rotation ° | focal % | mask IoU | flow px "
    text += "| trusted flow px | depth % | depth known % |\n|" + "---|" * 12 + "\n"
    for row in rows:
        cells = [row.scene, f"{row.seconds:.0f}", row.registered, _cell(row.epipolar), f"{100 * row.ate:.2f}"]
        cells += [f"{row.rotation:.2f}", _cell(row.focal, 100), _cell(row.iou), _cell(row.flow)]
        cells += [_cell(row.trusted_flow), _cell(row.depth, 100), _cell(row.known, 100)]
        text += "| " + " | ".join(cells) + " |\n"
    return text


def _cell(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.2f}"


def main(
    scenes: tuple[Path, ...] = (),
    photos: tuple[Path, ...] = (),
    synthetic: tuple[str, ...] = ("demo", "demo-b", "fast", "thin", "static"),
    frames: int = 24,
    width: int = 320,
    samples: int = 2,
    keep: Path | None = None,
    threads: int = 2,
) -> None:
    """See the top of this file."""
    cv2.setNumThreads(threads)
    with tempfile.TemporaryDirectory() as temporary:
        root = keep or Path(temporary)
        given = {path.resolve().name: path for path in (*scenes, *photos)}
        for name in () if given else synthetic:
            given[name] = write_scene(name, root / "truth" / name, 0, frames, width, width * 3 // 4, samples)
        rows = []
        for name, path in given.items():
            truth = read_scene(path)
            static = path in photos or len(truth.times) == 1
            source, folder = root / (name if static else f"{name}.mp4"), root / "processed" / name
            root.mkdir(parents=True, exist_ok=True)
            if not source.exists():
                (copy_photos if static else make_video)(truth, source)
            process(source, folder, num_frames=len(truth.train), models="classical", threads=threads, static=static)
            rows.append(evaluate(name, folder, truth))
    print(f"\n{date.today()}, {platform.machine()}, {threads} threads\n")
    print(table(rows))


if __name__ == "__main__":
    tyro.cli(main)
